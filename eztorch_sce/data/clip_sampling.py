"""Which stretches of a video to look at: functions of its duration and a generator, without memory.

A video shorter than one clip is one stretch, the whole video; nothing is padded or looped, and the frames of a clip
are then nearer to each other than asked, some of them shown more than once.
"""

import math
from collections.abc import Callable

import torch

from eztorch_sce.types import ClipSpan


def random_span(duration_s: float, clip_s: float, generator: torch.Generator) -> ClipSpan:
    """Place one clip of `clip_s` seconds in a video of `duration_s` seconds, every start equally likely.

    A video shorter than one clip gives the whole video.

    >>> random_span(duration_s=2, clip_s=4, generator=torch.Generator())
    ClipSpan(start_s=0.0, end_s=2.0)
    """
    _check(duration_s, clip_s, count=1)
    # Drawn whether it is needed or not, so that later draws do not depend on the length of the video.
    draw = torch.rand((), generator=generator, dtype=torch.float64).item()
    return _span(draw * (duration_s - clip_s), duration_s, clip_s)


def random_spans(duration_s: float, clip_s: float, count: int, generator: torch.Generator) -> list[ClipSpan]:
    """Place `count` clips independently of each other, each as `random_span` does: the two clips of SCE's pretraining.

    A video shorter than one clip gives the whole video, `count` times.

    >>> [first, second] = random_spans(duration_s=10, clip_s=4, count=2, generator=torch.Generator().manual_seed(0))
    >>> first == second
    False
    """
    _check(duration_s, clip_s, count)
    return [random_span(duration_s, clip_s, generator) for _ in range(count)]


def uniform_spans(duration_s: float, clip_s: float, count: int) -> list[ClipSpan]:
    """Place `count` clips of `clip_s` seconds evenly over a video of `duration_s` seconds.

    The first clip starts with the video and the last one ends with it; a single clip lies in the middle.
    A video shorter than one clip gives the whole video, `count` times.

    >>> uniform_spans(duration_s=10, clip_s=4, count=3)[1]
    ClipSpan(start_s=3.0, end_s=7.0)
    """
    _check(duration_s, clip_s, count)
    fractions = [0.5] if count == 1 else [i / (count - 1) for i in range(count)]
    return [_span(fraction * (duration_s - clip_s), duration_s, clip_s) for fraction in fractions]


def near_spans(duration_s: float, clip_s: float, generator: torch.Generator, power: float) -> list[ClipSpan]:
    """Place two clips at a drawn distance in time: near ones more often than far ones. In either order.

    The distance between the starts has a density proportional to (1 - distance / longest) ** `power`, where longest is
    what the video allows. Where the pair lies is then uniform. With `power` 1, the linear fall of CVRL, this has the
    same law as two independent clips (`random_spans`); 0 makes every distance equally likely, more than 1 favours near
    ones. A video shorter than one clip gives the whole video, twice.

    Source: the temporal sampling of CVRL (Qian et al., CVPR 2021, arXiv:2008.03800).
    """
    _check(duration_s, clip_s, count=2)
    if not power >= 0:
        raise ValueError(f"power is {power}, and must not be negative")
    far, place, swapped = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    longest_s = duration_s - clip_s
    distance_s = longest_s * (1 - (1 - far) ** (1 / (power + 1)))
    first_s = place * (longest_s - distance_s)
    starts_s = [first_s, first_s + distance_s]
    return [_span(start_s, duration_s, clip_s) for start_s in (starts_s[::-1] if swapped < 0.5 else starts_s)]


def half_overlap_spans(duration_s: float, clip_s: float) -> list[ClipSpan]:
    """Cover a video with clips that each start in the middle of the one before; the last one ends with the video.

    A video shorter than one clip gives the whole video, once.

    >>> [span.start_s for span in half_overlap_spans(duration_s=9, clip_s=4)]
    [0.0, 2.0, 4.0, 5.0]
    """
    _check(duration_s, clip_s, count=1)
    steps = max(0, math.ceil(_in_parts(duration_s - clip_s, clip_s / 2)))
    starts_s = [min(step * clip_s / 2, float(duration_s - clip_s)) for step in range(steps + 1)]
    return [_span(start_s, duration_s, clip_s) for start_s in starts_s]


def cover_spans(duration_s: float, clip_s: float) -> list[ClipSpan]:
    """Cover a video with as few clips as can be, evenly spaced; they overlap where it is no multiple of a clip.

    A video shorter than one clip gives the whole video, once.

    >>> [span.start_s for span in cover_spans(duration_s=9, clip_s=4)]
    [0.0, 2.5, 5.0]
    """
    _check(duration_s, clip_s, count=1)
    count = max(1, math.ceil(_in_parts(duration_s, clip_s)))
    return uniform_spans(duration_s, clip_s, count) if count > 1 else [_span(0.0, duration_s, clip_s)]


def whole_span(duration_s: float, clip_s: float) -> list[ClipSpan]:
    """Take the whole video as one clip, however long: its frames are then spread evenly over the video.

    >>> whole_span(duration_s=9, clip_s=4)
    [ClipSpan(start_s=0.0, end_s=9.0)]
    """
    _check(duration_s, clip_s, count=1)
    return [ClipSpan(0.0, float(duration_s))]


def strided_clip_s(num_frames: int, stride: int, fps: float) -> float:
    """Return how many seconds a clip lasts whose frames are each `stride` frames of the video apart.

    Give it to any function above; what lasts 0 seconds or has no frame rate, as an image, counts as 1 frame a second.

    >>> strided_clip_s(num_frames=8, stride=8, fps=25)
    2.56
    """
    return num_frames * stride / (fps or 1.0)


# How a video is covered where each clip counts: clips of (duration_s, clip_s), as many as it takes.
COVERS: dict[str, Callable[[float, float], list[ClipSpan]]] = {
    "half_overlap": half_overlap_spans,
    "cover": cover_spans,
    "whole": whole_span,
}


def _in_parts(length_s: float, part_s: float) -> float:
    """Return length over part, without what rounding adds to a whole number."""
    return round(length_s / part_s, 6)


def _span(start_s: float, duration_s: float, clip_s: float) -> ClipSpan:
    if duration_s <= clip_s:
        return ClipSpan(0.0, float(duration_s))
    return ClipSpan(start_s, start_s + clip_s)


def _check(duration_s: float, clip_s: float, count: int) -> None:
    if not duration_s >= 0:
        raise ValueError(f"duration_s is {duration_s}, and must not be negative")
    if not clip_s > 0:
        raise ValueError(f"clip_s is {clip_s}, and must be positive")
    if count < 1:
        raise ValueError(f"count is {count}, and must be at least 1")
