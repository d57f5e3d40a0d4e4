"""What is wrong with the files of a data set, said before a run finds out; and the table that lets runs start fast."""

import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.inspection import Inspection, inspect_video
from eztorch_sce.curation.workers import for_each
from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.data.decoders.image import ImageDecoder
from eztorch_sce.data.sources.manifest import Manifest, find_media, from_list, walk
from eztorch_sce.data.sources.media_table import NAME, MediaRow, check_writable, write_table
from eztorch_sce.errors import MediaError
from eztorch_sce.progress import counting
from eztorch_sce.types import MediaInfo

_LIMIT_S = {False: 60.0, True: 3600.0}  # by `full`: a file that takes longer hangs
_STRAY_S = 10.0  # a gap between two frames that no slide show has
_UNEVEN = 0.2  # share by which an interval may differ from the usual one before it counts as another frame rate
_OURS = frozenset({NAME, "decoder.json", "prepare.json", "unpack.json"})  # what `data` commands leave in a folder
_NO_INFO = MediaInfo(0.0, 0.0, 0, 0, "")


class Diagnosis(NamedTuple):
    """A row for the table of each file, and what the scan took.

    Attributes:
        rows: Sorted by path.
        seconds: Of scanning.
        others: Files below the folder that by their names are neither video nor image; nobody reads them.
    """

    rows: list[MediaRow]
    seconds: float
    others: list[str]

    @property
    def num_unusable(self) -> int:
        """Files that no clip, or not every clip, can be read from."""
        return sum(not row.usable for row in self.rows)

    def counts(self) -> list[tuple[str, int, str]]:
        """Return (finding, number of files, one of them), the most frequent first; numbers in findings left out."""
        kinds: dict[str, list[str]] = {}
        for row in self.rows:
            for finding in row.findings:
                kinds.setdefault(finding.split(":")[0], []).append(row.path)
        return sorted(((kind, len(paths), paths[0]) for kind, paths in kinds.items()), key=lambda row: -row[1])


@dataclass(frozen=True)
class _Job:
    path: str
    kind: str
    full: bool


def diagnose(
    root: Path, full: bool = False, workers: int | None = None, lists: Sequence[Path] = ()
) -> tuple[Diagnosis, Path]:
    """Look at every video, image and frame folder below a folder, and write its table.

    Args:
        root: The folder.
        full: Decode every frame, not the first, middle and last ones alone.
        workers: Processes; None is one per core.
        lists: List files with paths relative to `root`: content that two of them name is reported, under whatever
            names.

    Returns:
        What was found, and the path of the table.

    Raises:
        ConfigError: If there is nothing to look at, or a list names what is not there.
    """
    root = Path(os.path.abspath(root))
    check_writable(root)
    media = find_media(root, "FOLDER", fresh=True)
    listed = [from_list(file, root, setting="lists") for file in lists]
    started = time.perf_counter()
    jobs = [_Job(path, kind, full) for path, kind in media]
    rows: dict[str, MediaRow] = {}
    with counting(len(jobs), "doctor") as advance:
        for job, row, why in for_each(_examine, jobs, workers or num_usable_cores(), _LIMIT_S[full]):
            rows[job.path] = row or _row(job, _NO_INFO, [f"unreadable: {why}"], usable=False)
            advance(f"{len(rows) / (time.perf_counter() - started):.0f} files/s")
    named = {path: row._replace(path=_name_below(root, path)) for path, row in sorted(rows.items())}
    ordered = list(_with_listed_twice(_with_duplicates(named), listed).values())
    seconds = time.perf_counter() - started
    return Diagnosis(ordered, seconds, _others(root, rows.keys())), write_table(root, ordered)


def judge(seen: Inspection) -> tuple[list[str], bool]:
    """Return what is odd about a video, "kind: details" each, and whether clips can be read from all of it."""
    info, findings = seen.info, []
    if seen.unreadable:
        findings.append(f"{'truncated' if 'truncated' in seen.unreadable else 'unreadable in part'}: {seen.unreadable}")
    elif seen.bytes_missing:
        findings.append(f"truncated: its index names {seen.bytes_missing} bytes more than there are")
    if seen.complaint:
        findings.append(f"damaged: {seen.complaint}")
    if not seen.starts_with_key:
        findings.append("no key frame at the start")
    findings += _of_time(seen)
    if seen.turned:
        findings.append(f"turned: {seen.turned} to show it")
    if seen.cover:
        findings.append("cover art as first stream" if seen.cover == "first" else "cover art")
    if seen.pixel_aspect != 1:
        findings.append(f"pixels not square: {seen.pixel_aspect:.3f} wide")
    if len(seen.sizes) > 1:
        findings.append("resolution change: " + ", ".join(f"{width}x{height}" for width, height in seen.sizes))
    if min(info.width, info.height) < 32:
        findings.append(f"tiny: {info.width}x{info.height}")
    return findings, not seen.unreadable and not seen.bytes_missing


def _of_time(seen: Inspection) -> Iterator[str]:
    known = sorted(time_s for time_s in seen.times_s if not math.isnan(time_s))
    if seen.num_packets == 1:
        yield "a single frame"
    if len(set(known)) < len(known):
        yield f"wild time stamps: {len(known) - len(set(known))} of {len(known)} frames at the time of another"
    gaps_s = [later - earlier for earlier, later in pairwise(known)]
    if gaps_s and max(gaps_s) > _STRAY_S:
        yield f"wild time stamps: a hole of {max(gaps_s):.1f} s"
    elif len(gaps_s) > 2:
        usual_s = median(gaps_s)
        share = sum(abs(gap_s - usual_s) > _UNEVEN * usual_s for gap_s in gaps_s) / len(gaps_s)
        if share > 0.02:
            yield f"variable frame rate: {share:.0%} of the frames"
    expected_s = seen.num_packets * seen.interval_s
    if abs(seen.info.duration_s - expected_s) > 0.05 * expected_s + 3 * seen.interval_s:
        yield f"duration against frames: {seen.info.duration_s:.1f} s, but {seen.num_packets} frames at " + (
            f"{seen.info.fps:.3g} a second"
        )
    if seen.num_decoded and abs(seen.num_decoded - seen.num_packets) > 1:
        yield f"frames against packets: {seen.num_decoded} decoded of {seen.num_packets}"


def _examine(job: _Job) -> MediaRow:
    try:
        if job.kind == "video":
            seen = inspect_video(job.path, job.full)
            findings, usable = judge(seen)
            return _row(job, seen.info, findings, usable, seen.num_packets, seen.num_keys)
        if job.kind == "image":
            info = ImageDecoder().probe(job.path)
            return _row(job, info, [], True, num_frames=1, num_keys=1)
        return _examine_frames(job)
    except MediaError as error:
        words = {"audio only": "audio only", "moov": "truncated", "cover image": "no video but a cover image"}
        kind = next((kind for word, kind in words.items() if word in error.reason), "unreadable")
        return _row(job, _NO_INFO, [f"{kind}: {error.reason}"], usable=False)
    except Exception as error:  # a fault in a library or here is told in the row of its file; the scan goes on
        why = f"{type(error).__name__}: {error}".rstrip(": ")
        return _row(job, _NO_INFO, [f"unreadable: {why}: please report this file"], usable=False)


def _examine_frames(job: _Job) -> MediaRow:
    info, num_frames = FramesDecoder().probe(job.path), FramesDecoder().check(job.path, job.full)
    return _row(job, info, [], True, num_frames, num_keys=num_frames)


def _row(
    job: _Job, info: MediaInfo, findings: list[str], usable: bool, num_frames: int = 0, num_keys: int = 0
) -> MediaRow:
    values = (info.duration_s, info.fps, info.width, info.height, info.codec, num_frames, num_keys)
    return MediaRow(job.path, job.kind, usable, findings, _num_bytes(job.path), "", *values)


def _num_bytes(path: str) -> int:
    try:
        if os.path.isdir(path):
            return sum(entry.stat().st_size for entry in os.scandir(path))
        return os.path.getsize(path)
    except OSError:
        return 0  # a link to nowhere


def _name_below(root: Path, path: str) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def _others(root: Path, known: Collection[str]) -> list[str]:
    """Return the files that were not looked at, but for what `data` commands leave themselves."""
    others = []
    for folder, subfolders, files in walk(str(root)):
        subfolders[:] = [name for name in subfolders if os.path.join(folder, name) not in known]  # frames of a video
        paths = (os.path.join(folder, name) for name in files if folder != str(root) or name not in _OURS)
        others += [_name_below(root, path) for path in paths if path not in known]
    return others


def _with_listed_twice(rows: dict[str, MediaRow], lists: Sequence[Manifest]) -> dict[str, MediaRow]:
    """Note which content several lists name."""
    contents = {path: row.digest or path for path, row in rows.items()}
    counts = Counter(
        content
        for manifest in lists
        for content in {contents.get(record.path, record.path) for record in manifest.records}
    )
    return {path: _noting(row, "in two lists") if counts[contents[path]] > 1 else row for path, row in rows.items()}


def _with_duplicates(rows: dict[str, MediaRow]) -> dict[str, MediaRow]:
    """Note which files have the same content; only files of the same size are read for it."""
    by_size: dict[int, list[str]] = {}
    for path, row in rows.items():
        if row.kind != "frames" and row.bytes:
            by_size.setdefault(row.bytes, []).append(path)
    rows = dict(rows)
    first: dict[str, str] = {}
    for path in sorted(path for paths in by_size.values() if len(paths) > 1 for path in paths):
        rows[path] = rows[path]._replace(digest=_digest(path))
        original = first.setdefault(rows[path].digest, path)
        if rows[path].digest and original != path:
            rows[path] = _noting(rows[path], f"duplicate: the content of {rows[original].path}")
    return rows


def _noting(row: MediaRow, finding: str) -> MediaRow:
    return row._replace(findings=[*row.findings, finding])


def _digest(path: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return ""  # not ours to read: its row says so
    return digest.hexdigest()
