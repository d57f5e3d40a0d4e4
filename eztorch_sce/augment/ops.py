"""Image operations on batches of clips, each sample with its own parameters.

Clips are float (B, C, T, H, W) in [0, 1]; an image has T = 1. Each operation matches its namesake in
`torchvision.transforms.v2.functional` and runs on any device. A gray clip may have a single channel, which stands for
three equal ones.

On a CPU, a sample's result is bit-identical alone and in any batch. To this end, all multiplications and additions are
unfused, and the sizes of matrix products are multiples of 16.

Speed depends on the number of kernel calls and of passes over the pixels. Comparisons and selections are avoided, since
torch computes them several times slower than arithmetic, minima and maxima.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from eztorch_sce.transfers import to_device

GRAY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, with torchvision's digits
_GRAY_SUM = sum(GRAY_WEIGHTS)
_BLOCK = 16  # output pixels computed by one matrix product
_SHORT_LINE = 64  # lines up to this length are blurred by a single product
_TAIL_SIGMAS = 5.8  # beyond this distance, Gaussian weights vanish in the rounding of their sum

Clips = Float[Tensor, "B C T H W"]
Band = tuple[slice, Tensor]
"""The input range that a block of output pixels depends on, and its weights (block, range)."""


class LinearColor(NamedTuple):
    """Linear color transform `pixels * x + gray * gray(x) + mean * m`, where m is the mean of gray(x) over the frame.

    Brightness, contrast, saturation and gray have this form, and so do their compositions.

    Attributes:
        pixels, gray, mean: The three coefficients.
        clamps: Whether the result may leave [0, 1] and must be clamped.
    """

    pixels: float
    gray: float = 0.0
    mean: float = 0.0
    clamps: bool = False

    def then(self, after: "LinearColor") -> "LinearColor":
        """Return the composition of this transform, which must not clamp, and a later one."""
        assert not self.clamps
        gray_gain = self.pixels + self.gray * _GRAY_SUM  # the gray of the result is gray_gain * gray(x) + constant
        return LinearColor(
            pixels=after.pixels * self.pixels,
            gray=after.pixels * self.gray + after.gray * gray_gain,
            mean=(after.pixels + after.gray * _GRAY_SUM + after.mean * _GRAY_SUM) * self.mean + after.mean * gray_gain,
            clamps=after.clamps,
        )

    def only_scales(self) -> bool:
        """Return whether the transform multiplies all pixels by one factor of at most 1."""
        return not (self.gray or self.mean or self.clamps)


GRAY = LinearColor(pixels=0.0, gray=1.0)


def brightness(factor: float) -> LinearColor:
    """Multiply by a factor >= 0; 1 changes nothing."""
    return LinearColor(factor, clamps=factor > 1)


def contrast(factor: float) -> LinearColor:
    """Blend with the mean gray of each frame by a factor >= 0; 0 is uniform gray, 1 changes nothing."""
    return LinearColor(factor, mean=1 - factor, clamps=factor > 1)


def saturation(factor: float) -> LinearColor:
    """Blend with the gray image by a factor >= 0; 0 is gray, 1 changes nothing."""
    return LinearColor(factor, gray=1 - factor, clamps=factor > 1)


def to_float(clips: Shaped[Tensor, "B C T H W"]) -> Clips:
    """Copy uint8 clips, or float clips in [0, 1], to float32 in [0, 1]."""
    return clips.float().div_(255) if clips.dtype == torch.uint8 else clips.to(torch.float32, copy=True)


def apply_to_rows(
    clips: Clips, rows: Sequence[int], operation: Callable[[Tensor], Tensor]
) -> Float[Tensor, "B C2 T H W"]:
    """Apply an operation to some samples and leave the others unchanged.

    The result has one channel if the operation returns one and applies to all samples.

    Args:
        clips: The batch; may be overwritten by the result.
        rows: Indices of the samples to change, in ascending order.
        operation: Called once, with the clips of these samples.
    """
    if not rows:
        return clips
    if len(rows) == len(clips):
        return operation(clips)
    index = _tensor(rows, clips.device, torch.long)
    result = operation(clips.index_select(0, index))
    return clips.index_copy_(0, index, result.expand(-1, clips.shape[1], -1, -1, -1))


def linear_color(clips: Clips, changes: Sequence[LinearColor]) -> Float[Tensor, "B C2 T H W"]:
    """Apply one linear color transform per sample; return a single channel if all results are gray."""
    pixel_factors = [change.pixels for change in changes]
    gray_factors = [change.gray for change in changes]
    mean_factors = [change.mean for change in changes]
    added = None  # (B, 1, T, H, W), or (B, 1, T, 1, 1)
    if any(gray_factors) or any(mean_factors):
        gray = _gray(clips)
        if any(mean_factors):
            # Average rows, then columns: one long sum would be split among threads differently in another batch.
            added = gray.mean(dim=-1, keepdim=True).mean(dim=-2, keepdim=True)
            added.mul_(_per_sample(mean_factors, clips.device))
        if any(gray_factors):
            gray.mul_(_per_sample(gray_factors, clips.device))
            added = gray if added is None else gray.add_(added)
    if not any(pixel_factors):
        one_channel = clips[:, :1]
        return torch.zeros_like(one_channel) if added is None else added.expand_as(one_channel).clamp(0, 1)
    result = clips * _per_sample(pixel_factors, clips.device)
    if added is not None:
        result.add_(added)
    elif not any(change.clamps for change in changes):
        return result  # no result can leave [0, 1]
    return result.clamp_(0, 1)  # clamp all samples, so that no result depends on the rest of the batch


def adjust_hue(clips: Clips, turns: Sequence[float]) -> Clips:
    """Shift the hue of each sample by a number of turns in [-0.5, 0.5]. Pixels may have any range, such as [0, 255]."""
    if clips.shape[1] == 1:
        return clips  # gray has no hue
    red, green, blue = clips.unbind(dim=1)
    shifted = torch.empty_like(clips)
    hue, scratch, other = shifted.unbind(dim=1)  # the memory of the result serves as scratch space, (B, T, H, W) each
    value, low = torch.maximum(red, green), torch.minimum(red, green)
    torch.maximum(value, blue, out=value)
    torch.minimum(low, blue, out=low)
    chroma = value.sub_(low)
    # The hue as the distance from red along the hexagon of hues, in sixths of a turn: with the channels scaled to
    # [0, 1] it is 1 - r + g + b, positive on the green side. The hue of gray is arbitrary, and so is the sign of cyan.
    torch.add(green, blue, out=hue).sub_(red).sub_(low).div_(torch.clamp_min(chroma, 1e-12, out=scratch)).add_(1)
    torch.copysign(hue, torch.sub(green, blue, out=scratch), out=hue)
    hue.add_(_per_sample([6 * turn for turn in turns], clips.device, num_axes=4))
    # Wrap to [-3, 3]. Subtracting whole multiples of 6 is exact.
    hue.sub_(torch.mul(hue, 1 / 6, out=scratch).round_(), alpha=6)
    # A channel is at its maximum up to one sixth of a turn from its own hue, at its minimum from two sixths on, and
    # linear in between.
    torch.add(hue, 1, out=scratch)
    torch.sub(hue, 1, out=other)
    shifted.abs_().sub_(1).clamp_(0, 1)
    hue.neg_().add_(1)  # red falls with the distance from red, while green and blue rise
    return shifted.mul_(chroma[:, None]).add_(low[:, None])


def blur_kernel_size(size: int) -> int:
    """Return the odd kernel size in proportion to the published 23 pixels at size 224, at least 3.

    >>> blur_kernel_size(224), blur_kernel_size(112), blur_kernel_size(32)
    (23, 11, 3)
    """
    return max(3, 2 * round((size * 23 / 224 - 1) / 2) + 1)


def gaussian_blur(clips: Clips, sigmas: Sequence[float], kernel_size: int) -> Clips:
    """Blur each sample in space by a Gaussian; borders are reflected.

    Args:
        clips: The batch.
        sigmas: Standard deviation per sample in pixels, > 0.
        kernel_size: Width in pixels at which the Gaussian is cut off; odd.

    Raises:
        ValueError: If the kernel size is even or too large for the frames.
    """
    height, width = clips.shape[-2:]
    radius = kernel_size // 2
    if kernel_size % 2 == 0 or radius >= min(height, width):
        raise ValueError(
            f"kernel_size={kernel_size} must be odd and at most {2 * min(height, width) - 1} "
            f"for frames of {height} x {width} pixels"
        )
    weights = _tensor([_gaussian_weights(sigma, radius) for sigma in sigmas], clips.device)
    columns = _blur_matrix(weights, width)
    rows = columns if height == width else _blur_matrix(weights, height)
    if clips.device.type != "cpu" or max(height, width) <= _SHORT_LINE:
        return _separable(clips, rows, columns)
    clips = _pad_to_blocks(clips)
    blurred = clips.new_empty(clips.shape)
    for sample, sigma in enumerate(sigmas):
        reach = min(radius, math.ceil(_TAIL_SIGMAS * sigma))
        across = _bands(columns[sample], reach)
        down = across if height == width else _bands(rows[sample], reach)
        _separable_bands(clips[sample], down, across, out=blurred[sample])
    return blurred[..., :height, :width]


def solarize(clips: Clips) -> Clips:
    """Invert pixels of 0.5 or brighter."""
    inverted = 1 - clips
    return torch.minimum(clips, inverted, out=inverted)


def horizontal_flip(clips: Clips) -> Clips:
    """Flip left and right."""
    return clips.flip(-1)


def temporal_difference(clips: Clips, white: float = 1.0) -> Float[Tensor, "B 1 T H W"]:
    """Return (gray frame t - gray frame t + 1 + white) / 2 in one channel; the last difference is repeated.

    Args:
        clips: The batch, with values in [0, white].
        white: The largest possible value.

    Raises:
        ValueError: If there is only one frame.
    """
    check_has_differences(clips)
    gray = _gray(clips)
    difference = (gray[:, :, :-1] - gray[:, :, 1:]).add_(white).div_(2)
    return torch.cat([difference, difference[:, :, -1:]], dim=2)


def check_has_differences(clips: Shaped[Tensor, "B C T H W"]) -> None:
    """Raise ValueError if there is only one frame, since a temporal difference needs two."""
    if clips.shape[2] < 2:
        raise ValueError(
            "a temporal difference needs clips of at least 2 frames, got 1 (images have 1); "
            "set temporal_difference=0 and input=rgb in the views, or decode more frames"
        )


def check_pixels(clips: Tensor) -> None:
    """Raise ValueError unless the pixels are uint8, or floats (in [0, 1])."""
    if clips.dtype != torch.uint8 and not clips.is_floating_point():
        raise ValueError(f"views take uint8 pixels, or floats in [0, 1], not {clips.dtype}: images.to(torch.uint8)")


def normalize(
    clips: Clips, mean: Float[Tensor, "3"], std: Float[Tensor, "3"], out: Tensor | None = None
) -> Float[Tensor, "B 3 T H W"]:
    """Subtract the mean and divide by the standard deviation of each channel; the result has three channels.

    Args:
        clips: The batch; overwritten if `out` is given.
        mean, std: Channel statistics.
        out: Destination, or None to allocate it.
    """
    in_place = clips if out is not None and clips.shape[1] == 3 else None
    centered = torch.sub(clips, mean.view(-1, 1, 1, 1), out=in_place)
    return torch.div(centered, std.view(-1, 1, 1, 1), out=centered if out is None else out)


def standardize(clips: Clips) -> Clips:
    """Normalize each clip by its own mean and standard deviation over all channels, frames and pixels.

    The deviation is at least one gray level (1/255), so a clip of a single color becomes zero.
    """
    mean, all_axes = clips, (4, 3, 2, 1)
    for axis in all_axes:  # one at a time: one long sum would be split among threads differently in another batch
        mean = mean.mean(dim=axis, keepdim=True)
    centered = clips - mean
    variance = centered.square()
    for axis in all_axes:
        variance = variance.mean(dim=axis, keepdim=True)
    return centered / variance.sqrt().clamp_min(1 / 255)


def resized_crops(clips: Clips, boxes: Shaped[Tensor, "B 4"], size: int) -> Float[Tensor, "B C T S S"]:
    """Crop one box per clip and resize it to (size, size), bilinear with antialiasing.

    For boxes of whole pixels, this equals slicing followed by `F.interpolate(mode="bilinear", antialias=True)`: pixels
    outside the box have no influence. A pixel partly covered by a fractional box counts by the covered fraction.

    Args:
        clips: The batch.
        boxes: Top, left, height and width in pixels, within the frame; height and width > 0.
        size: Side of the result in pixels.
    """
    boxes = boxes.to(torch.float32)
    top, left, height, width = to_device(boxes, clips.device).unbind(dim=1)
    rows = _resize_matrix(top, height, clips.shape[-2], size)
    columns = _resize_matrix(left, width, clips.shape[-1], size)
    return _separable(clips, rows, columns)


def _gray(clips: Tensor) -> Tensor:
    """Return gray clips (B, 1, T, H, W) in new memory."""
    batch, channels = clips.shape[:2]
    # A single channel takes the same product, so that it rounds the same.
    pixels = clips.flatten(2) if channels == 3 else clips.flatten(2).expand(-1, 3, -1)
    with _full_precision(clips.device):
        gray = torch.bmm(_gray_weights(clips.device).expand(batch, 1, 3), pixels)
    return gray.view(batch, 1, *clips.shape[2:])


@cache
def _gray_weights(device: torch.device) -> Tensor:
    return _tensor(GRAY_WEIGHTS, device)


def _full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which autocast is off, since half precision is too coarse for pixels."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()  # ten times faster than entering `torch.autocast`
    return torch.autocast(device.type, enabled=False)


def _tensor(numbers: Sequence[Any], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return numbers as a tensor on the device."""
    return to_device(torch.tensor(numbers, dtype=dtype), device)


def _per_sample(numbers: Sequence[float], device: torch.device, num_axes: int = 5) -> Tensor | float:
    """Return one number per sample, shaped to broadcast over the other axes; a single one stays a float, for speed."""
    return numbers[0] if len(numbers) == 1 else _tensor(numbers, device).view(-1, *[1] * (num_axes - 1))


def _gaussian_weights(sigma: float, radius: int) -> list[float]:
    """Return the 2 * radius + 1 normalized weights of a Gaussian.

    Computed without torch, whose vectorized exponential rounds differently for different lengths.
    """
    half = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(radius + 1)]
    total = 2 * sum(half) - 1
    return [weight / total for weight in (*half[:0:-1], *half)]


def _blur_matrix(weights: Tensor, length: int) -> Tensor:
    """Return matrices (B, length, length) that convolve a line with weights (B, taps), reflected at its borders."""
    batch, taps = weights.shape
    radius = taps // 2
    wide = weights.new_zeros(batch, length, length + 2 * radius)  # row i holds the weights from column i on
    wide.as_strided((batch, length, taps), (length * wide.shape[2], wide.shape[2] + 1, 1)).copy_(
        weights[:, None].expand(-1, length, -1)
    )
    matrix = wide[:, :, radius : radius + length]
    if radius:  # fold the weights that fall outside back in, mirrored at the border pixel
        matrix[:, :, 1 : radius + 1] += wide[:, :, :radius].flip(-1)
        matrix[:, :, -radius - 1 : -1] += wide[:, :, -radius:].flip(-1)
    return matrix


def _separable_bands(clip: Tensor, down: list[Band], across: list[Band], out: Tensor) -> None:
    """Apply `_separable` to one padded clip (C, T, H, W), with banded matrices.

    Each block of output pixels is the product of a small matrix and the input range it depends on: several times less
    work than with full matrices, and faster than convolutions.
    """
    height, width = clip.shape[-2:]
    pixels, lines = clip.reshape(-1, width), clip.new_empty(clip.numel() // width, width)
    frames = lines.view(-1, height, width)
    with _full_precision(clip.device):
        for (inputs, weights), block in zip(across, torch.split(lines, _BLOCK, dim=1), strict=True):
            torch.mm(pixels[:, inputs], weights.t(), out=block)
        blocks = [torch.bmm(weights.expand(len(frames), -1, -1), frames[:, inputs]) for inputs, weights in down]
    torch.cat(blocks, dim=1, out=out.view_as(frames))


def _bands(matrix: Tensor, reach: int) -> list[Band]:
    """Split a matrix that is zero beyond `reach` of its diagonal into one band per block of rows."""
    length, padded, bands, inner = len(matrix), _pad_to_blocks(matrix), [], None
    for first in range(0, length, _BLOCK):
        inputs = slice(max(0, first - reach), min(len(padded), first + _BLOCK + reach))
        if first < reach or first + _BLOCK + reach > length:  # at a border
            bands.append((inputs, padded[first : first + _BLOCK, inputs]))
        else:  # inner blocks share their weights
            inner = padded[first : first + _BLOCK, inputs] if inner is None else inner
            bands.append((inputs, inner))
    return bands


def _resize_matrix(start: Tensor, extent: Tensor, length: int, size: int) -> Tensor:
    """Return matrices (B, size, length) that resize the span [start, start + extent) of a line to `size` pixels."""
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
    # Padded to blocks of 16, products round the same in every batch and on any number of threads. Zeros cost little.
    clips, rows, columns = _pad_to_blocks(clips), _pad_to_blocks(rows), _pad_to_blocks(columns)
    with _full_precision(clips.device):
        # Each product puts its new axis first, so that the next one needs no copy.
        lines = torch.bmm(columns, clips.reshape(batch, -1, columns.shape[2]).transpose(1, 2))
        pixels = torch.bmm(lines.view(batch, -1, rows.shape[2]), rows.transpose(1, 2))
    pixels = pixels.view(batch, columns.shape[1], channels, frames, rows.shape[1]).permute(0, 2, 3, 4, 1)
    return pixels[..., :new_height, :new_width].contiguous()


def _pad_to_blocks(matrices: Tensor) -> Tensor:
    """Append zeros to the last two axes, up to multiples of 16."""
    spare_rows, spare_columns = -matrices.shape[-2] % _BLOCK, -matrices.shape[-1] % _BLOCK
    return F.pad(matrices, (0, spare_columns, 0, spare_rows)) if spare_rows or spare_columns else matrices
