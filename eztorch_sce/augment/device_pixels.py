"""The pixel operations of the device form of the views: a plan with its numbers, applied to a batch.

In between, frames are float32 (N T, 3, S S). The code is written for few launches and few passes over the pixels:
without compilation a linear color pass is one matrix product, and so are the terms of a hue shift. Compiled code
computes the same formulas pixel by pixel, to be fused with the operations around them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from eztorch_sce.augment.device_numbers import LinearPass, Plan

DeviceNumbers = dict[str, Tensor]


def augment(
    frames: Sequence[Tensor],
    numbers: DeviceNumbers,
    plan: Plan,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Tensor:
    """Return the augmented and normalized views of N samples, (N, 3, T, S, S).

    With a fixed plan, `torch.compile` takes this function whole.

    Args:
        frames: Crops or whole frames (B, 3, T, H, W), in parts that give N samples together.
        numbers: The numbers of the plan, see `device_numbers`.
        plan: The operations.
        dtype: Type of the result.
        memory_format: Memory format of the result.
    """
    pixels, shift, scale = _augmented(frames, numbers, plan)
    views = torch.addcmul(shift, pixels, scale).transpose(1, 2)
    return views.to(dtype).contiguous(memory_format=memory_format)


def augment_into(out: Tensor, frames: Sequence[Tensor], numbers: DeviceNumbers, plan: Plan) -> None:
    """Write what `augment` returns into `out`, (N, 3, T, S, S) of any type and memory format, without a copy."""
    pixels, shift, scale = _augmented(frames, numbers, plan)
    torch.addcmul(shift, pixels, scale, out=out.transpose(1, 2))


def blur_basis(size: int, num_taps: int) -> Tensor:
    """Return the matrix (num_taps, S S) that turns weights of one side of a kernel into matrices that blur a line.

    Row k holds, for each output and input pixel, how often the input is at distance k from the output: once on either
    side, and again for its reflections at the borders.
    """
    offsets = torch.arange(-num_taps + 1, num_taps)
    outputs = torch.arange(size)[:, None].expand(-1, len(offsets))
    inputs = size - 1 - (size - 1 - (outputs + offsets).abs()).abs()
    basis = torch.zeros(num_taps, size, size)
    places = (offsets.abs().expand(size, -1), outputs, inputs)
    return basis.index_put_(places, torch.ones(()), accumulate=True).flatten(1)


def _augmented(frames: Sequence[Tensor], numbers: DeviceNumbers, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """Return the views (N, T, 3, S, S) before normalization, and the shift and scale that normalize them."""
    pixels = _cropped(frames, numbers, plan) if plan.crops else _converted(frames, numbers, plan)
    if plan.differences:
        pixels = _differences(pixels, numbers, plan)
    for step in plan.before:
        pixels = _linear_color(pixels, numbers, step)
    if plan.hue:
        pixels = _shift_hue(pixels, numbers)
    for step in plan.after:
        pixels = _linear_color(pixels, numbers, step)
    if plan.blurs:
        pixels = _blur(pixels, numbers, plan)
    if plan.solarizes:
        inverted = numbers["solarize"] - pixels
        pixels = torch.minimum(pixels, inverted, out=None if torch.compiler.is_compiling() else inverted)
    views = pixels.view(-1, plan.num_frames, 3, plan.size, plan.size)
    if not plan.per_clip:
        return views, numbers["shift"], numbers["scale"]
    variance, mean = torch.var_mean(views, dim=(1, 2, 3, 4), correction=0, keepdim=True)
    scale = variance.sqrt().clamp_min(plan.white / 255).reciprocal()  # at least one gray level
    return views, -mean * scale, scale


def _converted(frames: Sequence[Tensor], numbers: DeviceNumbers, plan: Plan) -> Tensor:
    """Return crops as float32 (N T, 3, S S), flipped where this was drawn."""
    crops = frames[0] if len(frames) == 1 else torch.cat(list(frames))
    if plan.flips:
        crops = torch.where(numbers["flip"], crops.flip(-1), crops)
    pixels = crops.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    return pixels.view(-1, 3, plan.size * plan.size)


def _cropped(frames: Sequence[Tensor], numbers: DeviceNumbers, plan: Plan) -> Tensor:
    """Return crops of whole frames, resized and flipped, float32 (N T, 3, S S)."""
    whole = frames[0] if len(frames) == 1 else torch.cat(list(frames))
    batch, _, num_frames, height, width = whole.shape
    # The new axis of a product comes last. In this order of axes, the result needs no permutation: (W, T, C, H) to
    # (W, T, C, S) to (T, C, S, S).
    pixels = whole.permute(0, 4, 2, 1, 3).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    weights = _resize_weights(numbers, batch, plan.size)
    rows, columns = weights[:batch, :, :height], weights[batch:, :, :width]
    lines = torch.bmm(pixels.view(batch, -1, height), rows.transpose(1, 2))
    crops = torch.bmm(lines.view(batch, width, -1).transpose(1, 2), columns.transpose(1, 2))
    return crops.view(batch * num_frames, 3, plan.size * plan.size)


def _resize_weights(numbers: DeviceNumbers, batch: int, size: int) -> Tensor:
    """Return the matrices (2 N, S, L) that resize rows, then those for columns, see `device_numbers`."""
    lines = torch.mm(numbers["boxes"], numbers["box_basis"]).view(2 * batch, 3, size + 1, 1)
    offset, factor, peak = lines.unbind(1)
    weights = torch.addcmul(offset, numbers["box_pixels"], factor).abs_()
    weights = torch.sub(peak, weights).clamp_(0, 1)
    weights = weights[:, :size] * weights[:, size:]  # the triangle of each output pixel, and the fraction covered
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _differences(pixels: Tensor, numbers: DeviceNumbers, plan: Plan) -> Tensor:
    """Replace frames by temporal differences of gray in the samples that drew this."""
    samples = pixels.view(-1, 3 * plan.num_frames, plan.size * plan.size)
    rows = numbers.get("difference_rows")
    drawn = samples if rows is None else samples.index_select(0, rows)
    differences = torch.baddbmm(numbers["difference_bias"], numbers["difference"].expand(len(drawn), -1, -1), drawn)
    if rows is not None:
        return samples.index_copy_(0, rows, differences).view_as(pixels)
    if "difference_flags" in numbers:
        differences = torch.where(numbers["difference_flags"], differences, samples)
    return differences.view_as(pixels)


def _linear_color(pixels: Tensor, numbers: DeviceNumbers, step: LinearPass) -> Tensor:
    """Apply a linear color transform per frame."""
    matrix = numbers[f"matrix_{step.number}"]
    bias = None
    if step.mean:
        bias = _mixed(numbers[f"mean_{step.number}"], pixels.mean(dim=2, keepdim=True))
    result = _mixed(matrix, pixels, bias)
    return result.clamp_(0, 1) if step.clamps else result


def _mixed(matrix: Tensor, pixels: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return products of matrices (B, M, K) and pixels (B, K, P), plus a bias (B, M, 1)."""
    if torch.compiler.is_compiling():  # a sum of few products is fused, a matrix product is not
        mixed = (matrix[:, :, :, None] * pixels[:, None]).sum(dim=2)
        return mixed if bias is None else mixed + bias
    return torch.bmm(matrix, pixels) if bias is None else torch.baddbmm(bias, matrix, pixels)


def _shift_hue(pixels: Tensor, numbers: DeviceNumbers) -> Tensor:
    """Shift the hue of each frame by its own number of turns.

    With d the distance of a pixel from the hue of a channel, in sixths of a turn, the channel is at its maximum up to
    d = 1, at its minimum from d = 2 on, and linear in between: minimum + chroma clamp(2 - d, 0, 1).
    """
    with_extremes = torch.cat([pixels, *torch.aminmax(pixels, dim=1, keepdim=True)], dim=1)
    terms = _mixed(numbers["hue_terms"].expand(len(pixels), -1, -1), with_extremes, numbers["hue_floor"])
    del with_extremes  # the largest of the temporary tensors
    chroma, scaled_distance, green_side, base = terms.split(1, dim=1)
    hue = (scaled_distance / chroma).copysign_(green_side)  # distance from red, negative on the blue side
    # Both summands are in [-3, 3], so this is d or 6 - d.
    distance = (hue + numbers["hue"]).abs_().sub_(3).abs_().clamp_(1, 2)
    return torch.addcmul(base, chroma, distance, out=None if torch.compiler.is_compiling() else distance)


def _blur(pixels: Tensor, numbers: DeviceNumbers, plan: Plan) -> Tensor:
    """Blur the samples that drew this; borders are reflected."""
    size = plan.size
    samples = pixels.view(-1, 3 * plan.num_frames, size, size)
    matrices = torch.mm(numbers["blur"], numbers["blur_basis"]).view(-1, size, size)
    rows = numbers.get("blur_rows")
    drawn = samples if rows is None else samples.index_select(0, rows)
    num_drawn = len(matrices)
    # Each product puts its new axis at an end, so that the next one needs no copy.
    lines = torch.bmm(matrices, drawn.reshape(num_drawn, -1, size).transpose(1, 2))
    blurred = torch.bmm(lines.view(num_drawn, -1, size), matrices.transpose(1, 2))
    blurred = blurred.view(num_drawn, size, -1, size).permute(0, 2, 3, 1)
    blurred = blurred.contiguous() if rows is None else samples.index_copy_(0, rows, blurred)
    return blurred.view(len(pixels), 3, size * size)
