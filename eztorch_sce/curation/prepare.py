"""Copies of a data set that decode fast: small, with many key frames, without sound; h264 or numbered images."""

import json
import os
import random
import shutil
import statistics
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.video_writer import write_frames
from eztorch_sce.curation.workers import for_each
from eztorch_sce.data.decoders import frames as frame_folders
from eztorch_sce.data.decoders.base import SNAP_S
from eztorch_sce.data.decoders.pyav.decoder import PyAVDecoder
from eztorch_sce.data.sources.manifest import find_media, shorten
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.files import replacing
from eztorch_sce.progress import counting
from eztorch_sce.types import ClipSpan

_NOTE = "prepare.json"  # how the copies were made, beside them
_FAILED = ".prepare"  # a hidden folder beside them: what each shard could not copy, and why
_LIMIT_S = 3600.0  # a file that takes longer hangs
_NUM_TIMED = 5  # files of which the gain is measured
_JPEG_QUALITY = 95
_MEAN_TOLERANCE = 12.0  # gray levels that a frame's mean may move by coding; a black or repeated frame moves more


@dataclass
class PrepareConfig:
    """How the copies are made.

    Attributes:
        short_side: Pixels of the short side; a smaller video keeps its size.
        gop: A key frame every so many frames: fewer to decode before a wanted one, at the cost of larger files.
        fps: Frames per second of the copies; null keeps every frame and its time.
        crf: Constant rate factor of x264: 0 is lossless, 51 worst.
        to: "h264", or "frames" for a folder of JPEG images per video at 25 a second.
        shard: "i/n": make the i-th of n parts of the list, for job arrays.
        workers: Processes; null is one per core.
    """

    short_side: int = 128
    gop: int = 16
    fps: float | None = None
    crf: int = 18
    to: str = "h264"
    shard: str = "1/1"
    workers: int | None = None

    def problems(self) -> list[str]:
        """Name each setting that cannot be."""
        found = []
        for name, least in (("short_side", 2), ("gop", 1), ("crf", 0), ("fps", 0.1), ("workers", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                found.append(f"{name}={value} must be at least {least}")
        if self.crf > 51:
            found.append(f"crf={self.crf} must be at most 51")
        if self.to not in ("h264", "frames"):
            found.append(f"to={self.to} must be h264 or frames")
        if self.to == "frames" and self.fps not in (None, frame_folders.FPS):
            found.append(f"fps={self.fps}: frame folders are read at {frame_folders.FPS:g} images a second; leave it")
        part, _, parts = self.shard.partition("/")
        if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
            found.append(f"shard={self.shard} must be i/n with 1 <= i <= n, as in 3/8")
        return found

    def what(self) -> dict[str, object]:
        """Return the settings that the copies depend on."""
        return {name: value for name, value in asdict(self).items() if name not in ("shard", "workers")}


@dataclass
class Prepared:
    """What `prepare` did.

    Attributes:
        num_made, num_kept: Copies made now, and those that were there.
        num_copies: All that there are now, of all shards.
        failed: Why, by the path of the source.
        seconds: That it took.
        gain: How many times faster a clip is read from a copy, measured on a few files; None where none was made.
        complete: Whether every source of every shard has its copy, or was tried in vain by its shard.
    """

    num_made: int = 0
    num_kept: int = 0
    num_copies: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    gain: float | None = None
    complete: bool = False


class _Job(NamedTuple):
    source: str
    target: str
    config: PrepareConfig
    timed: bool


def prepare(root: Path, out: Path, config: PrepareConfig) -> Prepared:
    """Make a copy of every video below `root` at the same place below `out`; what is there already stays.

    A copy appears under its name only when it is whole and was read back: its number of frames, their times, their
    size and their mean brightness. Images and frame folders are left alone.

    Raises:
        ConfigError: With all that is wrong: settings, folders, two sources of one copy, copies made otherwise.
    """
    root, out = Path(os.path.abspath(root)), Path(os.path.abspath(out))
    if problems := config.problems() + _folder_problems(root, out):
        raise ConfigError(problems)
    videos = [path for path, kind in find_media(root, "FOLDER", fresh=True) if kind == "video"]
    if not videos:
        raise ConfigError([f"FOLDER={root}: holds images and no video, and images are left as they are"])
    targets = _targets(root, out, videos, config)
    _note_settings(root, out, config)
    part, parts = map(int, config.shard.split("/"))
    mine = list(targets.items())[part - 1 :: parts]
    missing = [(source, target) for source, target in mine if not _is_done(source, target)]
    done = Prepared(num_kept=len(mine) - len(missing))
    try:
        _make_all(missing, config, done)
    except OSError as error:  # no file is to blame
        cure = "what was made stays, and the same command goes on from there"
        raise ConfigError([f"OUT={out} cannot be written to ({error}): {cure}"]) from error
    _write_json(out / _FAILED / f"{part}-of-{parts}.json", done.failed)
    tried = {source for note in (out / _FAILED).glob("*.json") for source in json.loads(note.read_text())}
    without = {source for source, target in targets.items() if not os.path.exists(target)}
    done.num_copies, done.complete = len(targets) - len(without), without <= tried
    return done


def _make_all(missing: list[tuple[str, str]], config: PrepareConfig, done: Prepared) -> None:
    """Make copies side by side; what came of it is put into `done`."""
    jobs = [_Job(*pair, config, timed=number < _NUM_TIMED) for number, pair in enumerate(missing)]
    started, gains = time.perf_counter(), []
    with counting(len(jobs), "prepare") as advance:
        for job, gain, why in for_each(_make, jobs, config.workers or num_usable_cores(), _LIMIT_S):
            if isinstance(gain, str) or why:
                done.failed[job.source] = why or str(gain)
            else:
                done.num_made += 1
                gains += [gain] if gain else []
            rate = (done.num_made + len(done.failed)) / (time.perf_counter() - started)
            done.gain = statistics.median(gains) if gains else None
            expected = f", reads {done.gain:.1f}x faster" if done.gain else ""
            advance(f"{rate:.1f} files/s{expected}")
    done.seconds = time.perf_counter() - started


def _folder_problems(root: Path, out: Path) -> list[str]:
    real_root, real_out = root.resolve(), out.resolve()
    if not root.is_dir():
        return [f"FOLDER={root}: there is no such folder"]
    if real_root == real_out or real_root in real_out.parents or real_out in real_root.parents:
        return [f"OUT={out}: must lie outside FOLDER={root}, so that no source is overwritten or read as a copy"]
    strange = [path for path in out.iterdir() if not path.name.startswith(_NOTE)] if out.is_dir() else []
    if strange and not (out / _NOTE).is_file():  # looked for last: another shard may just be writing it
        return [f"OUT={out}: holds files that were not made by `data prepare`; choose a new or an empty folder"]
    return []


def _targets(root: Path, out: Path, videos: list[str], config: PrepareConfig) -> dict[str, str]:
    suffix = ".mp4" if config.to == "h264" else ""
    targets = {path: str(out / os.path.relpath(os.path.splitext(path)[0], root)) + suffix for path in videos}
    sources: dict[str, list[str]] = {}
    for source, target in targets.items():
        sources.setdefault(target, []).append(source)
    if doubles := [" and ".join(paths) for paths in sources.values() if len(paths) > 1]:
        raise ConfigError(
            [f"{shorten(doubles)}: differ only in their suffix, so their copies would have one name: rename them"]
        )
    return targets


def _note_settings(root: Path, out: Path, config: PrepareConfig) -> None:
    note, now = out / _NOTE, {"source": str(root), **config.what()}
    before = json.loads(note.read_text()) if note.is_file() else now
    if before != now:
        other = ", ".join(
            f"{name}={before.get(name)} (now {now[name]})" for name in now if before.get(name) != now[name]
        )
        raise ConfigError(
            [f"OUT={out}: its copies were made with {other}; choose another folder, or the same settings"]
        )
    if not note.is_file():
        _write_json(note, now)


def _write_json(file: Path, content: object) -> None:
    """Write atomically, even where several shards write one file at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{uuid.uuid4().hex}.partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, file)


def _is_done(source: str, target: str) -> bool:
    if not os.path.exists(target):
        return False
    return not os.path.exists(source) or os.path.getmtime(target) >= os.path.getmtime(source)


def _make(job: _Job) -> float | str | None:
    """Make one copy; return why it could not be made, or its gain, or None where that is not measured."""
    os.makedirs(os.path.dirname(job.target), exist_ok=True)
    try:
        if job.config.to == "frames":
            _dump_frames(job.source, Path(job.target), job.config)
        else:
            _encode(job.source, Path(job.target), job.config)
        return _gain(job.source, job.target) if job.timed and job.config.to == "h264" else None
    except MediaError as error:
        return error.reason


def _encode(source: str, target: Path, config: PrepareConfig) -> None:
    written = _Written()
    frames = PyAVDecoder().frames(source, config.short_side)
    if config.fps is not None:
        frames = _at_rate(frames, config.fps)
    options = {
        "crf": str(config.crf),
        "preset": "veryfast",
        "tune": "fastdecode",  # no CABAC, no deblocking: reads 1.7 times faster for 7 % larger files
        "g": str(config.gop),
        "bf": "0",
    }
    fps = config.fps or PyAVDecoder().probe(source).fps or frame_folders.FPS
    with replacing(target) as partial:
        write_frames(partial, written.noting(frames), fps, options)
        written.check(source, PyAVDecoder().frames(str(partial), config.short_side))


def _dump_frames(source: str, target: Path, config: PrepareConfig) -> None:
    from PIL import Image

    partial = target.with_name(f"{target.name}.partial")  # a folder, which `replacing` does not serve
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        frames = _at_rate(PyAVDecoder().frames(source, config.short_side), frame_folders.FPS)
        for number, (_, pixels) in enumerate(frames, start=1):
            Image.fromarray(pixels).save(partial / f"{number:08d}.jpg", quality=_JPEG_QUALITY)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _at_rate(frames: Iterator[tuple[float, np.ndarray]], fps: float) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the frame shown at 0, 1 / fps, 2 / fps, ...; the last frame lasts as long as the one before it."""
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


class _Written:
    """What went into a file, to compare with what comes out of it."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.means: list[float] = []
        self.shape: tuple[int, ...] = ()

    def noting(self, frames: Iterator[tuple[float, np.ndarray]]) -> Iterator[tuple[float, np.ndarray]]:
        for time_s, pixels in frames:
            self.times_s.append(time_s)
            self.means.append(float(pixels.mean()))
            self.shape = pixels.shape
            yield time_s, np.ascontiguousarray(pixels)

    def check(self, source: str, frames: Iterator[tuple[float, np.ndarray]]) -> None:
        found = [(time_s, float(pixels.mean()), pixels.shape) for time_s, pixels in frames]
        first_s = self.times_s[0] if self.times_s else 0.0
        wrong = len(found) != len(self.times_s) or any(
            abs(time_s - (wanted_s - first_s)) > SNAP_S or abs(mean - wanted) > _MEAN_TOLERANCE or shape != self.shape
            for (time_s, mean, shape), wanted_s, wanted in zip(found, self.times_s, self.means, strict=True)
        )
        if wrong:
            raise MediaError(source, "its copy does not show the same frames: please report this file")


def _gain(source: str, target: str) -> float:
    """Return how many times faster two clips of 2.56 s are read from the copy."""
    duration_s, draw = PyAVDecoder().probe(target).duration_s, random.Random(0)
    clip_s = min(2.56, duration_s)
    starts = [[draw.uniform(0, duration_s - clip_s) for _ in range(2)] for _ in range(3)]
    seconds = []
    for path in (source, target):
        ticks = [time.perf_counter()]
        for pair in starts:
            PyAVDecoder().read(path, [ClipSpan(start_s, start_s + clip_s) for start_s in pair], 8)
            ticks.append(time.perf_counter())
        seconds.append(statistics.median(later - earlier for earlier, later in pairwise(ticks)))
    return seconds[0] / seconds[1]
