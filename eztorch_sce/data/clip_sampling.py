"""Clip samplers: stateless functions from the duration of a video, and possibly a random generator, to clip spans.

A video shorter than one clip is returned whole, without padding or looping: the frames of its clip are then closer
together in time, and some may be repeated.
"""

import math
from collections.abc import Callable

import torch

from eztorch_sce.types import ClipSpan


def random_span(duration_s: float, clip_s: float, generator: torch.Generator) -> ClipSpan:
    """Place one clip of `clip_s` seconds in a video of `duration_s` seconds, with a uniformly distributed start.

    A video shorter than one clip is returned whole.

    >>> random_span(duration_s=2, clip_s=4, generator=torch.Generator())
    ClipSpan(start_s=0.0, end_s=2.0)
    """
    _check(duration_s, clip_s, count=1)
    # Always draw, even if unused, so later draws do not depend on the video's length.
    draw = torch.rand((), generator=generator, dtype=torch.float64).item()
    return _span(draw * (duration_s - clip_s), duration_s, clip_s)


def random_spans(duration_s: float, clip_s: float, count: int, generator: torch.Generator) -> list[ClipSpan]:
    """Place `count` clips independently of each other with `random_span`; SCE pretrains on two.

    A video shorter than one clip is returned whole, `count` times.

    >>> [first, second] = random_spans(duration_s=10, clip_s=4, count=2, generator=torch.Generator().manual_seed(0))
    >>> first == second
    False
    """
    _check(duration_s, clip_s, count)
    return [random_span(duration_s, clip_s, generator) for _ in range(count)]


def uniform_spans(duration_s: float, clip_s: float, count: int) -> list[ClipSpan]:
    """Place `count` clips of `clip_s` seconds evenly over a video of `duration_s` seconds.

    The first clip starts with the video and the last one ends with it; a single clip lies in the middle.
    A video shorter than one clip is returned whole, `count` times.

    >>> uniform_spans(duration_s=10, clip_s=4, count=3)[1]
    ClipSpan(start_s=3.0, end_s=7.0)
    """
    _check(duration_s, clip_s, count)
    fractions = [0.5] if count == 1 else [i / (count - 1) for i in range(count)]
    return [_span(fraction * (duration_s - clip_s), duration_s, clip_s) for fraction in fractions]


def near_spans(duration_s: float, clip_s: float, generator: torch.Generator, power: float) -> list[ClipSpan]:
    """Draw two clips, in random order, whose distance in time is random but tends to be short.

    The distance between their starts has a density proportional to (1 - distance / longest) ** `power`, where longest
    is the largest distance that fits into the video. Given the distance, the pair is placed uniformly. With
    `power` 1, the linear decay of CVRL, the clips are distributed as two independent ones (`random_spans`); 0 makes all
    distances equally likely, and more than 1 favors near clips. A video shorter than one clip is returned whole, twice.

    Source: the temporal sampling of CVRL (Qian et al., CVPR 2021, arXiv:2008.03800).
    """
    _check(duration_s, clip_s, count=2)
    if not power >= 0:
        raise ValueError(f"power={power} must be at least 0")
    distance_draw, position_draw, order_draw = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    longest_s = duration_s - clip_s
    distance_s = longest_s * (1 - (1 - distance_draw) ** (1 / (power + 1)))  # inverse of the cumulative distribution
    first_s = position_draw * (longest_s - distance_s)
    earlier, later = (_span(start_s, duration_s, clip_s) for start_s in (first_s, first_s + distance_s))
    return [later, earlier] if order_draw < 0.5 else [earlier, later]


def half_overlap_spans(duration_s: float, clip_s: float) -> list[ClipSpan]:
    """Cover a video with clips that each start in the middle of the previous one; the last one ends with the video.

    A video shorter than one clip is returned whole, once.

    >>> [span.start_s for span in half_overlap_spans(duration_s=9, clip_s=4)]
    [0.0, 2.0, 4.0, 5.0]
    """
    _check(duration_s, clip_s, count=1)
    steps = max(0, math.ceil(_ratio(duration_s - clip_s, clip_s / 2)))
    starts_s = [min(step * clip_s / 2, float(duration_s - clip_s)) for step in range(steps + 1)]
    return [_span(start_s, duration_s, clip_s) for start_s in starts_s]


def cover_spans(duration_s: float, clip_s: float) -> list[ClipSpan]:
    """Cover a video with as few clips as possible, evenly spaced; they overlap unless they fit exactly.

    A video shorter than one clip is returned whole, once.

    >>> [span.start_s for span in cover_spans(duration_s=9, clip_s=4)]
    [0.0, 2.5, 5.0]
    """
    _check(duration_s, clip_s, count=1)
    count = max(1, math.ceil(_ratio(duration_s, clip_s)))
    return uniform_spans(duration_s, clip_s, count) if count > 1 else [_span(0.0, duration_s, clip_s)]


def whole_span(duration_s: float, clip_s: float) -> list[ClipSpan]:
    """Return the whole video as one clip, whatever its length; the frames of the clip are spread over the video.

    >>> whole_span(duration_s=9, clip_s=4)
    [ClipSpan(start_s=0.0, end_s=9.0)]
    """
    _check(duration_s, clip_s, count=1)
    return [ClipSpan(0.0, float(duration_s))]


def strided_clip_s(num_frames: int, stride: int, fps: float) -> float:
    """Return the length in seconds of a clip whose frames are `stride` video frames apart.

    The result can be passed as `clip_s` to any function above. Without a frame rate (an image), one frame per second
    is assumed.

    >>> strided_clip_s(num_frames=8, stride=8, fps=25)
    2.56
    """
    return num_frames * stride / (fps or 1.0)


COVERS: dict[str, Callable[[float, float], list[ClipSpan]]] = {
    "half_overlap": half_overlap_spans,
    "cover": cover_spans,
    "whole": whole_span,
}
"""Functions of (duration_s, clip_s) that cover a video with as many clips as its length requires."""


def _ratio(length_s: float, unit_s: float) -> float:
    """Return length / unit, rounded so that `ceil` does not turn a floating-point error into an extra clip."""
    return round(length_s / unit_s, 6)


def _span(start_s: float, duration_s: float, clip_s: float) -> ClipSpan:
    if duration_s <= clip_s:
        return ClipSpan(0.0, float(duration_s))
    return ClipSpan(start_s, start_s + clip_s)


def _check(duration_s: float, clip_s: float, count: int) -> None:
    if not duration_s >= 0:
        raise ValueError(f"duration_s={duration_s} must be at least 0")
    if not clip_s > 0:
        raise ValueError(f"clip_s={clip_s} must be greater than 0")
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
