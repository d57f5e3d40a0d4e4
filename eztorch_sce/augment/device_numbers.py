"""The numbers that the device form of the views needs, made on the host for a whole batch.

What each sample draws becomes rows of a few arrays: matrices of linear color passes, offsets of hue, weights of blur.
`sent_together` sends all of them in one copy.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eztorch_sce.augment.draws import Draws
from eztorch_sce.augment.ops import GRAY_WEIGHTS, blur_kernel_size
from eztorch_sce.augment.statistics import ChannelStatistics
from eztorch_sce.transfers import to_device

Numbers = dict[str, NDArray[np.generic]]

_GRAY_SUM = sum(GRAY_WEIGHTS)
_NUM_BEFORE = 3  # linear passes before the hue shift: brightness, contrast and saturation may clamp once each
_NUM_PASSES = 7  # as many after it, and gray
_IDENTITY = (1.0, 0.0, 0.0)
_ALIGNMENT = 16  # bytes; a tensor may be viewed as another type at multiples of its item size


class ViewWork(NamedTuple):
    """One view of a batch that is to be made.

    Attributes:
        frames: Crops (B, 3, T, S, S), or whole frames (B, 3, T, H, W) with boxes; uint8, or float in [0, 1].
        draws: What each sample draws.
        boxes: Top, left, height and width of the crop of each sample in pixels, float64 (B, 4), or None.
        size: Side of the view in pixels (S).
        statistics: Mean and standard deviation, or None if each clip has its own.
        strengths, probabilities: Those that `draws` were drawn with, see `draw_parameters`.
    """

    frames: Tensor
    draws: Draws
    boxes: NDArray[np.float64] | None
    size: int
    statistics: ChannelStatistics | None
    strengths: Mapping[str, float]
    probabilities: Mapping[str, float]


class LinearPass(NamedTuple):
    """A linear color pass: its number, whether it uses the mean gray of a frame, and whether its result is clamped."""

    number: int
    mean: bool
    clamps: bool


class Plan(NamedTuple):
    """The operations that a group of views needs; what a plan leaves out, no sample needs.

    Attributes:
        num_frames, size: T and S of the views.
        crops, flips: Whether frames are cropped (boxes also flip) or flipped.
        differences: Whether some samples are replaced by temporal differences.
        before, after: Linear color passes before and after the hue shift.
        hue, blurs, solarizes: Whether there are such operations.
        per_clip: Whether each clip is normalized by its own statistics.
        white: Value of white after the color passes.
        fixed: Whether the plan holds for all batches of these views, as `torch.compile` needs it, and not only for one.
    """

    num_frames: int
    size: int
    crops: bool
    flips: bool
    differences: bool
    before: tuple[LinearPass, ...]
    after: tuple[LinearPass, ...]
    hue: bool
    blurs: bool
    solarizes: bool
    per_clip: bool
    white: float
    fixed: bool


class Possible(NamedTuple):
    """The operations that a sample of a group of views may draw."""

    num_linear: int
    hue: bool
    contrast: bool
    gray: bool
    blur: bool
    solarize: bool
    flip: bool
    difference: bool


def possible_operations(works: Sequence[ViewWork]) -> Possible:
    """Return the operations that a sample of these views may draw, in this or another batch."""

    def any_view(name: str) -> bool:
        return any(work.probabilities[name] > 0 for work in works)

    def jitters(name: str) -> bool:
        return any(work.probabilities["jitter"] > 0 and work.strengths[name] > 0 for work in works)

    return Possible(
        num_linear=sum(map(jitters, ("brightness", "contrast", "saturation"))),
        hue=jitters("hue"),
        contrast=jitters("contrast"),
        gray=any_view("gray"),
        blur=any_view("blur"),
        solarize=any_view("solarize"),
        flip=any_view("flip"),
        difference=any_view("temporal_difference") or any(work.draws.temporal_difference.any() for work in works),
    )


def plan_and_numbers(
    draws: Draws,
    boxes: NDArray[np.float64] | None,
    statistics: NDArray[np.float64] | None,
    frames: tuple[torch.dtype, int, int, int],
    size: int,
    fixed: Possible | None,
) -> tuple[Plan, Numbers]:
    """Return the operations and numbers of N samples.

    Args:
        draws: What the samples draw.
        boxes: Boxes (N, 4) to crop, or None.
        statistics: Mean and standard deviation of each sample, (2, N, 3), or None if each clip has its own.
        frames: Type, number, height and width of the frames of a sample.
        size: Side of the views in pixels.
        fixed: The operations of a plan that holds for all batches, or None to leave out what no sample draws.
    """
    dtype, num_frames, height, width = frames
    white = 255.0 if dtype == torch.uint8 else 1.0
    numbers: Numbers = {}
    if boxes is not None:
        numbers |= _crop_numbers(boxes, draws.flip, size, max(height, width))
    flips = boxes is None and (fixed.flip if fixed else bool(draws.flip.any()))
    if flips:
        numbers["flip"] = draws.flip.reshape(-1, 1, 1, 1, 1)
    differences = fixed.difference if fixed else bool(draws.temporal_difference.any())
    if differences:
        numbers |= _difference_numbers(draws.temporal_difference, num_frames, white, rows=fixed is None)
    passes, hue, color = _color_numbers(draws, num_frames, white, fixed)
    numbers |= color
    if passes or hue:
        white = 1.0
    blurs = fixed.blur if fixed else bool(draws.blur_sigma.any())
    if blurs:
        numbers |= _blur_numbers(draws.blur_sigma, size, rows=fixed is None)
    solarizes = fixed.solarize if fixed else bool(draws.solarize.any())
    if solarizes:  # min(x, 4 - x) is x
        numbers["solarize"] = _per_frame(np.where(draws.solarize, white, 4 * white), num_frames).reshape(-1, 1, 1)
    if statistics is not None:
        mean, std = statistics
        numbers["scale"] = (1 / (white * std)).astype(np.float32).reshape(-1, 1, 3, 1, 1)
        numbers["shift"] = (-mean / std).astype(np.float32).reshape(-1, 1, 3, 1, 1)
    plan = Plan(
        num_frames=num_frames,
        size=size,
        crops=boxes is not None,
        flips=flips,
        differences=differences,
        before=tuple(step for step in passes if step.number < _NUM_BEFORE),
        after=tuple(step for step in passes if step.number >= _NUM_BEFORE),
        hue=hue,
        blurs=blurs,
        solarizes=solarizes,
        per_clip=statistics is None,
        white=white,
        fixed=fixed is not None,
    )
    return plan, numbers


def sent_together(arrays: Sequence[Numbers], device: torch.device) -> list[dict[str, Tensor]]:
    """Return the arrays as tensors on a device, sent in one copy that the host does not wait for."""
    starts, end = [], 0
    for numbers in arrays:
        for array in numbers.values():
            starts.append(end)
            end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    packed = np.empty(end, dtype=np.uint8)
    flat = [array for numbers in arrays for array in numbers.values()]
    for start, array in zip(starts, flat, strict=True):
        packed[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    sent = to_device(torch.from_numpy(packed), device)
    tensors = iter(
        sent[start : start + array.nbytes].view(_TORCH_TYPES[array.dtype.name]).view(array.shape)
        for start, array in zip(starts, flat, strict=True)
    )
    return [{name: next(tensors) for name in numbers} for numbers in arrays]


_TORCH_TYPES = {"float32": torch.float32, "int64": torch.int64, "bool": torch.bool}


def _per_frame(values: NDArray[np.floating[Any]], num_frames: int) -> NDArray[np.float32]:
    """Repeat the rows of an array (N, ...) for each frame of a sample, (N T, ...)."""
    values = values.astype(np.float32)
    return values if num_frames == 1 else np.repeat(values, num_frames, axis=0)


def _crop_numbers(boxes: NDArray[np.float64], flip: NDArray[np.bool_], size: int, length: int) -> Numbers:
    """Return coefficients from which `resize_weights` computes the matrices of rows, then columns, of all samples.

    The weight of input pixel q (by its center) in output pixel i is max(0, 1 - |q - c_i| k) with c_i the center of i in
    the input and 1 / k the reach of the filter, times the covered fraction of q, a trapezoid with the same form.
    Centers that run from right to left flip the image.
    """
    top, left, height, width = boxes.T
    start, extent = np.concatenate([top, left]), np.concatenate([height, width])
    backward = np.concatenate([np.zeros_like(flip), flip])
    step = extent / size  # input pixels per output pixel
    inverse_reach = 1 / np.maximum(step, 1)
    cover = np.minimum(extent, 1)  # of a box narrower than a pixel
    zero, one = np.zeros_like(start), np.ones_like(start)
    # Rows of a product with (1 for an output pixel, its index, 1 for the covered fraction).
    center = np.where(backward, start + extent - step / 2, start + step / 2) * inverse_reach
    offset = [-center, np.where(backward, step, -step) * inverse_reach, -(start + extent / 2) / cover]
    factor = [inverse_reach, zero, 1 / cover]
    height_of_peak = [one, zero, (extent + 1) / 2 / cover]
    coefficients = np.stack([np.stack(row, axis=1) for row in (offset, factor, height_of_peak)], axis=1)
    basis = np.zeros((3, size + 1), dtype=np.float32)
    basis[0, :size], basis[1, :size], basis[2, size] = 1, np.arange(size), 1
    pixels = np.arange(length, dtype=np.float32) + np.float32(0.5)
    return {"boxes": coefficients.astype(np.float32).reshape(-1, 3), "box_basis": basis, "box_pixels": pixels}


def _difference_numbers(flags: NDArray[np.bool_], num_frames: int, white: float, rows: bool) -> Numbers:
    """Return the matrix (3 T, 3 T) that maps the channels of all frames to differences of gray, and its samples."""
    matrix = np.zeros((num_frames, 3, num_frames, 3))
    for frame in range(num_frames):
        first = min(frame, num_frames - 2)  # the last difference is repeated
        matrix[frame, :, first] = np.array(GRAY_WEIGHTS) / 2
        matrix[frame, :, first + 1] = -np.array(GRAY_WEIGHTS) / 2
    numbers: Numbers = {
        "difference": matrix.reshape(1, 3 * num_frames, 3 * num_frames).astype(np.float32),
        "difference_bias": np.full((1, 1, 1), white / 2, dtype=np.float32),
    }
    if not rows:
        numbers["difference_flags"] = flags.reshape(-1, 1, 1)
    elif not flags.all():
        numbers["difference_rows"] = np.flatnonzero(flags)
    return numbers


def _color_numbers(
    draws: Draws, num_frames: int, white: float, fixed: Possible | None
) -> tuple[tuple[LinearPass, ...], bool, Numbers]:
    """Return the linear color passes, whether there is a hue shift, and the numbers of both."""
    coefficients, clamps = color_passes_of(draws, 1 / white)
    hue_rows = draws.jitters[:, 3]
    hue = fixed.hue if fixed else bool(hue_rows.any())
    passes = _possible_passes(fixed) if fixed else _drawn_passes(coefficients, clamps)
    if not hue and passes == [LinearPass(0, mean=False, clamps=False)]:
        scales = not fixed or not fixed.gray
        if scales and (coefficients[0] == (1 / white, 0.0, 0.0)).all():
            return (), False, {}  # left to the normalization
    numbers: Numbers = {}
    gray, none = np.tile(np.array(GRAY_WEIGHTS), (3, 1)), np.zeros((3, 3))
    # One product makes all matrices: of the pixels, and of their means.
    basis = np.array([[np.eye(3), none], [gray, none], [none, gray]], dtype=np.float32).reshape(3, -1)
    matrices = coefficients[[step.number for step in passes]].astype(np.float32) @ basis
    for step, both in zip(passes, matrices.reshape(len(passes), -1, 2, 3, 3), strict=True):
        numbers[f"matrix_{step.number}"] = _per_frame(both[:, 0], num_frames)
        if step.mean:
            numbers[f"mean_{step.number}"] = _per_frame(both[:, 1], num_frames)
    if hue:
        numbers |= _hue_numbers(np.where(hue_rows, draws.levels[:, 3], 0.0), num_frames)
    return tuple(passes), hue, numbers


def _drawn_passes(coefficients: NDArray[np.float64], clamps: NDArray[np.bool_]) -> list[LinearPass]:
    """Return the passes that change a sample."""
    passes = []
    for number in range(_NUM_PASSES):
        if np.any(coefficients[number] != np.array(_IDENTITY)):
            mean, clamped = bool(coefficients[number, :, 2].any()), bool(clamps[number].any())
            passes.append(LinearPass(number, mean, clamped))
    return passes


def _possible_passes(fixed: Possible) -> list[LinearPass]:
    """Return the passes that a sample may need."""
    last = fixed.num_linear + fixed.gray  # gray needs a pass of its own after a change that clamps
    used = list(range(min(max(last, 1), _NUM_BEFORE)))
    if fixed.hue:
        used += range(_NUM_BEFORE, _NUM_BEFORE + last)
    elif last > _NUM_BEFORE:
        used.append(_NUM_BEFORE)
    return [LinearPass(number, mean=fixed.contrast, clamps=fixed.num_linear > 0) for number in used]


def color_passes_of(draws: Draws, scale: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the linear color passes of N samples, merged as in `color_passes` of the CPU form.

    The first three come before the hue shift; a sample without one may continue in the others.

    Returns:
        Coefficients (passes, N, 3) of pixels, gray and mean gray, see `ops.LinearColor`; the first pass also scales.
        Whether the result of each pass is clamped, bool (passes, N).
    """
    samples = np.arange(len(draws.gray))
    coefficients = np.tile(np.array(_IDENTITY), (_NUM_PASSES, len(samples), 1))
    coefficients[0, :, 0] = scale
    clamps = np.zeros((_NUM_PASSES, len(samples)), dtype=bool)
    number = np.zeros(len(samples), dtype=np.int64)  # the pass that each sample is at

    def change(rows: NDArray[np.int64], after: NDArray[np.float64], after_clamps: NDArray[np.bool_]) -> None:
        number[rows] += clamps[number[rows], rows]  # what is clamped cannot be merged
        at = (number[rows], rows)
        coefficients[at] = _composed(coefficients[at], after)
        clamps[at] = after_clamps

    for position in range(4):
        operation = draws.order[:, position]
        applied = draws.jitters[samples, operation]
        number[applied & (operation == 3)] = _NUM_BEFORE
        rows = np.flatnonzero(applied & (operation != 3))
        factor, kind = draws.levels[rows, operation[rows]], operation[rows]
        gray, mean = (1 - factor) * (kind == 2), (1 - factor) * (kind == 1)
        change(rows, np.stack([factor, gray, mean], axis=1), factor > 1)
    rows = np.flatnonzero(draws.gray)
    change(rows, np.tile(np.array([0.0, 1.0, 0.0]), (len(rows), 1)), np.zeros(len(rows), dtype=bool))
    return coefficients, clamps


def _composed(first: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compose two linear color transforms (N, 3), as `ops.LinearColor.then` does."""
    pixels, gray, mean = first.T
    next_pixels, next_gray, next_mean = after.T
    gain = pixels + gray * _GRAY_SUM
    return np.stack(
        [
            next_pixels * pixels,
            next_pixels * gray + next_gray * gain,
            (next_pixels + next_gray * _GRAY_SUM + next_mean * _GRAY_SUM) * mean + next_mean * gain,
        ],
        axis=1,
    )


def _hue_numbers(turns: NDArray[np.float64], num_frames: int) -> Numbers:
    """Return the offset from the hue of a pixel to that of each channel, in sixths of a turn, wrapped to [-3, 3]."""
    offsets = 6 * turns[:, None] - np.array([0.0, 2.0, -2.0])
    offsets -= 6 * np.rint(offsets / 6)
    # Chroma, chroma times the distance from red, green - blue, and minimum - chroma, from r, g, b, minimum and maximum.
    terms = [[0, 0, 0, -1, 1], [-1, 1, 1, -2, 1], [0, 1, -1, 0, 0], [0, 0, 0, 2, -1]]
    return {
        "hue": _per_frame(offsets, num_frames).reshape(-1, 3, 1),
        "hue_terms": np.array([terms], dtype=np.float32),
        "hue_floor": np.array([[[1e-12], [0], [0], [0]]], dtype=np.float32),  # gray has no chroma to divide by
    }


def _blur_numbers(sigmas: NDArray[np.float64], size: int, rows: bool) -> Numbers:
    """Return the weights (R, taps) of the center and one side of each kernel, and the samples that they blur."""
    steps = np.arange(blur_kernel_size(size) // 2 + 1)
    blurred = sigmas > 0
    if rows:
        sigmas = sigmas[blurred]
    weights = np.exp(-0.5 * (steps / np.maximum(sigmas, 1e-3)[:, None]) ** 2)  # a sigma near 0 changes nothing
    weights /= 2 * weights.sum(axis=1, keepdims=True) - 1
    numbers: Numbers = {"blur": weights.astype(np.float32)}
    if rows and not blurred.all():
        numbers["blur_rows"] = np.flatnonzero(blurred)
    return numbers
