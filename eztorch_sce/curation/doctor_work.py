"""The work of `data doctor` on shards of files: a row per file, whatever its condition."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.findings import judge
from eztorch_sce.curation.inspection import inspect_image, inspect_video
from eztorch_sce.curation.media_rows import to_bytes
from eztorch_sce.curation.shared_folder import check_visible
from eztorch_sce.curation.workers import for_each
from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.data.frame_names import split_frames_path
from eztorch_sce.errors import MediaError
from eztorch_sce.jobs.work import Advance, Output, Settings, Shard, Work
from eztorch_sce.types import MediaInfo

_LIMIT_S = 60.0  # a file that takes longer counts as hung
_FULL_LIMIT_S = 3600.0  # the same limit when every frame is decoded
_NO_INFO = MediaInfo(0.0, 0.0, 0, 0, "")


class DoctorRow(NamedTuple):
    """What the doctor says about a file by itself; see `MediaRow` for the fields."""

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


class Examinee(NamedTuple):
    """A file to examine.

    Attributes:
        path: Absolute path.
        kind: "video", "image" or "frames".
        full: Whether to decode all of it.
        shard: Number of its shard.
        row: Index of its record in the shard.
    """

    path: str
    kind: str
    full: bool
    shard: int = 0
    row: int = 0


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
        return {"folder": self.folder, "full": self.full}

    @classmethod
    def load(cls, settings: Settings) -> "DoctorWork":
        """See `Work.load`."""
        return cls(settings["folder"], settings["full"])

    def process(self, shards: Iterable[Shard], num_workers: int | None, advance: Advance) -> Iterator[Output]:
        """See `Work.process`. Every record has a row: what is wrong with its file is a finding.

        Raises:
            ConfigError: If this machine does not see the folder.
        """
        begun: dict[int, tuple[Shard, list[DoctorRow | None]]] = {}
        left: dict[int, int] = {}  # files to examine, by shard
        done: list[int] = []

        def examinees() -> Iterator[Examinee]:
            for shard in shards:
                keys = list(map(os.fsdecode, shard.rows["key"].to_pylist()))
                check_visible(self.folder, keys)
                begun[shard.number], left[shard.number] = (shard, [None] * len(keys)), len(keys)
                if not keys:
                    done.append(shard.number)
                for index, (key, kind) in enumerate(zip(keys, shard.rows["kind"].to_pylist(), strict=True)):
                    path = os.path.normpath(os.path.join(self.folder, key))
                    yield Examinee(path, kind, self.full, shard.number, index)

        limit_s = _FULL_LIMIT_S if self.full else _LIMIT_S
        for file, result, crash in for_each(examine, examinees(), num_workers or num_usable_cores(), limit_s):
            begun[file.shard][1][file.row] = result or unusable(file, f"unreadable: {crash}")
            left[file.shard] -= 1
            if not left[file.shard]:
                done.append(file.shard)
            advance(1)
            while done:
                yield _output(*begun.pop(done.pop()))
        while done:
            yield _output(*begun.pop(done.pop()))


def _output(shard: Shard, rows: list[DoctorRow | None]) -> Output:
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
    }
    complete = [row for row in rows if row is not None]
    values: dict[str, list[Any]] = {name: [getattr(row, name) for row in complete] for name in types}
    values["findings"] = [list(map(to_bytes, findings)) for findings in values["findings"]]
    columns = {name: pa.array(values[name], type) for name, type in types.items()}
    return Output(shard.number, pa.table({"key": shard.rows["key"], **columns}), {})


def examine(file: Examinee) -> DoctorRow:
    """Return the row of a file, in a worker process."""
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
    )


def _num_bytes(path: str, kind: str) -> int:
    """Return the size of a file, or of the files in a folder."""
    try:
        if kind == "frames":
            return sum(entry.stat().st_size for entry in os.scandir(split_frames_path(path)[0]))
        return os.path.getsize(path)
    except OSError:
        return 0  # a broken link
