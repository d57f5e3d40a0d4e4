"""Resizing and cropping of decoded frames in the worker: uint8 (C, T, H, W) in, square uint8 (C, T, S, S) out.

Every resize is bilinear with antialiasing.
"""

from typing import TypeAlias

import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

Frames: TypeAlias = UInt8[Tensor, "C T H W"]
SquareFrames: TypeAlias = UInt8[Tensor, "C T S S"]


def crop_resize(frames: Frames, box: tuple[int, int, int, int], size: int) -> SquareFrames:
    """Crop a box (top, left, height, width) in pixels and resize it to (size, size), up or down."""
    top, left, height, width = box
    return _resize(frames[:, :, top : top + height, left : left + width], size, size)


def scale_box(box: tuple[int, int, int, int], full_size: tuple[int, int], frames: Frames) -> tuple[int, int, int, int]:
    """Return the box that covers the same region of an image that was decoded at a smaller scale.

    Edges are rounded to whole pixels, so a crop shifts by at most half a pixel if the frames are shrunk no further than
    the crop will be.

    Args:
        box: Top, left, height and width in pixels of the full-size image.
        full_size: Height and width of the full-size image.
        frames: The frames as decoded.
    """
    edges = []
    for start, extent, full, length in zip(box[:2], box[2:], full_size, frames.shape[-2:], strict=True):
        first = min(round(start * length / full), length - 1)
        edges.append((first, max(1, round((start + extent) * length / full) - first)))
    (top, height), (left, width) = edges
    return top, left, height, width


def stretch(frames: Frames, size: int) -> SquareFrames:
    """Resize whole frames to (size, size) whatever their aspect ratio, so that the device can crop them later."""
    return _resize(frames, size, size)


def short_side_crops(
    frames: Frames, short_side: int, size: int, num_crops: int, full_size: tuple[int, int] | None = None
) -> list[SquareFrames]:
    """Resize frames to a given short side, then cut out square crops.

    Args:
        frames: Decoded frames.
        short_side: Length of the short side in pixels.
        size: Side of a crop in pixels, at most `short_side`.
        num_crops: 1 for the center, or 3 for the start, center and end of the long side (left, center and right of a
            wide video), each centered along the short side.
        full_size: Height and width at which to show the frames, which determine the aspect ratio; None takes those of
            `frames`.

    Raises:
        ValueError: If the crop is larger than the short side, or `num_crops` is neither 1 nor 3.
    """
    if size > short_side:
        raise ValueError(f"size={size} must be at most short_side={short_side}")
    if num_crops not in (1, 3):
        raise ValueError(f"num_crops={num_crops} must be 1 (center) or 3 (along the long side)")
    height, width = full_size or frames.shape[-2:]
    scale = short_side / min(height, width)
    # Without max(), rounding could make the short side one pixel too short.
    frames = _resize(frames, max(short_side, round(height * scale)), max(short_side, round(width * scale)))
    room_below, room_right = frames.shape[-2] - size, frames.shape[-1] - size
    fractions = [0.5] if num_crops == 1 else [0.0, 0.5, 1.0]
    if width >= height:
        corners = [(round(room_below / 2), round(room_right * fraction)) for fraction in fractions]
    else:
        corners = [(round(room_below * fraction), round(room_right / 2)) for fraction in fractions]
    return [frames[:, :, top : top + size, left : left + size].contiguous() for top, left in corners]


def _resize(frames: Frames, height: int, width: int) -> UInt8[Tensor, "C T {height} {width}"]:
    if frames.shape[-2:] == (height, width):
        return frames.contiguous()
    images = frames.transpose(0, 1)  # (T, C, H, W): torch has a fast path for at most four channels
    resized = F.interpolate(images, size=(height, width), mode="bilinear", antialias=True)
    return resized.transpose(0, 1).contiguous()
