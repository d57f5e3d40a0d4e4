"""Make decoded frames stackable, in the worker: uint8 (C, T, H, W) in, square uint8 (C, T, S, S) out.

Every resize is bilinear with antialias.
"""

import torch.nn.functional as F
from torch import Tensor


def crop_resize(frames: Tensor, box: tuple[int, int, int, int], size: int) -> Tensor:
    """Cut out a box (top, left, height, width) of pixels and resize it to (size, size); it may be smaller than that."""
    top, left, height, width = box
    return _resize(frames[:, :, top : top + height, left : left + width], size, size)


def scale_box(box: tuple[int, int, int, int], full_size: tuple[int, int], frames: Tensor) -> tuple[int, int, int, int]:
    """Return the pixels of a box (top, left, height, width) of an image in the same image decoded smaller.

    Edges fall on the nearest pixel, so a crop moves by half a pixel at most where the frames are shrunk no further
    than the crop will be.
    """
    edges = []
    for start, extent, full, length in zip(box[:2], box[2:], full_size, frames.shape[-2:], strict=True):
        first = min(round(start * length / full), length - 1)
        edges.append((first, max(1, round((start + extent) * length / full) - first)))
    (top, height), (left, width) = edges
    return top, left, height, width


def stretch(frames: Tensor, size: int) -> Tensor:
    """Resize whole frames to (size, size), whatever their aspect, for crops to be taken later on the device."""
    return _resize(frames, size, size)


def short_side_crops(
    frames: Tensor, short_side: int, size: int, num_crops: int, full_size: tuple[int, int] | None = None
) -> list[Tensor]:
    """Resize the short side to `short_side`, then cut out squares of `size`.

    Args:
        frames: uint8 (C, T, H, W).
        short_side: In pixels.
        size: Edge of a crop in pixels, at most `short_side`.
        num_crops: 1 for the center; 3 for the start, the center and the end of the long side (left, center, right of
            a wide video), centered along the short side.
        full_size: Height and width to show the frames at, if not their own; gives the aspect.

    Raises:
        ValueError: If the crop is larger than the short side, or the number of crops is another.
    """
    if size > short_side:
        raise ValueError(f"size={size}: a crop is at most as large as short_side={short_side}")
    if num_crops not in (1, 3):
        raise ValueError(f"num_crops={num_crops}: 1 (center) or 3 (along the long side) are possible")
    height, width = full_size or frames.shape[-2:]
    scale = short_side / min(height, width)
    # max: rounding must not take a pixel from the short side
    frames = _resize(frames, max(short_side, round(height * scale)), max(short_side, round(width * scale)))
    room_down, room_right = frames.shape[-2] - size, frames.shape[-1] - size
    shares = [0.5] if num_crops == 1 else [0.0, 0.5, 1.0]
    if width >= height:
        corners = [(round(room_down / 2), round(room_right * share)) for share in shares]
    else:
        corners = [(round(room_down * share), round(room_right / 2)) for share in shares]
    return [frames[:, :, top : top + size, left : left + size].contiguous() for top, left in corners]


def _resize(frames: Tensor, height: int, width: int) -> Tensor:
    if frames.shape[-2:] == (height, width):
        return frames.contiguous()
    images = frames.transpose(0, 1)  # channels as channels: torch has a fast path for up to four of them
    resized = F.interpolate(images, size=(height, width), mode="bilinear", antialias=True)
    return resized.transpose(0, 1).contiguous()
