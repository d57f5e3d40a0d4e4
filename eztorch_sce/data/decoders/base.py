"""The decoder contract, and the rules for which frame is shown at a given time.

A span [start, end) is split into T equal intervals, and a clip holds the frames shown at their midpoints
(`frame_times`). The frame shown at a time is the last one whose timestamp is not later (`shown_at`). Times are in
seconds from the first displayed frame. At times that no frame covers:

- Before the first frame, the first frame is shown.
- After the last frame, the last frame is shown for at most `grace_s` more. A file whose frames end earlier than that is
  damaged and raises a `MediaError`; its last frame is not repeated.
- Between two frames, the earlier one is shown for its stored duration and at most `LONG_HOLD_S` more. A longer gap is
  damage too.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.types import Clip, ClipSpan, MediaInfo

# Matroska rounds timestamps to 1 ms, so a frame due within this tolerance counts as shown. The value is deliberately
# not a round number: requested times often are, so rounding errors would decide ties.
SNAP_S = 7e-4
LONG_HOLD_S = 10.0  # slides and screen recordings hold a frame for seconds; a stray timestamp jumps by minutes


class Timing(NamedTuple):
    """Duration of a video in seconds, and its frames per second; both are 0 for an image."""

    duration_s: float
    fps: float


# The spans to read, or a function that chooses them from the timing, so that a file need not be opened twice.
Spans: TypeAlias = Sequence[ClipSpan] | Callable[[Timing], Sequence[ClipSpan]]


@runtime_checkable
class Decoder(Protocol):
    """Reads clips from files. A decoder holds no open file, so it can be pickled and sent to worker processes."""

    def probe(self, path: str) -> MediaInfo:
        """Return the duration, frame rate, codec, and the size of the frames that `read` returns.

        Raises:
            MediaError: If the file cannot be read.
        """

    def read(self, path: str, spans: Spans, num_frames: int) -> list[Clip]:
        """Return one clip per span, opening the file once.

        Each clip holds `num_frames` upright RGB frames, uint8 (3, T, H, W), whose memory is laid out as (T, H, W, 3):
        the layout decoders write, and torch resizes fastest. `Clip.pts_s`, float64 (T,), holds the timestamps of these
        frames rather than the requested times. Pixels are not resampled: if they are not square, `Clip.full_size` is
        the size at which to show the frames.

        Args:
            path: The file.
            spans: The spans to read, or a function that chooses them.
            num_frames: Frames per clip (T).

        Raises:
            MediaError: If the file cannot be read, or has no frame at a requested time.
        """


@runtime_checkable
class DecoderConfig(Protocol):
    """Settings of a decoder registered in the group "decoder"."""

    def build(self) -> Decoder:
        """Return the decoder.

        Raises:
            ConfigError: If the package it needs cannot be imported.
        """


def choose_spans(spans: Spans, timing: Callable[[], Timing]) -> Sequence[ClipSpan]:
    """Return the spans to read; `timing` is only called if they depend on it."""
    return spans(timing()) if callable(spans) else spans


def frame_times(span: ClipSpan, num_frames: int) -> list[float]:
    """Return the midpoints of `num_frames` equal intervals of a span.

    Raises:
        ValueError: If the span ends before it starts, or `num_frames` is not positive.

    Examples:
        >>> frame_times(ClipSpan(start_s=1.0, end_s=3.0), num_frames=4)
        [1.25, 1.75, 2.25, 2.75]
    """
    if num_frames < 1:
        raise ValueError(f"num_frames={num_frames} must be at least 1")
    if not span.start_s <= span.end_s:
        raise ValueError(f"a span must not end before it starts: {span}")
    interval_s = (span.end_s - span.start_s) / num_frames
    return [span.start_s + (i + 0.5) * interval_s for i in range(num_frames)]


def shown_at(pts_s: Sequence[float], time_s: float) -> int:
    """Return the index of the frame shown at a time, given the ascending timestamps of all frames.

    >>> shown_at([0.0, 0.5, 1.0], time_s=0.7)
    1
    """
    return max(bisect_right(pts_s, time_s + SNAP_S) - 1, 0)


def grace_s(interval_s: float) -> float:
    """Return how long the last frame may stay on screen past its end, given the time between frames."""
    return max(0.5, interval_s)


def ends_early(path: str, time_s: float, end_s: float, duration_s: float) -> MediaError:
    """Return the error for a requested time that is past the last frame by more than the grace period.

    Args:
        path: The file.
        time_s: The requested time.
        end_s: End of the last frame.
        duration_s: Duration that the file claims.
    """
    if duration_s > end_s:
        return MediaError(path, f"ends at {end_s:.2f} s but claims to last {duration_s:.2f} s: truncated?")
    return MediaError(path, f"ends at {end_s:.2f} s; there is no frame at {time_s:.2f} s")


def check_hold(
    path: str, time_s: float, end_s: float, longest_s: float = LONG_HOLD_S, reason: str = "timestamps jump"
) -> None:
    """Raise an error if a requested time is too long after the end of the frame before it.

    Args:
        path: The file.
        time_s: The requested time.
        end_s: End of the last frame before that time.
        longest_s: How long a frame may stay on screen past its end.
        reason: Cause of the gap, for the message.

    Raises:
        MediaError: If there is no frame at that time.
    """
    if time_s > end_s + longest_s:
        raise MediaError(path, f"has no frame from {end_s:.2f} s to {time_s:.2f} s: {reason}")


def check_is_file(path: str) -> None:
    """Raise an error unless a path is a file that is not empty.

    Raises:
        MediaError: If there is nothing to read.
    """
    if not os.path.isfile(path):
        raise MediaError(path, "is a broken link or not a file" if os.path.lexists(path) else "does not exist")
    if os.path.getsize(path) == 0:
        raise MediaError(path, "is empty (0 bytes)")


def first_bytes(path: str, num_bytes: int) -> bytes:
    """Return the first bytes of a file, which identify its container.

    Raises:
        MediaError: If the file is missing, empty or cannot be opened.
    """
    check_is_file(path)
    try:
        with open(path, "rb") as file:
            return file.read(num_bytes)
    except OSError as error:
        raise MediaError(path, f"cannot be opened ({error.strerror})") from error


def missing_package(decoder: str, package: str, error: Exception, install: str) -> ConfigError:
    """Return the error for a decoder whose package cannot be imported, with the command that installs it."""
    problem = f"data.decoder={decoder} needs the package {package}, which cannot be imported ({error})"
    return ConfigError([f"{problem}; {install}"])
