"""What every decoder does, and which frame is shown at a time: said once, here.

A span [start, end) is cut into T equal parts and the wanted times are their middles, `frame_times`. The frame shown at
a time is the last one whose pts is not later, `shown_at`. Seconds count from the first displayed frame; before it the
first frame is shown, after the last frame the last one, but only for `grace_s`: a file whose frames end earlier than
it says is damaged, and is refused instead of repeating its last frame. Between two frames the earlier one is shown for
as long as the file says, and for up to `LONG_HOLD_S` more: a hole beyond that is damage too.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from eztorch_sce.errors import MediaError
from eztorch_sce.types import Clip, ClipSpan, MediaInfo

# Matroska rounds times to a millisecond, so a frame that is due within this is shown. Not a round number: wanted times
# often are, and a tie would be decided by the last bit of a float.
SNAP_S = 7e-4
LONG_HOLD_S = 10.0  # slides and screen recordings hold a frame for seconds; a stray time stamp jumps by minutes


class Timing(NamedTuple):
    """Seconds that a video lasts, and frames per second; both 0 for an image."""

    duration_s: float
    fps: float


# The stretches to read, or what chooses them when told how long the video is: then one opening of the file is enough.
Spans: TypeAlias = Sequence[ClipSpan] | Callable[[Timing], Sequence[ClipSpan]]


@runtime_checkable
class Decoder(Protocol):
    """Reads clips from files. It holds no open file, so it can be sent to worker processes."""

    def probe(self, path: str) -> MediaInfo:
        """Return duration, frame rate, codec, and the size of the frames that `read` gives.

        Raises:
            MediaError: If the file cannot be read.
        """

    def read(self, path: str, spans: Spans, num_frames: int) -> list[Clip]:
        """Return one clip per span, of exactly `num_frames` upright RGB frames, from one opening of the file.

        `Clip.pts_s` are the times of the frames that were chosen, not the wanted times. The frames lie channels last
        in memory, as decoders write them and as torch resizes them fastest. They have the file's own pixels: where
        those are not square, `Clip.full_size` is the size to show them at.

        Raises:
            MediaError: If the file cannot be read, or not at the wanted times.
        """


def choose_spans(spans: Spans, timing: Callable[[], Timing]) -> Sequence[ClipSpan]:
    """Return the stretches to read; `timing` is called only if they depend on it."""
    return spans(timing()) if callable(spans) else spans


def frame_times(span: ClipSpan, num_frames: int) -> list[float]:
    """Return the middles of `num_frames` equal parts of a span.

    >>> frame_times(ClipSpan(start_s=1.0, end_s=3.0), num_frames=4)
    [1.25, 1.75, 2.25, 2.75]

    Raises:
        ValueError: If the span ends before it starts, or `num_frames` is not positive.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}, and must be at least 1")
    if not span.start_s <= span.end_s:
        raise ValueError(f"a span must not end before it starts: {span}")
    part_s = (span.end_s - span.start_s) / num_frames
    return [span.start_s + (i + 0.5) * part_s for i in range(num_frames)]


def shown_at(pts_s: Sequence[float], time_s: float) -> int:
    """Return the index of the frame shown at a time, given the ascending times of all frames.

    >>> shown_at([0.0, 0.5, 1.0], time_s=0.7)
    1
    """
    return max(bisect_right(pts_s, time_s + SNAP_S) - 1, 0)


def grace_s(interval_s: float) -> float:
    """Return for how long a frame may stay on screen after its own time is over, given the time between frames."""
    return max(0.5, interval_s)


def without_strays(frames: Iterable[tuple[float, Any]]) -> Iterator[tuple[float, Any]]:
    """Leave out frames with a stray time stamp: earlier than one before, or a jump that the next frame takes back."""
    last_s = -float("inf")
    jumped: tuple[float, Any] | None = None
    for shown in frames:
        if jumped is not None:
            if shown[0] > jumped[0]:
                yield jumped
                last_s = jumped[0]
            jumped = None
        if shown[0] <= last_s:
            continue
        if shown[0] - max(last_s, 0.0) > LONG_HOLD_S:
            jumped = shown
            continue
        yield shown
        last_s = shown[0]
    if jumped is not None:
        yield jumped


def in_a_hole(path: str, time_s: float, end_s: float, why: str = "time stamps that jump") -> MediaError:
    """Return the error for a wanted time in a hole between two frames, the first of which ends at `end_s`."""
    return MediaError(path, f"has no frame from {end_s:.2f} s to {time_s:.2f} s: {why}")


def ends_early(path: str, time_s: float, end_s: float, duration_s: float) -> MediaError:
    """Return the error for a wanted time that is later than the end of the last frame by more than the grace."""
    if duration_s > end_s:
        return MediaError(path, f"ends at {end_s:.2f} s but says it lasts {duration_s:.2f} s: truncated?")
    return MediaError(path, f"ends at {end_s:.2f} s; there is no frame at {time_s:.2f} s")
