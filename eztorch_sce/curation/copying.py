"""Copies of a video that decode fast, as h264 or as JPEG images, and the check that a copy shows the same frames."""

import random
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eztorch_sce.curation.settings import PrepareConfig
from eztorch_sce.curation.video_writer import TimedFrame, fast_to_decode, write_frames
from eztorch_sce.data.decoders import frames as frame_folders
from eztorch_sce.data.decoders.base import SNAP_S
from eztorch_sce.data.decoders.pyav.decoder import PyAVDecoder
from eztorch_sce.errors import MediaError
from eztorch_sce.files import replacing, replacing_folder
from eztorch_sce.types import ClipSpan

_JPEG_QUALITY = 95
_MEAN_TOLERANCE = 12.0  # gray levels by which encoding may shift a frame's mean; a black or repeated frame exceeds it


def encode(source: str, target: Path, config: PrepareConfig) -> None:
    """Write a copy of a video as h264, and compare its frames with those of the source.

    Raises:
        MediaError: If the source cannot be read, or its copy differs.
    """
    frames = PyAVDecoder().frames(source, config.short_side)
    if config.fps is not None:
        frames = _at_rate(frames, config.fps)
    fps = config.fps or PyAVDecoder().probe(source).fps or frame_folders.FPS
    written = _WrittenFrames()
    with replacing(target) as partial:
        write_frames(partial, written.record(frames), fps, fast_to_decode(config.gop, config.crf))
        written.verify(source, PyAVDecoder().frames(str(partial), config.short_side))


def write_frame_folder(source: str, target: Path, config: PrepareConfig) -> None:
    """Write the frames of a video as JPEG images, 25 per second.

    Raises:
        MediaError: If the source cannot be read.
    """
    from PIL import Image

    frames = _at_rate(PyAVDecoder().frames(source, config.short_side), frame_folders.FPS)
    with replacing_folder(target) as partial:
        for number, (_, pixels) in enumerate(frames, start=1):
            Image.fromarray(pixels).save(partial / f"{number:08d}.jpg", quality=_JPEG_QUALITY)


def _at_rate(frames: Iterator[TimedFrame], fps: float) -> Iterator[TimedFrame]:
    """Yield the frame shown at 0, 1 / fps, 2 / fps, ... seconds; the last frame lasts as long as the one before it."""
    number, current, since_s, lasts_s = 0, None, 0.0, 1 / fps
    for starts_s, pixels in frames:
        while current is not None and number / fps < starts_s - SNAP_S:
            yield number / fps, current
            number += 1
        if current is not None:
            lasts_s = starts_s - since_s
        current, since_s = pixels, starts_s
    while current is not None and number / fps < since_s + lasts_s - SNAP_S:
        yield number / fps, current
        number += 1


class _FrameSummary(NamedTuple):
    time_s: float
    mean: float
    shape: tuple[int, ...]

    @classmethod
    def of(cls, time_s: float, pixels: np.ndarray) -> "_FrameSummary":
        return cls(time_s, float(pixels.mean()), pixels.shape)


class _WrittenFrames:
    """Summaries of the frames written to a copy, to verify the copy against."""

    def __init__(self) -> None:
        self._summaries: list[_FrameSummary] = []

    def record(self, frames: Iterator[TimedFrame]) -> Iterator[TimedFrame]:
        """Record each frame, and yield it unchanged."""
        for time_s, pixels in frames:
            self._summaries.append(_FrameSummary.of(time_s, pixels))
            yield time_s, np.ascontiguousarray(pixels)

    def verify(self, source: str, frames: Iterator[TimedFrame]) -> None:
        """Raise MediaError if the frames read back from the copy differ from the recorded ones."""
        read = [_FrameSummary.of(time_s, pixels) for time_s, pixels in frames]
        start_s = self._summaries[0].time_s if self._summaries else 0.0
        same = len(read) == len(self._summaries) and all(
            abs(ours.time_s - (theirs.time_s - start_s)) <= SNAP_S
            and abs(ours.mean - theirs.mean) <= _MEAN_TOLERANCE
            and ours.shape == self._summaries[-1].shape
            for ours, theirs in zip(read, self._summaries, strict=True)
        )
        if not same:
            raise MediaError(source, "its copy does not show the same frames; please report this file")


def speedup(source: str, target: str) -> float:
    """Return how many times faster a pair of clips of 2.56 s is read from the copy than from the source."""
    duration_s, generator = PyAVDecoder().probe(target).duration_s, random.Random(0)
    clip_s = min(2.56, duration_s)
    starts = [[generator.uniform(0, duration_s - clip_s) for _ in range(2)] for _ in range(3)]
    medians_s = []
    for path in (source, target):
        ticks = [time.perf_counter()]
        for pair in starts:
            PyAVDecoder().read(path, [ClipSpan(start_s, start_s + clip_s) for start_s in pair], 8)
            ticks.append(time.perf_counter())
        medians_s.append(statistics.median(later - earlier for earlier, later in pairwise(ticks)))
    return medians_s[0] / medians_s[1]
