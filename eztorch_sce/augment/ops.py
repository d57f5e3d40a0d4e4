"""Deterministic operations on clips: float (B, C, T, H, W) in [0, 1] in, the same out, parameters per sample (B,).

An image is a clip with T = 1. Each operation gives the numbers of its namesake in torchvision's
transforms.v2.functional, sample by sample, on any device. A gray clip may have one channel, which stands for three
equal ones. Pixels meet plain multiplications and additions (no fused ones) and matrix products without odd edges only,
so that on a CPU a sample has the same bits alone and in any batch. What decides the speed is how often the pixels are
passed over, how many calls that takes, and comparisons and selections, which torch computes several times slower than
arithmetic, minima and maxima: hence the forms below.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_GRAY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, the digits torchvision uses
_GRAY_SUM = sum(_GRAY_WEIGHTS)
_BLOCK = 16  # pixels of a line that one product blurs
_SHORT_LINE = 64  # up to here all pixels of a line are blurred by one product
_REACH = 5.8  # sigmas: what a Gaussian has farther out is less than the last digit of its sum

Band = tuple[slice, Tensor]
"""What a block of a line sees of the line, and the weights (block, seen)."""


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
    """Blend with the gray image: factor >= 0, 0 is gray, 1 changes nothing."""
    return LinearColor(factor, gray=1 - factor, clamps=factor > 1)


def to_float(clips: Tensor) -> Tensor:
    """Return a new float32 tensor in [0, 1], from uint8 or from float already in [0, 1]."""
    return clips.float().div_(255) if clips.dtype == torch.uint8 else clips.to(torch.float32, copy=True)


def apply_to_rows(clips: Tensor, rows: Sequence[int], operation: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply an operation to some samples, and compute nothing for the others.

    Args:
        clips: (B, C, T, H, W); its memory may be reused for the result.
        rows: The samples that the operation is for, in ascending order.
        operation: Called with the clips of these rows.
    """
    if not rows:
        return clips
    if len(rows) == len(clips):
        return operation(clips)
    index = _tensor(rows, clips.device, torch.long)
    result = operation(clips.index_select(0, index))
    return clips.index_copy_(0, index, result.expand(-1, clips.shape[1], -1, -1, -1))


def linear_color(clips: Tensor, changes: Sequence[LinearColor]) -> Tensor:
    """Apply to each sample its change of color; one channel comes out where all become gray."""
    of_pixels, of_gray, of_mean = ([change[place] for change in changes] for place in range(3))
    added = None  # (B, 1, T, H, W), or (B, 1, T, 1, 1)
    if any(of_gray) or any(of_mean):
        gray = _gray(clips)
        if any(of_mean):
            # Lines first, then columns: one long sum would be split among threads differently in other batches.
            added = gray.mean(dim=-1, keepdim=True).mean(dim=-2, keepdim=True)
            added.mul_(_per_sample(of_mean, clips.device))
        if any(of_gray):
            gray.mul_(_per_sample(of_gray, clips.device))
            added = gray if added is None else gray.add_(added)
    if not any(of_pixels):
        one_channel = clips[:, :1]
        return torch.zeros_like(one_channel) if added is None else added.expand_as(one_channel).clamp(0, 1)
    result = clips * _per_sample(of_pixels, clips.device)
    if added is not None:
        result.add_(added)
    elif not any(change.clamps for change in changes):
        return result  # no brighter than before
    return result.clamp_(0, 1)  # all of them: what a sample becomes must not depend on its neighbors


def adjust_hue(clips: Tensor, turns: Sequence[float]) -> Tensor:
    """Turn the hue by B turns, in [-0.5, 0.5]; 0 changes nothing. Takes any range of values, [0, 255] too."""
    if clips.shape[1] == 1:
        return clips  # gray has no hue
    red, green, blue = clips.unbind(dim=1)
    turned = torch.empty_like(clips)
    hue, free, other = turned.unbind(dim=1)  # (B, T, H, W), as all below
    value, low = torch.maximum(red, green), torch.minimum(red, green)
    torch.maximum(value, blue, out=value)
    torch.minimum(low, blue, out=low)
    chroma = value.sub_(low)
    # The way from red along the hexagon of hues, in sixths of a turn: 1 - r + g + b of the channels scaled to [0, 1],
    # positive on the green side. Gray has no hue, and any will do; cyan is as far away on either side.
    torch.add(green, blue, out=hue).sub_(red).sub_(low).div_(torch.clamp_min(chroma, 1e-12, out=free)).add_(1)
    torch.copysign(hue, torch.sub(green, blue, out=free), out=hue)
    hue.add_(_per_sample([6 * turn for turn in turns], clips.device, num_axes=4))
    hue.sub_(torch.mul(hue, 1 / 6, out=free).round_(), alpha=6)  # in [-3, 3]; whole multiples, so nothing is rounded
    # A channel is the highest up to one sixth from its own hue, the lowest from two sixths on, and between in between.
    torch.add(hue, 1, out=free)
    torch.sub(hue, 1, out=other)
    turned.abs_().sub_(1).clamp_(0, 1)
    hue.neg_().add_(1)  # how red it is not
    return turned.mul_(chroma[:, None]).add_(low[:, None])


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
    halves = [[math.exp(-0.5 * (step / sigma) ** 2) for step in range(radius + 1)] for sigma in sigmas]
    sums = [2 * sum(half) - 1 for half in halves]
    weights = _tensor(
        [[weight / total for weight in (*half[:0:-1], *half)] for half, total in zip(halves, sums, strict=True)],
        clips.device,
    )
    columns = _blur_matrix(weights, width)
    rows = columns if height == width else _blur_matrix(weights, height)
    if clips.device.type != "cpu" or max(height, width) <= _SHORT_LINE:
        return _separable(clips, rows, columns)
    clips = _pad_to_blocks(clips)  # as in `_separable`
    blurred = clips.new_empty(clips.shape)
    for sample, sigma in enumerate(sigmas):
        reach = min(radius, math.ceil(_REACH * sigma))
        across = _bands(columns[sample], reach)
        down = across if height == width else _bands(rows[sample], reach)
        _separable_bands(clips[sample], down, across, out=blurred[sample])
    return blurred[..., :height, :width]


def solarize(clips: Tensor) -> Tensor:
    """Invert what is 0.5 or brighter."""
    inverted = 1 - clips
    return torch.minimum(clips, inverted, out=inverted)


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
            "the temporal difference needs clips of at least 2 frames, and these have 1 (an image has): "
            "set `temporal_difference=0` and `input=rgb` in the views, or decode more frames"
        )
    gray = _gray(clips)
    difference = (gray[:, :, :-1] - gray[:, :, 1:]).add_(white).div_(2)
    return torch.cat([difference, difference[:, :, -1:]], dim=2)


def normalize(clips: Tensor, mean: Tensor, std: Tensor, out: Tensor | None = None) -> Tensor:
    """Subtract a mean (3,) and divide by a standard deviation (3,); three channels come out.

    Args:
        clips: (B, C, T, H, W).
        mean, std: Per channel.
        out: Where the result goes; the memory of `clips` is then reused on the way.
    """
    in_place = clips if out is not None and clips.shape[1] == 3 else None
    centered = torch.sub(clips, mean.view(-1, 1, 1, 1), out=in_place)
    return torch.div(centered, std.view(-1, 1, 1, 1), out=centered if out is None else out)


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
    batch, channels = clips.shape[:2]
    pixels = clips.flatten(2) if channels == 3 else clips.flatten(2).expand(-1, 3, -1)  # the same roundings
    with _full_precision(clips.device):
        gray = torch.bmm(_gray_weights(clips.device).expand(batch, 1, 3), pixels)
    return gray.view(batch, 1, *clips.shape[2:])


@cache
def _gray_weights(device: torch.device) -> Tensor:
    return _tensor(_GRAY_WEIGHTS, device)


def _full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return where products are of float32: half precision has too few digits for pixels."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()  # what follows takes a tenth of the time of entering this
    return torch.autocast(device.type, enabled=False)


def _tensor(numbers: Sequence[Any], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return numbers as a tensor; the host does not wait for a GPU that is still at work."""
    tensor = torch.tensor(numbers, dtype=dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _per_sample(numbers: Sequence[float], device: torch.device, num_axes: int = 5) -> Tensor | float:
    """Return one number per sample, to be combined with tensors of so many axes; a bare one is the cheapest."""
    return numbers[0] if len(numbers) == 1 else _tensor(numbers, device).view(-1, *[1] * (num_axes - 1))


def _blur_matrix(weights: Tensor, length: int) -> Tensor:
    """Return (B, length, length): the convolution of a line with odd weights (B, taps), borders reflected."""
    batch, taps = weights.shape
    radius = taps // 2
    wide = weights.new_zeros(batch, length, length + 2 * radius)  # row i holds the weights from column i on
    wide.as_strided((batch, length, taps), (length * wide.shape[2], wide.shape[2] + 1, 1)).copy_(
        weights[:, None].expand(-1, length, -1)
    )
    matrix = wide[:, :, radius : radius + length]
    if radius:  # what lies outside is the same as what lies as far inside
        matrix[:, :, 1 : radius + 1] += wide[:, :, :radius].flip(-1)
        matrix[:, :, -radius - 1 : -1] += wide[:, :, -radius:].flip(-1)
    return matrix


def _separable_bands(clip: Tensor, down: list[Band], across: list[Band], out: Tensor) -> None:
    """Do to one clip (C, T, H, W) of whole blocks what `_separable` does, with matrices that are 0 off a diagonal.

    Every block of a line is the product of a small matrix with the pixels that it sees: several times less work than
    with the whole matrix, and faster than convolutions.
    """
    height, width = clip.shape[-2:]
    pixels, lines = clip.reshape(-1, width), clip.new_empty(clip.numel() // width, width)
    frames = lines.view(-1, height, width)
    with _full_precision(clip.device):
        for (seen, weights), block in zip(across, lines.split(_BLOCK, dim=1), strict=True):
            torch.mm(pixels[:, seen], weights.t(), out=block)
        blocks = [torch.bmm(weights.expand(len(frames), -1, -1), frames[:, seen]) for seen, weights in down]
    torch.cat(blocks, dim=1, out=out.view_as(frames))


def _bands(matrix: Tensor, reach: int) -> list[Band]:
    """Return for each block of a line the pixels that it sees at most, and their weights."""
    length, padded, bands, inside = len(matrix), _pad_to_blocks(matrix), [], None
    for first in range(0, length, _BLOCK):
        seen = slice(max(0, first - reach), min(len(padded), first + _BLOCK + reach))
        if first < reach or first + _BLOCK + reach > length:  # at a border
            bands.append((seen, padded[first : first + _BLOCK, seen]))
        else:  # the same everywhere
            inside = padded[first : first + _BLOCK, seen] if inside is None else inside
            bands.append((seen, inside))
    return bands


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
    with _full_precision(clips.device):
        # Each product leaves its new axis first, so that the next one finds its own last, without a copy.
        lines = torch.bmm(columns, clips.reshape(batch, -1, columns.shape[2]).transpose(1, 2))
        pixels = torch.bmm(lines.view(batch, -1, rows.shape[2]), rows.transpose(1, 2))
    pixels = pixels.view(batch, columns.shape[1], channels, frames, rows.shape[1]).permute(0, 2, 3, 4, 1)
    return pixels[..., :new_height, :new_width].contiguous()


def _pad_to_blocks(matrices: Tensor) -> Tensor:
    """Append zeros to the last two axes up to multiples of 16."""
    spare_rows, spare_columns = -matrices.shape[-2] % 16, -matrices.shape[-1] % 16
    return F.pad(matrices, (0, spare_columns, 0, spare_rows)) if spare_rows or spare_columns else matrices
