"""Which stretches of a video to look at: functions of its duration and a generator, without memory.

A video shorter than one clip is one stretch, the whole video; nothing is padded or looped.
"""

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
