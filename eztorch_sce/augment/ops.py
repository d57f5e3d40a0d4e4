"""Deterministic operations on clips: float (B, C, T, H, W) in [0, 1] in, the same out, parameters per sample (B,).

A picture is a clip with T = 1. Each operation gives the numbers of its namesake in torchvision's
transforms.v2.functional, sample by sample, on any device. Pixels meet plain multiplications and additions only (no
fused ones), so that on a CPU a sample has the same bits alone and in any batch.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_GRAY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, the digits torchvision uses


def to_float(clips: Tensor) -> Tensor:
    """Return a new float32 tensor in [0, 1], from uint8 or from float already in [0, 1]."""
    return clips.float().div_(255) if clips.dtype == torch.uint8 else clips.to(torch.float32, copy=True)


def apply_to_rows(
    clips: Tensor, rows: Sequence[int], operation: Callable[..., Tensor], *parameters: Sequence[float]
) -> Tensor:
    """Apply an operation to some samples, and compute nothing for the others.

    Args:
        clips: (B, C, T, H, W); its memory may be reused for the result.
        rows: The samples that the operation is for, in ascending order.
        operation: Called with the clips of these rows and one (len(rows),) tensor per parameter.
        parameters: One number per row each.
    """
    if not rows:
        return clips
    values = [torch.tensor(numbers, dtype=torch.float32, device=clips.device) for numbers in parameters]
    if len(rows) == len(clips):
        return operation(clips, *values)
    index = torch.tensor(rows, device=clips.device)
    return clips.index_copy_(0, index, operation(clips.index_select(0, index), *values))


def adjust_brightness(clips: Tensor, factor: Tensor) -> Tensor:
    """Multiply by a factor (B,) >= 0; 1 changes nothing."""
    return (clips * _per_sample(factor)).clamp_(0, 1)


def adjust_contrast(clips: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean gray of each frame: factor (B,) >= 0, 0 is flat, 1 changes nothing."""
    # Rows first, then columns: one long sum per frame would be split among threads differently for different batches.
    mean = _gray(clips).mean(dim=-1, keepdim=True).mean(dim=-2, keepdim=True)
    return _blend(clips, mean, factor)


def adjust_saturation(clips: Tensor, factor: Tensor) -> Tensor:
    """Blend with the gray picture: factor (B,) >= 0, 0 is gray, 1 changes nothing."""
    return _blend(clips, _gray(clips), factor)


def adjust_hue(clips: Tensor, factor: Tensor) -> Tensor:
    """Turn the hue by a factor (B,) in turns, in [-0.5, 0.5]; 0 changes nothing."""
    red, green, blue = clips.unbind(dim=1)
    value = clips.amax(dim=1)  # (B, T, H, W), as all below
    chroma = value - clips.amin(dim=1)
    divisor = torch.where(chroma == 0, 1, chroma)  # gray has no hue: any will do
    hue = torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    hue = torch.where(value == red, (green - blue) / divisor, hue)  # in sixths of a turn
    hue = hue + 6 * factor.view(-1, 1, 1, 1)

    def channel(offset: int) -> Tensor:
        distance = hue + offset
        distance = distance - 6 * (distance / 6).floor()
        return value - chroma * torch.minimum(distance, 4 - distance).clamp_(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], dim=1)


def to_gray(clips: Tensor) -> Tensor:
    """Return the gray picture as three equal channels."""
    return _gray(clips).repeat(1, 3, 1, 1, 1)


def gaussian_blur(clips: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Blur in space with a Gaussian of sigma (B,) > 0 pixels cut off at an odd kernel size, borders reflected.

    Raises:
        ValueError: If the kernel is even, or reaches over more than a whole frame.
    """
    height, width = clips.shape[-2:]
    radius = kernel_size // 2
    if kernel_size % 2 == 0 or radius >= min(height, width):
        raise ValueError(
            f"kernel_size={kernel_size}: a blur of {height} x {width} pixels needs an odd kernel of at most "
            f"{2 * min(height, width) - 1}"
        )
    steps = torch.arange(-radius, radius + 1, device=clips.device)
    weights = (-0.5 * (steps / sigma[:, None]) ** 2).exp()
    weights = weights / weights.sum(dim=1, keepdim=True)  # (B, kernel_size)
    return _separable(clips, _blur_matrix(weights, height), _blur_matrix(weights, width))


def solarize(clips: Tensor, threshold: float = 0.5) -> Tensor:
    """Invert what is at or above the threshold."""
    return torch.where(clips >= threshold, 1 - clips, clips)


def horizontal_flip(clips: Tensor) -> Tensor:
    """Swap left and right."""
    return clips.flip(-1)


def temporal_difference(clips: Tensor) -> Tensor:
    """Return gray frame t minus gray frame t + 1 as (d + 1) / 2 in three equal channels; the last one is repeated.

    Raises:
        ValueError: If there is only one frame.
    """
    if clips.shape[2] < 2:
        raise ValueError(
            "the temporal difference needs clips of at least 2 frames, and these have 1 (a picture has): "
            "set `temporal_difference=0` and `input=rgb` in the views, or decode more frames"
        )
    gray = _gray(clips)
    difference = (gray[:, :, :-1] - gray[:, :, 1:] + 1) / 2
    return torch.cat([difference, difference[:, :, -1:]], dim=2).repeat(1, 3, 1, 1, 1)


def normalize(clips: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Subtract a mean (C,) and divide by a standard deviation (C,)."""
    return (clips - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1)


def crop_and_resize(clips: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut a box out of each clip and resize it to (size, size), bilinear with antialias.

    Equal to slicing and then `F.interpolate(mode="bilinear", antialias=True)` for boxes of whole pixels: nothing
    outside the box is seen. A pixel that a box of fractional edges covers in part counts for that part.

    Args:
        clips: Float (B, C, T, H, W).
        boxes: (B, 4): top, left, height and width in pixels; inside the frame, height and width > 0.
        size: Edge of the result in pixels.
    """
    top, left, height, width = boxes.to(clips.device, torch.float32).unbind(dim=1)
    rows = _resize_matrix(top, height, clips.shape[-2], size)
    columns = _resize_matrix(left, width, clips.shape[-1], size)
    return _separable(clips, rows, columns)


def _per_sample(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1, 1)


def _gray(clips: Tensor) -> Tensor:
    """Return (B, 1, T, H, W)."""
    red, green, blue = clips.split(1, dim=1)
    return red * _GRAY_WEIGHTS[0] + green * _GRAY_WEIGHTS[1] + blue * _GRAY_WEIGHTS[2]


def _blend(clips: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    share = _per_sample(factor)
    return (clips * share + other * (1 - share)).clamp_(0, 1)


def _blur_matrix(weights: Tensor, length: int) -> Tensor:
    """Return (B, length, length): the blur of a line with reflected borders, as a matrix."""
    batch, taps = weights.shape
    pixels = torch.arange(length, device=weights.device)
    seen = (pixels[:, None] + torch.arange(taps, device=weights.device) - taps // 2).abs()  # (length, taps)
    seen = (length - 1) - (length - 1 - seen).abs()
    matrix = weights.new_zeros(batch, length, length)
    return matrix.scatter_add_(2, seen.expand(batch, -1, -1), weights[:, None].expand(-1, length, -1))


def _resize_matrix(start: Tensor, extent: Tensor, length: int, size: int) -> Tensor:
    """Return (B, size, length): the resize of the part [start, start + extent) of a line, as a matrix."""
    pixels = torch.arange(length, device=start.device)  # pixel i covers [i, i + 1)
    start, extent = start[:, None, None], extent[:, None, None]
    scale = extent / size  # input pixels per output pixel
    centers = start + scale * (torch.arange(size, device=start.device)[:, None] + 0.5)
    triangle = (1 - (pixels + 0.5 - centers).abs() / scale.clamp(min=1)).clamp_(min=0)  # (B, size, length)
    covered = (torch.minimum(pixels + 1, start + extent) - torch.maximum(pixels, start)).clamp_(0, 1)
    weights = triangle * covered
    return weights / weights.sum(dim=-1, keepdim=True)


def _separable(clips: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply rows (B, H', H) to the height and columns (B, W', W) to the width of each sample's frames."""
    batch, channels, frames = clips.shape[:3]
    new_height, new_width = rows.shape[1], columns.shape[1]
    # Where the edges of a matrix fall decides how a product rounds, and with them the batch and the threads. In blocks
    # of 16 there are no odd edges. The zeros cost little.
    clips, rows, columns = _pad_to_blocks(clips), _pad_to_blocks(rows), _pad_to_blocks(columns)
    with torch.autocast(clips.device.type, enabled=False):  # half precision has too few digits for pixels
        # Each product leaves its new axis first, so that the next one finds its own last, without a copy.
        lines = torch.bmm(columns, clips.reshape(batch, -1, columns.shape[2]).transpose(1, 2))
        pixels = torch.bmm(lines.view(batch, -1, rows.shape[2]), rows.transpose(1, 2))
    pixels = pixels.view(batch, columns.shape[1], channels, frames, rows.shape[1]).permute(0, 2, 3, 4, 1)
    return pixels[..., :new_height, :new_width].contiguous()


def _pad_to_blocks(matrices: Tensor) -> Tensor:
    """Append zeros to the last two axes up to multiples of 16."""
    spare_rows, spare_columns = -matrices.shape[-2] % 16, -matrices.shape[-1] % 16
    return F.pad(matrices, (0, spare_columns, 0, spare_rows)) if spare_rows or spare_columns else matrices
