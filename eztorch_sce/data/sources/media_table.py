"""`manifest.arrow`: the table written by `data doctor`, which lets a run start without walking the folder.

It is an uncompressed Arrow file (Feather), so all processes map the same memory, and pandas, polars and duckdb read it.
"""

import json
import os
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eztorch_sce.data.leftovers import skipped_as
from eztorch_sce.data.media import MEDIA_SUFFIXES, suffix_of
from eztorch_sce.data.sources.records import KINDS, Columns, Records
from eztorch_sce.errors import ConfigError, counted, first_line
from eztorch_sce.files import replacing

TABLE_NAME = "manifest.arrow"
_EARLIER_NAME = "manifest.parquet"  # the table of earlier versions

_FOLDERS_KEY = b"eztorch_sce.folders"
_IGNORED_KEY = b"eztorch_sce.ignored"


class MediaRow(NamedTuple):
    """A row of the table, which stores `path` as two columns, `folder` and `name`.

    Attributes:
        path: Path relative to the folder of the table, with forward slashes.
        kind: "video", "image" or "frames".
        usable: Whether clips at the start, middle and end can be read; with `full=true`, whether all frames can.
        findings: Irregularities, each as "kind" or "kind: details".
        bytes: Size of the file, or total size of the frame folder.
        digest: Hash of the content if another file has the same size, beginning and end, else "".
        duration_s, fps, width, height, codec: As in `MediaInfo`; 0 and "" if the file cannot be read.
        num_frames: Number of frames.
        num_keys: Number of key frames, at which decoding can start.
    """

    path: str
    kind: str
    usable: bool
    findings: list[str]
    bytes: int
    digest: str
    duration_s: float
    fps: float
    width: int
    height: int
    codec: str
    num_frames: int
    num_keys: int


class MediaTable(NamedTuple):
    """The media below a folder, as a table lists them.

    Attributes:
        file: Path of the table.
        records: The media, unlabeled, sorted by path.
        unusable: Paths of the files from which not every clip can be read.
        digests: Hash of the content by path, for files that share size, beginning and end with another file.
        mismatch: How the folder differs from the table, with the age of the table; "" if it does not. The listing is
            then out of date, but what it says about a file still holds.
        age: When it was written, such as "2 days ago".
        ignored: Number of other files below the folder, as in `Manifest`.
    """

    file: Path
    records: Records
    unusable: frozenset[str]
    digests: dict[str, str]
    mismatch: str
    age: str = ""
    ignored: Mapping[str, int] = MappingProxyType({})

    def dated(self) -> str:
        """Return the path and the age of the table, for errors that rest on it."""
        return f"{self.file}, written {self.age}"

    @property
    def paths(self) -> list[str]:
        """Absolute paths."""
        return list(self.records.paths())

    @property
    def kinds(self) -> list[str]:
        """Kind of each record, "video", "image" or "frames"."""
        return [KINDS[code] for code in self.records.kind_codes.tolist()]

    def outdated(self) -> str:
        """Return a sentence that names the table, how it differs from the folder, and the cure."""
        cure = f"the folder was read instead; run `eztorch-sce data doctor {shlex.quote(str(self.file.parent))}` again"
        return f"{self.file} is out of date ({self.mismatch}): {cure}"


def check_writable(folder: Path) -> None:
    """Raise ConfigError unless the folder exists and its table can be written."""
    if not folder.is_dir():
        raise ConfigError([f"FOLDER={folder} does not exist"])
    if not os.access(folder, os.W_OK):
        cure = "make it writable, or create a folder of links to its sub-folders and use that"
        raise ConfigError([f"FOLDER={folder} must be writable, since the results are stored in it; {cure}"])


def folder_times(root: Path, paths: Iterable[str]) -> dict[str, int]:
    """Return the modification times, in nanoseconds, of all folders between `root` and some media.

    Call it right after listing the media, so that a folder that changes later differs from the table.

    Args:
        root: Folder of the table.
        paths: Absolute paths of the media.
    """
    folders = {str(root)}
    for path in paths:
        folder = os.path.dirname(path)
        while folder not in folders:
            folders.add(folder)
            folder = os.path.dirname(folder)
    return {os.path.relpath(folder, root): _time_ns(folder) for folder in sorted(folders)}


def write_table(
    folder: Path,
    rows: list[MediaRow],
    times_ns: dict[str, int] | None = None,
    ignored: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
) -> Path:
    """Write the table of a folder atomically and return its path.

    Args:
        folder: The folder.
        rows: The media below it, sorted by path.
        times_ns: Result of `folder_times`; None takes the present times.
        ignored: Number of other files by the absolute path of their folder, by what they are.
    """
    import pyarrow as pa

    if times_ns is None:
        times_ns = folder_times(folder, [os.path.join(folder, row.path) for row in rows])
    columns = location_columns([row.path for row in rows], [row.kind for row in rows])
    for field in ("usable", *MediaRow._fields[4:]):
        columns[field] = pa.array([getattr(row, field) for row in rows])
    findings = [[finding.encode("utf-8", "backslashreplace").decode() for finding in row.findings] for row in rows]
    columns["findings"] = pa.array(findings, pa.list_(pa.string()))  # they may quote a path that is not valid UTF-8
    return write_columns(folder, pa.table(columns), times_ns, ignored)


def location_columns(paths: Sequence[str], kinds: Sequence[str]) -> dict[str, Any]:
    """Return the columns that locate media, `folder`, `name` and `kind`, as Arrow arrays.

    Args:
        paths: Paths relative to the folder of the table, with forward slashes.
        kinds: A member of `KINDS` per path.
    """
    import pyarrow as pa

    codes: dict[str, int] = {}
    folder_of, names = [], []
    for path in paths:
        parent, _, name = path.rpartition("/")
        folder_of.append(codes.setdefault(parent, len(codes)))
        names.append(name)
    codes_of_kinds = pa.array([KINDS.index(kind) for kind in kinds], pa.int8())
    return {
        "folder": pa.DictionaryArray.from_arrays(pa.array(folder_of, pa.int32()), _text(list(codes))),
        "name": _text(names),
        "kind": pa.DictionaryArray.from_arrays(codes_of_kinds, pa.array(KINDS)),
    }


def write_columns(
    folder: Path,
    table: Any,
    times_ns: dict[str, int],
    ignored: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
) -> Path:
    """Write a table whose columns already exist as Arrow arrays; see `write_table`."""
    import pyarrow as pa

    times = pa.table({"folder": _text(list(times_ns)), "time_ns": pa.array(times_ns.values(), pa.int64())})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, times.schema) as writer:
        writer.write_table(times)
    relative = {os.path.relpath(path, folder): dict(counts) for path, counts in ignored.items()}
    metadata = {_FOLDERS_KEY: sink.getvalue().to_pybytes(), _IGNORED_KEY: json.dumps(relative)}
    schema = table.schema.with_metadata(metadata)
    file = folder / TABLE_NAME
    # The jobs of a job array may finish at the same time.
    with replacing(file) as partial, pa.ipc.new_file(str(partial), schema) as writer:
        writer.write_table(table.combine_chunks())
    return file


def find_table(folder: str | Path) -> MediaTable | None:
    """Return the rows of all media below a folder, from its table or its parent's; None if neither has a table.

    Raises:
        ConfigError: If the table cannot be read.
    """
    folder = Path(os.path.abspath(folder))
    for candidate in (folder, folder.parent):
        file = candidate / TABLE_NAME
        if file.is_file():
            written_ns = file.stat().st_mtime_ns
            table, times_ns = _read(file, folder, written_ns)
            differences = _differences(candidate, folder, table.records, times_ns)
            age = f"{_age(time.time() - written_ns / 1e9)} ago"
            return table._replace(mismatch=differences and f"{differences}, written {age}", age=age)
        earlier = candidate / _EARLIER_NAME
        if earlier.is_file():
            return MediaTable(
                earlier, Records.of([]), frozenset(), {}, "written by an earlier version", "by an earlier version"
            )
    return None


@lru_cache(maxsize=4)  # a run reads it twice: to list the media and to leave out the unusable ones
def _read(file: Path, folder: Path, written_ns: int) -> tuple[MediaTable, dict[str, int]]:
    """Return the media below a folder, and the modification times that `folder_times` returned."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        with pa.memory_map(str(file)) as source:
            table = pa.ipc.open_file(source).read_all().combine_chunks()
        columns = _columns(table, file.parent)
        times = pa.ipc.open_file(table.schema.metadata[_FOLDERS_KEY]).read_all()
        ignored = _ignored_below(table.schema.metadata.get(_IGNORED_KEY, b"{}"), folder, file.parent)
        everything = Records(columns)
        unusable = frozenset(everything.path(row) for row in _nonzero(pc.invert(table["usable"])))
        digests = {everything.path(row): table["digest"][row].as_py() for row in _nonzero(table["digest"])}
    except (pa.ArrowException, OSError, KeyError, TypeError, AttributeError) as error:
        cure = f"delete it, or write it again with `eztorch-sce data doctor {shlex.quote(str(file.parent))}`"
        raise ConfigError(
            [f"{file} cannot be read as a table of `data doctor` ({first_line(error)}); {cure}"]
        ) from error
    rows = _rows_below(columns, folder, file.parent)
    times_ns = dict(zip(_values(times["folder"]), _values(times["time_ns"]), strict=True))
    return MediaTable(file, Records(columns, rows), unusable, digests, "", ignored=ignored), times_ns


def _columns(table: Any, root: Path) -> Columns:
    """Return the columns that locate the media, mapped into memory."""
    import pyarrow as pa

    if not len(table):
        return Columns(
            pa.array([], pa.large_binary()),
            np.zeros(0, np.int32),
            pa.array([], pa.large_binary()),
            np.zeros(0, np.uint8),
        )
    folder, kind = table["folder"].chunk(0), table["kind"].chunk(0)
    start = os.fsencode(root)
    folders = [os.path.join(start, os.fsencode(name)).rstrip(b"/") or b"/" for name in _values(folder.dictionary)]
    if kind.dictionary.to_pylist() != list(KINDS):
        raise KeyError(f"kinds {kind.dictionary.to_pylist()}")
    names = table["name"].chunk(0)
    return Columns(
        pa.array(folders, pa.large_binary()),
        folder.indices.to_numpy(),
        names if pa.types.is_large_binary(names.type) else names.view(pa.large_binary()),
        kind.indices.to_numpy().view(np.uint8),
    )


def _ignored_below(metadata: bytes, folder: Path, root: Path) -> dict[str, int]:
    """Return the numbers of other files below a folder, from those by folder."""
    total: Counter[str] = Counter()
    for name, counts in json.loads(metadata).items():
        path = os.path.normpath(os.path.join(root, name))
        if path == str(folder) or path.startswith(os.path.join(folder, "")):
            total.update(counts)
    return dict(total)


def _rows_below(columns: Columns, folder: Path, root: Path) -> npt.NDArray[np.int64] | None:
    """Return the rows of the media below a folder, or None if that is the folder of the table."""
    if folder == root:
        return None
    start = os.fsencode(folder)
    is_below = [name == start or name.startswith(start + b"/") for name in columns.folders.to_pylist()]
    return np.flatnonzero(np.array(is_below, bool)[columns.folder_of])


def _differences(root: Path, folder: Path, records: Records, times_ns: dict[str, int]) -> str:
    """Return the numbers of files added and gone below a folder since its table was written, or "".

    Only folders whose modification time has changed are listed.

    Args:
        root: Folder of the table.
        folder: The folder to compare, `root` or a folder below it.
        records: What the table lists below `folder`.
        times_ns: Modification time of each folder when it was listed, by the path relative to `root`.
    """
    known = {os.path.normpath(os.path.join(root, name)): time_ns for name, time_ns in times_ns.items()}
    below = os.path.join(folder, "")
    is_inside = {path: path == str(folder) or path.startswith(below) for path in known}
    changed = [path for path, time_ns in known.items() if is_inside[path] and _time_ns(path) != time_ns]
    listed = _listed_names(records, changed) if changed else {}
    num_added = num_gone = 0
    for path in changed:
        present, recorded = set(_names(path)), listed.get(path, set())
        num_gone += len(recorded - present)
        new = (os.path.join(path, name) for name in present - recorded)
        num_added += sum(name not in known and _is_media(name) for name in new)
    return ", ".join(f"{count} {what}" for count, what in ((num_added, "added"), (num_gone, "gone")) if count)


def _listed_names(records: Records, folders: list[str]) -> dict[str, set[str]]:
    """Return the names that a table lists in some folders."""
    codes = {name: code for code, name in enumerate(records.folders())}
    wanted = np.zeros(len(codes), bool)
    wanted[[codes[folder] for folder in folders if folder in codes]] = True
    names: dict[str, set[str]] = {}
    for index in np.flatnonzero(wanted[records.folder_codes]).tolist():
        folder, name = os.path.split(records.path(index))
        names.setdefault(folder, set()).add(name)
    return names


def _is_media(path: str) -> bool:
    """Return whether a path is a video or an image, or a folder that contains one."""
    if skipped_as(os.path.basename(path)):
        return False
    if not os.path.isdir(path):
        return suffix_of(path) in MEDIA_SUFFIXES
    return any(suffix_of(name) in MEDIA_SUFFIXES for _, _, files in os.walk(path) for name in files)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # the folder is gone
        return []


def _time_ns(folder: str) -> int:
    """Return the modification time of a folder, 0 if it does not exist."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def _nonzero(column: Any) -> list[int]:
    """Return the rows in which a column is true, or a text is not empty."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows: list[int] = pc.indices_nonzero(
        column if pa.types.is_boolean(column.type) else pc.not_equal(column, "")
    ).to_pylist()
    return rows


def _text(names: Sequence[str]) -> Any:
    """Return names as an Arrow array of text, or of bytes if one of them is not valid UTF-8."""
    import pyarrow as pa

    try:
        return pa.array(names, pa.large_string())
    except UnicodeEncodeError:
        return pa.array(map(os.fsencode, names), pa.large_binary(), size=len(names))


def _values(column: Any) -> list[Any]:
    """Return the values of a column of names or numbers."""
    return [os.fsdecode(value) if isinstance(value, bytes) else value for value in column.to_pylist()]


def _age(seconds: float) -> str:
    """Return a duration in its largest unit.

    >>> _age(200_000)
    '2 days'
    """
    for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds // length_s)) > 0:
            return counted(count, unit)
    return "less than a minute"
