"""Inspection of the files of a data set before training, and the table that lets runs start without opening files."""

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

from eztorch_sce import signals
from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.inspection import Inspection, inspect_image, inspect_video
from eztorch_sce.curation.settings import DoctorConfig
from eztorch_sce.curation.workers import for_each
from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.data.frame_names import split_frames_path
from eztorch_sce.data.sources.list_file import from_list
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.media_kinds import Listing, all_media, shorten_ignored
from eztorch_sce.data.sources.media_table import MediaRow, check_writable, folder_times, write_table
from eztorch_sce.data.sources.summary import counts_in_words, ignored_in_words
from eztorch_sce.data.sources.walk import OWN_FILES, Skipped, walk
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.progress import counting, print_above
from eztorch_sce.settings import invalid_settings
from eztorch_sce.types import MediaInfo

_LIMIT_S = 60.0  # a file that takes longer counts as hung
_FULL_LIMIT_S = 3600.0  # the same limit when every frame is decoded
_MAX_GAP_S = 10.0  # no slide show leaves more time between two frames
_INTERVAL_TOLERANCE = 0.2  # relative deviation from the median interval that counts as a variable frame rate
_MAX_UNEVEN = 0.02  # fraction of such intervals that is tolerated
_NO_INFO = MediaInfo(0.0, 0.0, 0, 0, "")


class Diagnosis(NamedTuple):
    """Outcome of `diagnose`.

    Attributes:
        rows: One row of the table per file, sorted by path; then one per unreadable folder, which the table lacks.
        seconds: Duration of the scan.
        skipped: Files that are neither videos nor images by suffix; no command reads them.
        table: Path of the table.
    """

    rows: list[MediaRow]
    seconds: float
    skipped: list[str]
    table: Path

    @property
    def num_unusable(self) -> int:
        """Number of files from which not every clip can be read."""
        return sum(not row.usable for row in self.rows)

    def counts(self) -> list[tuple[str, int, str]]:
        """Return (kind of finding, number of files, first file), most frequent kind first."""
        kinds: dict[str, list[str]] = {}
        for row in self.rows:
            for finding in row.findings:
                kinds.setdefault(finding.split(":")[0], []).append(row.path)
        counts = [(kind, len(paths), paths[0]) for kind, paths in kinds.items()]
        return sorted(counts, key=lambda count: -count[1])


@dataclass(frozen=True)
class _Job:
    path: str
    kind: str
    full: bool


def diagnose(root: Path, config: DoctorConfig | None = None) -> Diagnosis:
    """Inspect every video, image and frame folder under a folder, and write its table.

    Args:
        root: Folder to inspect.
        config: Settings; paths in its lists are relative to `root`.

    Raises:
        ConfigError: If a setting is invalid, the folder has no media, or a list names missing files.
    """
    config = config or DoctorConfig()
    if messages := invalid_settings(config):
        raise ConfigError(messages)
    root = Path(os.path.abspath(root))
    check_writable(root)
    listing = Listing.of(str(root))
    records = all_media(listing, f"FOLDER={root}")
    ignored = shorten_ignored(sum(listing.ignored().values(), Counter()))
    for line in (f"data: {counts_in_words(records.num_by_kind())}", *ignored_in_words(ignored)):
        print_above(line)
    media = [(record.path, record.kind) for record in records]
    times_ns = folder_times(root, [path for path, _ in media])
    lists = [from_list(Path(file), root, setting="lists") for file in config.lists]
    started = time.perf_counter()
    rows = _inspect_all([_Job(path, kind, config.full) for path, kind in media], config)
    relative = {path: row._replace(path=_relative(root, path)) for path, row in rows.items()}
    marked = list(_mark_shared(_mark_duplicates(relative), lists).values())
    seconds = time.perf_counter() - started
    skipped, unreadable = _skipped_files(root, rows)
    return Diagnosis([*marked, *unreadable], seconds, skipped, write_table(root, marked, times_ns, listing.ignored()))


def _inspect_all(jobs: Sequence[_Job], config: DoctorConfig) -> dict[str, MediaRow]:
    """Return the row of each file, sorted by path."""
    limit_s = _FULL_LIMIT_S if config.full else _LIMIT_S
    started = time.perf_counter()
    rows: dict[str, MediaRow] = {}
    with counting(len(jobs), "doctor") as advance:
        for job, row, crash in for_each(_examine, jobs, config.workers or num_usable_cores(), limit_s):
            rows[job.path] = row or _unusable(job, f"unreadable: {crash}")
            advance(f"{len(rows) / (time.perf_counter() - started):.0f} files/s")
    return dict(sorted(rows.items()))


def judge(inspection: Inspection) -> tuple[list[str], bool]:
    """Return the findings about a video, each "kind" or "kind: details", and whether every clip of it can be read."""
    info, findings = inspection.info, []
    if inspection.unreadable:
        kind = "truncated" if "truncated" in inspection.unreadable else "partly unreadable"
        findings.append(f"{kind}: {inspection.unreadable}")
    elif inspection.bytes_missing:
        findings.append(f"truncated: {inspection.bytes_missing} bytes that its index refers to are missing")
    if inspection.complaint:
        findings.append(f"damaged: {inspection.complaint}")
    if inspection.num_parts > 1:
        findings.append(f"joined recordings: {inspection.num_parts}, which are read as one; only data.decoder=pyav can")
    if inspection.second_file_at is not None:
        findings.append(f"joined files: another begins at byte {inspection.second_file_at}, and only the first is read")
    if inspection.num_streams > 1:
        findings.append(f"several video streams: {inspection.num_streams}, of which one is read")
    if not inspection.starts_with_key:
        findings.append("no key frame at the start")
    findings += _findings_about_time(inspection)
    if inspection.rotation:
        findings.append(f"rotated: by {inspection.rotation} for display")
    if inspection.cover:
        findings.append("cover art as first stream" if inspection.cover == "first" else "cover art")
    if inspection.pixel_aspect != 1:
        findings.append(f"non-square pixels: {inspection.pixel_aspect:.3f} times as wide as high")
    if len(inspection.sizes) > 1:
        sizes = ", ".join(f"{width}x{height}" for width, height in inspection.sizes)
        findings.append(f"resolution change: {sizes}")
    if min(info.width, info.height) < 32:
        findings.append(f"tiny: {info.width}x{info.height}")
    return findings, not inspection.unreadable and not inspection.bytes_missing


def _findings_about_time(inspection: Inspection) -> Iterator[str]:
    num_packets, duration_s = inspection.num_packets, inspection.info.duration_s
    if num_packets == 1:
        yield "single frame"
    yield from _findings_about_timestamps([time_s for time_s in inspection.times_s if not math.isnan(time_s)])
    expected_s = num_packets * inspection.interval_s
    if abs(duration_s - expected_s) > 0.05 * expected_s + 3 * inspection.interval_s:
        yield f"duration mismatch: {duration_s:.1f} s, but {num_packets} frames at {inspection.info.fps:.3g} per second"
    if inspection.num_decoded and abs(inspection.num_decoded - num_packets) > 1:
        yield f"frame count mismatch: {inspection.num_decoded} frames decoded from {num_packets} packets"


def _findings_about_timestamps(times_s: Collection[float]) -> Iterator[str]:
    ordered = sorted(times_s)
    num_duplicates = len(ordered) - len(set(ordered))
    if num_duplicates:
        yield f"duplicate timestamps: {num_duplicates} of {len(ordered)} frames"
    intervals_s = [later - earlier for earlier, later in pairwise(ordered)]
    if intervals_s and max(intervals_s) > _MAX_GAP_S:
        yield f"timestamp gap: {max(intervals_s):.1f} s"
    elif len(intervals_s) > 2:
        usual_s = median(intervals_s)
        num_uneven = sum(abs(interval_s - usual_s) > _INTERVAL_TOLERANCE * usual_s for interval_s in intervals_s)
        if num_uneven / len(intervals_s) > _MAX_UNEVEN:
            yield f"variable frame rate: {num_uneven / len(intervals_s):.0%} of the frames"


def examine(path: str, kind: str, full: bool) -> MediaRow:
    """Return the row of a file; one that cannot be read has a finding that says why.

    Args:
        path: The file or frame folder.
        kind: "video", "image" or "frames".
        full: Decode every frame.
    """
    return _examine(_Job(path, kind, full))


def _examine(job: _Job) -> MediaRow:
    try:
        if job.kind == "video":
            return _examine_video(job)
        if job.kind == "image":
            info, findings = inspect_image(job.path, job.full)
            return _row(job, info, num_frames=1, num_keys=1)._replace(findings=findings)
        num_frames, findings = FramesDecoder().check(job.path, job.full)
        info = FramesDecoder().probe(job.path)
        return _row(job, info, num_frames=num_frames, num_keys=num_frames)._replace(findings=findings)
    except MediaError as error:
        kinds = {"audio only": "audio only", "moov": "truncated", "cover image": "no video but a cover image"}
        kind = next((kind for word, kind in kinds.items() if word in error.reason), "unreadable")
        return _unusable(job, f"{kind}: {error.reason}")
    except Exception as error:  # a bug in a library or here is reported in the file's row, and the scan continues
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        return _unusable(job, f"unreadable: {reason}; please report this file")


def _examine_video(job: _Job) -> MediaRow:
    inspection = inspect_video(job.path, job.full)
    findings, usable = judge(inspection)
    row = _row(job, inspection.info, num_frames=inspection.num_packets, num_keys=inspection.num_keys)
    return row._replace(findings=findings, usable=usable)


def _unusable(job: _Job, finding: str) -> MediaRow:
    return _row(job, _NO_INFO, num_frames=0, num_keys=0)._replace(findings=[finding], usable=False)


def _row(job: _Job, info: MediaInfo, num_frames: int, num_keys: int) -> MediaRow:
    """Return the row of a file without findings."""
    return MediaRow(
        path=job.path,
        kind=job.kind,
        usable=True,
        findings=[],
        bytes=_num_bytes(job.path, job.kind),
        digest="",
        duration_s=info.duration_s,
        fps=info.fps,
        width=info.width,
        height=info.height,
        codec=info.codec,
        num_frames=num_frames,
        num_keys=num_keys,
    )


def _num_bytes(path: str, kind: str) -> int:
    """Return the size of a file, or of the files in a folder."""
    try:
        if kind == "frames":
            return sum(entry.stat().st_size for entry in os.scandir(split_frames_path(path)[0]))
        return os.path.getsize(path)
    except OSError:
        return 0  # a broken link


def _relative(root: Path, path: str) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def _skipped_files(root: Path, inspected: dict[str, MediaRow]) -> tuple[list[str], list[MediaRow]]:
    """Return the files that were not inspected, except those written by `data` commands, and the unreadable folders."""
    skipped, left_out = [], Skipped()
    frame_folders = {split_frames_path(path)[0] for path, row in inspected.items() if row.kind == "frames"}
    for folder, subfolders, files in walk(str(root), left_out):
        # the images of a frame folder were inspected with the folder
        subfolders[:] = [name for name in subfolders if os.path.join(folder, name) not in frame_folders]
        paths = [os.path.join(folder, name) for name in files if name not in OWN_FILES]
        skipped += [_relative(root, path) for path in paths if path not in inspected]
    unreadable = [
        _unusable(_Job(_relative(root, path), "frames", full=False), f"unreadable folder: {reason}")
        for path, reason in sorted(left_out.unreadable.items())
    ]
    return skipped, unreadable


def _mark_duplicates(rows: dict[str, MediaRow]) -> dict[str, MediaRow]:
    """Add a finding to each file with the content of an earlier one; only files of equal size are read and compared."""
    by_size: dict[int, list[str]] = {}
    for path, row in rows.items():
        if row.kind != "frames" and row.bytes:
            by_size.setdefault(row.bytes, []).append(path)
    marked = dict(rows)
    first: dict[str, str] = {}
    for path in sorted(path for paths in by_size.values() if len(paths) > 1 for path in paths):
        signals.poll()
        digest = _digest(path)
        marked[path] = rows[path]._replace(digest=digest)
        original = first.setdefault(digest, path)
        if digest and original != path:
            marked[path] = _with_finding(marked[path], f"duplicate: same content as {rows[original].path}")
    return marked


def _mark_shared(rows: dict[str, MediaRow], lists: Sequence[Manifest]) -> dict[str, MediaRow]:
    """Add a finding to each file whose content is named by more than one list."""
    contents = {path: row.digest or path for path, row in rows.items()}
    num_lists: Counter[str] = Counter()
    for manifest in lists:
        num_lists.update({contents.get(record.path, record.path) for record in manifest.records})
    return {
        path: _with_finding(row, "in two lists") if num_lists[contents[path]] > 1 else row for path, row in rows.items()
    }


def _with_finding(row: MediaRow, finding: str) -> MediaRow:
    return row._replace(findings=[*row.findings, finding])


def _digest(path: str) -> str:
    """Return a hash of the content of a file, or "" if it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return ""  # the row of the file already says that it is unreadable
    return digest.hexdigest()
