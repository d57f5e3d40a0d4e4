"""The work of `data doctor` on shards of files: a row per file, whatever its condition."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.findings import judge
from eztorch_sce.curation.inspection import inspect_image, inspect_video
from eztorch_sce.curation.media_rows import to_bytes
from eztorch_sce.curation.shard_tasks import Task, finished_shards
from eztorch_sce.curation.shared_folder import check_visible
from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.data.frame_names import split_frames_path
from eztorch_sce.errors import MediaError
from eztorch_sce.jobs.work import LOADING, Advance, Output, Settings, Shard, Work
from eztorch_sce.types import MediaInfo

_LIMIT_S = 60.0  # a file that takes longer counts as hung
_FULL_LIMIT_S = 3600.0  # the same limit when every frame is decoded
_END_BYTES = 4096
_NO_INFO = MediaInfo(0.0, 0.0, 0, 0, "")


class DoctorRow(NamedTuple):
    """What the doctor says about a file by itself; see `MediaRow` for the other fields.

    Attributes:
        ends: Hash of the first and the last 4 KB of the file, to find files that may be equal; empty for a frame folder
            and for a file that cannot be read.
    """

    usable: bool
    findings: list[str]
    bytes: int
    duration_s: float
    fps: float
    width: int
    height: int
    codec: str
    num_frames: int
    num_keys: int
    ends: str


class Examinee(NamedTuple):
    """A file to examine.

    Attributes:
        path: Absolute path.
        kind: "video", "image" or "frames".
        full: Whether to decode all of it.
    """

    path: str
    kind: str
    full: bool


class DoctorWork(Work):
    """Inspects the files of a folder.

    Args:
        folder: Absolute path of the folder, to which the keys of the records are relative.
        full: Whether to decode every frame.
    """

    command = "data doctor"
    keeps_rows = True

    def __init__(self, folder: str, full: bool) -> None:
        self.folder, self.full = folder, full

    def settings(self) -> Settings:
        """See `Work.settings`."""
        return {"full": self.full, LOADING: {"folder": self.folder}}

    @classmethod
    def load(cls, settings: Settings) -> "DoctorWork":
        """See `Work.load`."""
        return cls(settings[LOADING]["folder"], settings["full"])

    def process(self, shards: Iterable[Shard], num_workers: int | None, advance: Advance) -> Iterator[Output]:
        """See `Work.process`. Every record has a row: what is wrong with its file is a finding.

        Raises:
            ConfigError: If this machine does not see the folder.
        """

        def examinees(shard: Shard) -> list[Examinee]:
            keys = list(map(os.fsdecode, shard.rows["key"].to_pylist()))
            check_visible(self.folder, keys)
            paths = [os.path.normpath(os.path.join(self.folder, key)) for key in keys]
            kinds = shard.rows["kind"].to_pylist()
            return [Examinee(path, kind, self.full) for path, kind in zip(paths, kinds, strict=True)]

        limit_s = _FULL_LIMIT_S if self.full else _LIMIT_S
        num_processes = num_workers or num_usable_cores()
        for done in finished_shards(_examine, shards, examinees, num_processes, limit_s, advance):
            outcomes = zip(done.contents, done.results, done.deaths, strict=True)
            rows = [row or unusable(file, f"unreadable: {death}") for file, row, death in outcomes]
            yield Output(done.shard.number, _table(done.shard, rows), {})


def _table(shard: Shard, rows: list[DoctorRow]) -> Any:
    import pyarrow as pa

    types = {
        "usable": pa.bool_(),
        "findings": pa.list_(pa.binary()),
        "bytes": pa.int64(),
        "duration_s": pa.float64(),
        "fps": pa.float64(),
        "width": pa.int64(),
        "height": pa.int64(),
        "codec": pa.string(),
        "num_frames": pa.int64(),
        "num_keys": pa.int64(),
        "ends": pa.string(),
    }
    values: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in types}
    values["findings"] = [list(map(to_bytes, findings)) for findings in values["findings"]]
    columns = {name: pa.array(values[name], type) for name, type in types.items()}
    return pa.table({"key": shard.rows["key"], **columns})


def _examine(task: Task) -> DoctorRow:
    return examine(task.content)


def examine(file: Examinee) -> DoctorRow:
    """Return the row of a file."""
    try:
        if file.kind == "video":
            return _examine_video(file)
        if file.kind == "image":
            info, findings = inspect_image(file.path, file.full)
            return _row(file, info, num_frames=1, num_keys=1)._replace(findings=findings)
        num_frames, findings = FramesDecoder().check(file.path, file.full)
        info = FramesDecoder().probe(file.path)
        return _row(file, info, num_frames=num_frames, num_keys=num_frames)._replace(findings=findings)
    except MediaError as error:
        kinds = {"audio only": "audio only", "moov": "truncated", "cover image": "no video but a cover image"}
        kind = next((kind for word, kind in kinds.items() if word in error.reason), "unreadable")
        return unusable(file, f"{kind}: {error.reason}")
    except Exception as error:  # a bug in a library or here is reported in the file's row, and the scan continues
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        return unusable(file, f"unreadable: {reason}; please report this file")


def _examine_video(file: Examinee) -> DoctorRow:
    inspection = inspect_video(file.path, file.full)
    findings, usable = judge(inspection)
    row = _row(file, inspection.info, num_frames=inspection.num_packets, num_keys=inspection.num_keys)
    return row._replace(findings=findings, usable=usable)


def unusable(file: Examinee, finding: str) -> DoctorRow:
    """Return the row of a file that cannot be read."""
    return _row(file, _NO_INFO, num_frames=0, num_keys=0)._replace(findings=[finding], usable=False)


def _row(file: Examinee, info: MediaInfo, num_frames: int, num_keys: int) -> DoctorRow:
    """Return the row of a file without findings."""
    return DoctorRow(
        usable=True,
        findings=[],
        bytes=_num_bytes(file.path, file.kind),
        duration_s=info.duration_s,
        fps=info.fps,
        width=info.width,
        height=info.height,
        codec=info.codec,
        num_frames=num_frames,
        num_keys=num_keys,
        ends="" if file.kind == "frames" else _ends(file.path),
    )


def _ends(path: str) -> str:
    try:
        with open(path, "rb") as file:
            first = file.read(_END_BYTES)
            file.seek(max(len(first), os.path.getsize(path) - _END_BYTES))
            return hashlib.blake2b(first + file.read(_END_BYTES), digest_size=16).hexdigest()
    except OSError:
        return ""


def _num_bytes(path: str, kind: str) -> int:
    """Return the size of a file, or of the files in a folder."""
    try:
        if kind == "frames":
            return sum(entry.stat().st_size for entry in os.scandir(split_frames_path(path)[0]))
        return os.path.getsize(path)
    except OSError:
        return 0  # a broken link
