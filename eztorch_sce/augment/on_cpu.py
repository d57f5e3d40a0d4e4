"""The form of the views for CPUs: parts of a batch that stay in the cache, and only the samples that draw an operation.

It is the reference that the device form (`on_device`) is compared with.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from eztorch_sce.augment import ops
from eztorch_sce.augment.device_numbers import ViewWork
from eztorch_sce.augment.draws import ViewParameters
from eztorch_sce.augment.ops import LinearColor

_CACHE_PIXELS = 2**17  # pixels processed at a time on a CPU: about what fits into its cache
_LARGE_SAMPLE_PIXELS = 2**14  # process larger samples one by one, which saves copying those that draw an operation


def augment(
    work: ViewWork, mean_and_std: tuple[Tensor, Tensor], dtype: torch.dtype, channels_last: bool
) -> Float[Tensor, "B 3 T S S"]:
    """Return the augmented and normalized crops.

    Args:
        work: The crops and what their samples draw.
        mean_and_std: Mean and standard deviation, (3,) each; unused if each clip has its own.
        dtype: Type of the result.
        channels_last: Whether it has the strides of `torch.channels_last_3d`.
    """
    clips, per_clip = work.frames, work.statistics is None
    parameters = work.draws.samples()
    memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format
    # Statistics of a clip are summed in one order, so that they do not depend on the memory format.
    views = torch.empty(
        (len(clips), 3, *clips.shape[2:]),
        dtype=torch.float32 if per_clip else dtype,
        device=clips.device,
        memory_format=torch.contiguous_format if per_clip else memory_format,
    )
    white = 255.0 if clips.dtype == torch.uint8 else 1.0
    # Inference mode is a tenth faster. `views` is created outside it, so that autograd can use it.
    with torch.inference_mode():
        for samples, all_frames in _chunks(clips):
            drawn = parameters[samples]
            chunk = _to_differences(clips[samples], drawn, white)
            for frames in all_frames:
                pixels = chunk[:, :, frames].to(torch.float32, copy=True)
                pixels = _augment(pixels, 1 / white, drawn)
                ops.normalize(pixels, *mean_and_std, out=views[samples, :, frames])
    return ops.standardize(views).to(dtype, memory_format=memory_format) if per_clip else views


def _to_differences(clips: Tensor, parameters: Sequence[ViewParameters], white: float) -> Tensor:
    """Replace frames by temporal differences, on the scale [0, white], in the samples that drew this."""
    rows = [row for row, drawn in enumerate(parameters) if drawn.temporal_difference]
    if not rows:
        return clips
    difference = partial(ops.temporal_difference, white=white)
    return ops.apply_to_rows(clips.to(torch.float32, copy=True), rows, difference)


def _augment(clips: Tensor, scale: float, parameters: Sequence[ViewParameters]) -> Tensor:
    """Scale clips to [0, 1] and apply the drawn operations, from color jitter to flip; may overwrite the input."""
    clips = _change_colors(clips, [color_passes(drawn, scale) for drawn in parameters])
    blurred = [row for row, drawn in enumerate(parameters) if drawn.blur_sigma]
    sigmas = [parameters[row].blur_sigma for row in blurred]
    blur = partial(ops.gaussian_blur, sigmas=sigmas, kernel_size=ops.blur_kernel_size(clips.shape[-1]))
    clips = ops.apply_to_rows(clips, blurred, blur)
    solarized = [row for row, drawn in enumerate(parameters) if drawn.solarize]
    clips = ops.apply_to_rows(clips, solarized, ops.solarize)
    flipped = [row for row, drawn in enumerate(parameters) if drawn.flip]
    return ops.apply_to_rows(clips, flipped, ops.horizontal_flip)


def _change_colors(clips: Tensor, passes: Sequence[Sequence[LinearColor | float]]) -> Tensor:
    """Apply the color passes of each sample: the first pass of all samples, then the second, and so on."""
    for number in range(max(map(len, passes))):
        current = {row: steps[number] for row, steps in enumerate(passes) if number < len(steps)}
        changes = {row: step for row, step in current.items() if isinstance(step, LinearColor)}
        turns = {row: step for row, step in current.items() if isinstance(step, float)}
        linear = partial(ops.linear_color, changes=list(changes.values()))
        clips = ops.apply_to_rows(clips, list(changes), linear)
        clips = ops.apply_to_rows(clips, list(turns), partial(ops.adjust_hue, turns=list(turns.values())))
    return clips


def color_passes(parameters: ViewParameters, scale: float) -> list[LinearColor | float]:
    """Return the passes over the pixels that scaling, color jitter and gray need.

    A pass is a hue shift in turns, or a linear color change. Consecutive linear changes are merged into one pass, up to
    a change that may leave [0, 1], since its result is clamped. Brightness does not affect hue, so a hue shift moves
    ahead of a change that only darkens, which can then merge with the changes after it.
    """
    linear = {"brightness": ops.brightness, "contrast": ops.contrast, "saturation": ops.saturation}
    passes: list[LinearColor | float] = [LinearColor(scale)] if scale != 1 else []
    names = [*parameters.jitter, "gray"] if parameters.gray else parameters.jitter
    for name in names:
        last = passes[-1] if passes else None
        if name == "hue":
            position = len(passes)
            if isinstance(last, LinearColor) and last.only_scales():
                position -= 1
            passes.insert(position, parameters.hue)
            continue
        change = ops.GRAY if name == "gray" else linear[name](getattr(parameters, name))
        if isinstance(last, LinearColor) and not last.clamps:
            passes[-1] = last.then(change)
        else:
            passes.append(change)
    return passes


def _chunks(clips: Tensor) -> Iterator[tuple[slice, list[slice]]]:
    """Yield chunks of samples with their chunks of frames, to be processed one after the other.

    A CPU is twice as fast on chunks that stay in its cache between operations.
    """
    batch, _, num_frames, height, width = clips.shape
    pixels = num_frames * height * width
    num_samples = 1 if pixels >= _LARGE_SAMPLE_PIXELS else _CACHE_PIXELS // pixels
    num_chunks = math.ceil(pixels / _CACHE_PIXELS)
    frames_at_once = math.ceil(num_frames / num_chunks)
    frames = [slice(first, first + frames_at_once) for first in range(0, num_frames, frames_at_once)]
    for first in range(0, batch, num_samples):
        yield slice(first, first + num_samples), frames
