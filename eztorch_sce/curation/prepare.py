"""Re-encoded copies of videos that decode fast: small, with frequent key frames and no sound; h264 or JPEG images."""

import json
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eztorch_sce import signals
from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.settings import PrepareConfig
from eztorch_sce.curation.video_writer import TimedFrame, fast_to_decode, write_frames
from eztorch_sce.curation.workers import for_each
from eztorch_sce.data.decoders import frames as frame_folders
from eztorch_sce.data.decoders.base import SNAP_S
from eztorch_sce.data.decoders.pyav.decoder import PyAVDecoder
from eztorch_sce.data.sources.folder import find_media
from eztorch_sce.data.sources.summary import counts_in_words
from eztorch_sce.data.sources.walk import PREPARED_FILE
from eztorch_sce.errors import ConfigError, MediaError, shorten
from eztorch_sce.files import remove_partials, replacing, replacing_folder, write_text
from eztorch_sce.progress import counting, print_above
from eztorch_sce.settings import invalid_settings
from eztorch_sce.types import ClipSpan

_FAILED_FOLDER = ".prepare"  # next to it: for each shard, the videos that could not be copied
_LIMIT_S = 3600.0  # a file that takes longer counts as hung
_NUM_TIMED = 5  # copies whose speedup is measured
_JPEG_QUALITY = 95
_MEAN_TOLERANCE = 12.0  # gray levels by which encoding may shift a frame's mean; a black or repeated frame exceeds it


@dataclass
class Prepared:
    """Outcome of `prepare`.

    Attributes:
        num_written: Copies written by this call.
        num_kept: Copies of this shard that were already there.
        num_copies: Copies in the folder, of all shards.
        failed: Reason for each source that could not be copied, by path.
        seconds: Duration of the call.
        speedup: Median ratio of the times to read a clip from the source and from its copy, measured on a few files;
            None if no file was measured.
        complete: Whether every source of every shard has a copy or has failed.
    """

    num_written: int = 0
    num_kept: int = 0
    num_copies: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    speedup: float | None = None
    complete: bool = False


class _Job(NamedTuple):
    source: str
    target: str
    config: PrepareConfig
    timed: bool


class _Copied(NamedTuple):
    """Outcome of a job: the reason if it failed, or the speedup if it was measured."""

    failure: str = ""
    speedup: float | None = None


def prepare(root: Path, out: Path, config: PrepareConfig) -> Prepared:
    """Re-encode every video under `root` to the same relative path under `out`, skipping copies that already exist.

    A copy gets its final name only after it has been read back and its frames agree with the source in number, time,
    size and mean brightness. Images and frame folders are not copied. After an interruption, the same call continues.

    Raises:
        ConfigError: With all problems: invalid settings and folders, sources whose copies would have the same name,
            or copies made with other settings.
    """
    root, out = Path(os.path.abspath(root)), Path(os.path.abspath(out))
    if messages := invalid_settings(config) + _invalid_folders(root, out):
        raise ConfigError(messages)
    targets = _targets(root, out, config)
    _record_settings(root, out, config)
    index, num_shards = config.shard_numbers()
    shard = list(targets.items())[index - 1 :: num_shards]
    missing = [(source, target) for source, target in shard if not _is_current(source, target)]
    signals.keep(lambda: "finished copies are kept")
    prepared = Prepared(num_kept=len(shard) - len(missing))
    try:
        remove_partials(Path(target) for _, target in missing)
        _copy_all(missing, config, prepared)
    except OSError as error:  # from the file system; an unreadable source raises MediaError
        cure = "finished copies are kept; run the same command again to continue"
        raise ConfigError([f"OUT={out} cannot be written to ({error}); {cure}"]) from error
    _write_json(out / _FAILED_FOLDER / f"{index}-of-{num_shards}.json", prepared.failed)
    uncopied = {source for source, target in targets.items() if not os.path.exists(target)}
    prepared.num_copies = len(targets) - len(uncopied)
    prepared.complete = uncopied <= _failed_sources(out)
    return prepared


def _invalid_folders(root: Path, out: Path) -> list[str]:
    real_root, real_out = root.resolve(), out.resolve()
    if not root.is_dir():
        return [f"FOLDER={root} does not exist"]
    if real_root == real_out or real_root in real_out.parents or real_out in real_root.parents:
        return [f"OUT={out} must be outside FOLDER={root}, so that no source is overwritten or mistaken for a copy"]
    own = (_FAILED_FOLDER, PREPARED_FILE)
    foreign = [path for path in out.iterdir() if not path.name.startswith(own)] if out.is_dir() else []
    if foreign and not (out / PREPARED_FILE).is_file():  # last: another shard may be writing it
        return [f"OUT={out} contains files not made by `data prepare`; choose a new or an empty folder"]
    return []


def _targets(root: Path, out: Path, config: PrepareConfig) -> dict[str, str]:
    """Return the path of the copy of each video, by the path of the video."""
    media = find_media(root, "FOLDER")
    videos = [path for path, kind in media if kind == "video"]
    if not videos:
        raise ConfigError([f"FOLDER={root} contains images but no video; choose a folder of videos"])
    others = Counter(kind for _, kind in media if kind != "video")
    not_copied = f"; not copied: {counts_in_words(others)}" if others else ""
    print_above(f"data: {counts_in_words({'video': len(videos)})} to copy{not_copied}")
    suffix = ".mp4" if config.to == "h264" else ""
    targets = {path: str(out / os.path.relpath(os.path.splitext(path)[0], root)) + suffix for path in videos}
    sources: dict[str, list[str]] = {}
    for source, target in targets.items():
        sources.setdefault(target, []).append(source)
    if collisions := [" and ".join(paths) for paths in sources.values() if len(paths) > 1]:
        message = "differ only in their suffix, so their copies would have the same name; rename them"
        raise ConfigError([f"{shorten(collisions)} {message}"])
    return targets


def _record_settings(root: Path, out: Path, config: PrepareConfig) -> None:
    """Write the settings into the folder of the copies, or compare them with those recorded there."""
    file = out / PREPARED_FILE
    settings: dict[str, object] = {"source": str(root), **config.format_settings()}
    if not file.is_file():
        _write_json(file, settings)
        return
    recorded = json.loads(file.read_text())
    changes = [
        f"{name}={recorded.get(name)} (now {value})" for name, value in settings.items() if recorded.get(name) != value
    ]
    if changes:
        cure = "choose another folder, or the same settings"
        raise ConfigError([f"OUT={out} contains copies made with {', '.join(changes)}; {cure}"])


def _write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(content, indent=2) + "\n")


def _is_current(source: str, target: str) -> bool:
    """Return whether a copy exists and is not older than its source."""
    if not os.path.exists(target):
        return False
    return not os.path.exists(source) or os.path.getmtime(target) >= os.path.getmtime(source)


def _failed_sources(out: Path) -> set[str]:
    """Return the sources that any shard failed to copy."""
    return {source for file in (out / _FAILED_FOLDER).glob("*.json") for source in json.loads(file.read_text())}


def _copy_all(pairs: list[tuple[str, str]], config: PrepareConfig, prepared: Prepared) -> None:
    """Copy each source to its target in worker processes, and add the outcomes to `prepared`."""
    jobs = [_Job(*pair, config, timed=number < _NUM_TIMED) for number, pair in enumerate(pairs)]
    started, speedups = time.perf_counter(), []
    with counting(len(jobs), "prepare") as advance:
        for job, copied, crash in for_each(_copy, jobs, config.workers or num_usable_cores(), _LIMIT_S):
            outcome = copied or _Copied(failure=crash)
            if outcome.failure:
                prepared.failed[job.source] = outcome.failure
            else:
                prepared.num_written += 1
            if outcome.speedup is not None:
                speedups.append(outcome.speedup)
                prepared.speedup = statistics.median(speedups)
            rate = (prepared.num_written + len(prepared.failed)) / (time.perf_counter() - started)
            reads = f", reads {prepared.speedup:.1f}x faster" if prepared.speedup else ""
            advance(f"{rate:.1f} files/s{reads}")
    prepared.seconds = time.perf_counter() - started


def _copy(job: _Job) -> _Copied:
    os.makedirs(os.path.dirname(job.target), exist_ok=True)
    try:
        if job.config.to == "frames":
            _write_frame_folder(job.source, Path(job.target), job.config)
            return _Copied()
        encode(job.source, Path(job.target), job.config)
        return _Copied(speedup=_speedup(job.source, job.target) if job.timed else None)
    except MediaError as error:
        return _Copied(failure=error.reason)


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


def _write_frame_folder(source: str, target: Path, config: PrepareConfig) -> None:
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


def _speedup(source: str, target: str) -> float:
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
