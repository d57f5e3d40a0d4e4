"""Deterministic operations on clips: float (B, C, T, H, W) in [0, 1] in, the same out, parameters per sample (B,).

A picture is a clip with T = 1. Each operation gives the numbers of its namesake in torchvision's
transforms.v2.functional, sample by sample, on any device. A gray clip may have one channel, which stands for three
equal ones. Pixels meet plain multiplications and additions only (no fused ones), so that on a CPU a sample has the
same bits alone and in any batch. What decides the speed is how often the pixels are passed over, and comparisons and
selections, which torch computes several times slower than arithmetic, minima and maxima: hence the forms below.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_GRAY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, the digits torchvision uses
_GRAY_SUM = sum(_GRAY_WEIGHTS)
_BLOCK = 16  # pixels of a line that one product blurs


class LinearColor(NamedTuple):
    """A change of color: `pixels` x + `gray` gray(x) + `mean` m, m the mean of gray(x) over each frame.

    Brightness, contrast, saturation and gray are of this form, and so are several of them in a row.

    Attributes:
        pixels, gray, mean: The three factors.
        clamps: Whether the result may leave [0, 1], and is cut off there.
    """

    pixels: float
    gray: float = 0.0
    mean: float = 0.0
    clamps: bool = False

    def then(self, after: "LinearColor") -> "LinearColor":
        """Return both as one change; `self` must not clamp."""
        assert not self.clamps
        weight = self.pixels + self.gray * _GRAY_SUM  # of gray(x) in the gray of the result
        return LinearColor(
            pixels=after.pixels * self.pixels,
            gray=after.pixels * self.gray + after.gray * weight,
            mean=(after.pixels + after.gray * _GRAY_SUM + after.mean * _GRAY_SUM) * self.mean + after.mean * weight,
            clamps=after.clamps,
        )


GRAY = LinearColor(pixels=0.0, gray=1.0)


def brightness(factor: float) -> LinearColor:
    """Multiply by a factor >= 0; 1 changes nothing."""
    return LinearColor(factor, clamps=factor > 1)


def contrast(factor: float) -> LinearColor:
    """Blend with the mean gray of each frame: factor >= 0, 0 is flat, 1 changes nothing."""
    return LinearColor(factor, mean=1 - factor, clamps=factor > 1)


def saturation(factor: float) -> LinearColor:
    """Blend with the gray picture: factor >= 0, 0 is gray, 1 changes nothing."""
    return LinearColor(factor, gray=1 - factor, clamps=factor > 1)


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
    result = operation(clips.index_select(0, index), *values)
    return clips.index_copy_(0, index, result.expand(-1, clips.shape[1], -1, -1, -1))


def linear_color(clips: Tensor, changes: Sequence[LinearColor]) -> Tensor:
    """Apply to each sample its change of color; one channel comes out where all become gray."""
    of_pixels, of_gray, of_mean = (
        None if not any(factors) else clips.new_tensor(factors).view(-1, 1, 1, 1, 1)
        for factors in list(zip(*changes, strict=True))[:3]
    )
    result = clips * of_pixels if of_pixels is not None else None
    if of_gray is not None:
        gray = _gray(clips).mul_(of_gray)
        result = result.add_(gray) if result is not None else gray
    if of_mean is not None:
        # Rows first, then columns: one long sum would be split among threads differently in other batches. And of the
        # channels, not of the gray picture, which is then often not needed.
        mean = _gray(clips.mean(dim=-1, keepdim=True).mean(dim=-2, keepdim=True)).mul_(of_mean)
        result = result.add_(mean) if result is not None else mean.expand(-1, -1, -1, *clips.shape[-2:]).clone()
    if result is None:
        return torch.zeros_like(clips)
    return result.clamp_(0, 1)  # all of them: what a sample becomes must not depend on its neighbours


def adjust_hue(clips: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue by (B,) turns, in [-0.5, 0.5]; 0 changes nothing. Takes any range of values, [0, 255] too."""
    if clips.shape[1] == 1:
        return clips  # gray has no hue
    red, green, blue = clips.unbind(dim=1)
    value, low = torch.maximum(red, green), torch.minimum(red, green)  # (B, T, H, W), as all below
    torch.maximum(value, blue, out=value)
    torch.minimum(low, blue, out=low)
    chroma = value.sub_(low)
    # The way from red along the hexagon of hues, in sixths of a turn: 1 - r + g + b of the channels scaled to [0, 1],
    # positive on the green side. Gray has no hue, and any will do.
    hue = (green + blue).sub_(red).sub_(low).div_(chroma.clamp_min(1e-12)).add_(1)
    side = (green - blue).add_(1e-30).sign_()  # never 0: cyan is as far away on either
    hue.mul_(side).add_(6 * turns.view(-1, 1, 1, 1))
    hue.sub_((hue / 6).round_(), alpha=6)  # in [-3, 3]; whole multiples, so nothing is rounded
    turned = torch.empty_like(clips)
    red, green, blue = turned.unbind(dim=1)
    torch.abs(hue, out=red).neg_().add_(2)
    torch.add(hue, 1, out=green).abs_().sub_(1)
    torch.sub(hue, 1, out=blue).abs_().sub_(1)
    return turned.clamp_(0, 1).mul_(chroma[:, None]).add_(low[:, None])


def gaussian_blur(clips: Tensor, sigmas: Sequence[float], kernel_size: int) -> Tensor:
    """Blur in space with a Gaussian of B sigmas > 0, in pixels, cut off at an odd kernel size; borders are reflected.

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
    # Not by torch, whose exponentials have other last bits in vectors of other lengths.
    kernels = [[math.exp(-0.5 * (step / sigma) ** 2) for step in range(-radius, radius + 1)] for sigma in sigmas]
    weights = clips.new_tensor([[weight / sum(kernel) for weight in kernel] for kernel in kernels])
    return _blur_blocks(clips, weights)  # weights (B, kernel_size)


def solarize(clips: Tensor) -> Tensor:
    """Invert what is 0.5 or brighter."""
    return torch.minimum(clips, 1 - clips)


def horizontal_flip(clips: Tensor) -> Tensor:
    """Swap left and right."""
    return clips.flip(-1)


def temporal_difference(clips: Tensor, white: float = 1.0) -> Tensor:
    """Return gray frame t minus gray frame t + 1 as (d + white) / 2 in one channel; the last one is repeated.

    Args:
        clips: (B, C, T, H, W) in [0, white].
        white: The largest value there is.

    Raises:
        ValueError: If there is only one frame.
    """
    if clips.shape[2] < 2:
        raise ValueError(
            "the temporal difference needs clips of at least 2 frames, and these have 1 (a picture has): "
            "set `temporal_difference=0` and `input=rgb` in the views, or decode more frames"
        )
    gray = _gray(clips)
    difference = (gray[:, :, :-1] - gray[:, :, 1:]).add_(white).div_(2)
    return torch.cat([difference, difference[:, :, -1:]], dim=2)


def normalize(clips: Tensor, mean: Tensor, std: Tensor, out: Tensor | None = None) -> Tensor:
    """Subtract a mean (3,) and divide by a standard deviation (3,); three channels come out, into `out` if given."""
    return torch.sub(clips, mean.view(-1, 1, 1, 1), out=out).div_(std.view(-1, 1, 1, 1))


def standardize(clips: Tensor) -> Tensor:
    """Subtract from each clip its own mean and divide by its own standard deviation, over all channels and pixels.

    The deviation counts as at least one gray level (1/255), so that a clip of one color becomes zero.
    """
    mean, everything = clips, (4, 3, 2, 1)
    for dim in everything:  # one at a time: one long sum would be split among threads differently in other batches
        mean = mean.mean(dim=dim, keepdim=True)
    centered = clips - mean
    variance = centered.square()
    for dim in everything:
        variance = variance.mean(dim=dim, keepdim=True)
    return centered / variance.sqrt().clamp_min(1 / 255)


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


def _gray(clips: Tensor) -> Tensor:
    """Return (B, 1, T, H, W), a new tensor."""
    red, green, blue = clips.split(1, dim=1) if clips.shape[1] == 3 else (clips, clips, clips)  # the same roundings
    gray, part = red * _GRAY_WEIGHTS[0], green * _GRAY_WEIGHTS[1]
    gray.add_(part)
    return gray.add_(torch.mul(blue, _GRAY_WEIGHTS[2], out=part))


def _blur_blocks(clips: Tensor, weights: Tensor) -> Tensor:
    """Convolve columns and lines with odd weights (B, taps), borders reflected.

    Every block of pixels is a small matrix product with the pixels that it sees: six times less work than with the
    matrix of a whole line, and faster than convolutions, which know no kernel per sample.
    """
    batch, channels, frames, height, width = clips.shape
    taps, radius = weights.shape[1], weights.shape[1] // 2
    seen = _BLOCK + taps - 1
    band = weights.new_zeros(batch, _BLOCK, seen)  # row i holds the weights from column i on
    band.as_strided((batch, _BLOCK, taps), (_BLOCK * seen, seen + 1, 1)).copy_(weights[:, None].expand(-1, _BLOCK, -1))
    planes = F.pad(clips.flatten(1, 2), (radius,) * 4, mode="reflect")
    if height % _BLOCK or width % _BLOCK:  # to whole blocks
        planes = F.pad(planes, (0, -width % _BLOCK, 0, -height % _BLOCK))
    num_planes, tall, wide = planes.shape[1:]
    down, across = (tall - 2 * radius) // _BLOCK, (wide - 2 * radius) // _BLOCK
    num_lines = num_planes * down * _BLOCK
    with torch.autocast(clips.device.type, enabled=False):  # half precision has too few digits for pixels
        size = tall * wide
        rows = planes.as_strided(  # windows that overlap
            (batch, num_planes, down, seen, wide), (num_planes * size, size, _BLOCK * wide, wide, 1)
        )
        lines = torch.matmul(band[:, None, None], rows)  # (B, planes, down, _BLOCK, wide)
        columns = lines.as_strided((batch, across, num_lines, seen), (num_lines * wide, _BLOCK, wide, 1))
        blurred = torch.matmul(columns, band.transpose(1, 2)[:, None])  # (B, across, lines, _BLOCK)
    blurred = blurred.view(batch, across, channels, frames, down * _BLOCK, _BLOCK).permute(0, 2, 3, 4, 1, 5)
    return blurred.reshape(batch, channels, frames, down * _BLOCK, -1)[..., :height, :width].contiguous()


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
