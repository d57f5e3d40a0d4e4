"""Records in columns: a data set of any size, shared by all processes.

A Python object per record costs a few hundred bytes, and counting references to it writes to the memory that worker
processes share with their parent. Columns do neither; a `MediaRecord` is made when it is read.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from eztorch_sce.data.sources.source import OpenedSource, SourceRows
from eztorch_sce.types import MediaRecord

KINDS = ("video", "image", "frames")
"""Kinds of records; the column of kinds holds indices into it."""

UNLABELED = -1

_BLOCK = 1 << 20  # rows per step of a computation over a whole column, so that it needs little memory


class Columns(NamedTuple):
    """The columns of a table of files.

    Attributes:
        folders: Folder of each code in `folder_of`, an Arrow array of type large_binary.
        folder_of: Index into `folders`, int32 (N,).
        names: Names of the files, an Arrow array of type large_binary (N,): a name may be bytes of any encoding.
        kinds: Index into `KINDS`, uint8 (N,).
        source: The source that reads the rows, whose paths are then names; None for files.
    """

    folders: Any
    folder_of: npt.NDArray[np.int32]
    names: Any
    kinds: npt.NDArray[np.uint8]
    source: SourceRows | None = None


class Records(Sequence[MediaRecord]):
    """The records of one split of a data set, in a fixed order.

    Args:
        columns: The table that holds the records; it may hold others as well.
        rows: Row of each record, (N,); None takes all rows.
        labels: Class index of each record, int32 (N,), or of each folder with `labels_by_folder`; `UNLABELED` for none.
        labels_by_folder: Whether `labels` holds one label per folder of the table.
        segments: Start and end in seconds of the part of each video to use, float64 (N, 2), NaN where a video begins or
            ends; None uses whole videos.
        groups: `group_code` of the group of each record, int64 (N,), such as the source video of a clip; None if a list
            names no groups.
    """

    def __init__(
        self,
        columns: Columns,
        rows: npt.NDArray[Any] | None = None,
        labels: npt.NDArray[np.int32] | None = None,
        labels_by_folder: bool = False,
        segments: npt.NDArray[np.float64] | None = None,
        groups: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self._columns, self._rows, self._segments, self.groups = columns, rows, segments, groups
        self._labels, self._labels_by_folder = labels, labels_by_folder

    @classmethod
    def of(cls, records: Iterable[MediaRecord]) -> "Records":
        """Return records made of objects, for lists that are small or already exist as objects."""
        records = list(records)
        labels = [UNLABELED if record.label is None else record.label for record in records]
        segments = [(record.start_s, record.end_s) for record in records]
        has_segments = any(segment != (None, None) for segment in segments)
        return cls.from_columns(
            [record.path for record in records],
            [record.kind for record in records],
            labels if any(label != UNLABELED for label in labels) else None,
            segments if has_segments else None,
        )

    @classmethod
    def from_columns(
        cls,
        paths: Iterable[str],
        kinds: Sequence[str],
        labels: Sequence[int] | npt.NDArray[np.int32] | None = None,
        segments: Sequence[tuple[float | None, float | None]] | None = None,
        groups: Sequence[str] | None = None,
    ) -> "Records":
        """Return records from columns of equal length.

        Args:
            paths: Absolute paths.
            kinds: A member of `KINDS` per record.
            labels: Class indices, `UNLABELED` for none; None if no record has one.
            segments: Start and end of each record in seconds, or None for a whole file.
            groups: Name of the group of each record, or None if there are no groups.
        """
        codes: dict[str, int] = {}
        folder_of, names = [], []
        for path in paths:
            folder, name = os.path.split(path)
            folder_of.append(codes.setdefault(folder, len(codes)))
            names.append(name)
        return cls.from_names(list(codes), folder_of, names, kinds, labels, segments, groups)

    @classmethod
    def from_names(
        cls,
        folders: Sequence[str],
        folder_of: Sequence[int],
        names: Sequence[str],
        kinds: Sequence[str],
        labels: Sequence[int] | npt.NDArray[np.int32] | None = None,
        segments: Sequence[tuple[float | None, float | None]] | None = None,
        groups: Sequence[str] | None = None,
    ) -> "Records":
        """Return records from columns of equal length, with paths that are already divided; see `from_columns`.

        Args:
            folders: Absolute paths of the folders.
            folder_of: Index into `folders` of each record.
            names: Names of the files.
            kinds, labels, segments, groups: As in `from_columns`.
        """
        columns = Columns(
            _byte_column(folders),
            np.array(folder_of, np.int32),
            _byte_column(names),
            np.fromiter(map({kind: code for code, kind in enumerate(KINDS)}.__getitem__, kinds), np.uint8, len(kinds)),
        )
        array = None if labels is None else np.asarray(labels, np.int32)
        spans = None if segments is None else np.array(segments, np.float64).reshape(-1, 2)  # None becomes NaN
        codes_of_groups = None if groups is None else np.array([group_code(name) for name in groups], np.int64)
        return cls(columns, labels=array, segments=spans, groups=codes_of_groups)

    @classmethod
    def of_source(
        cls, source: OpenedSource, folder: str, names: Sequence[str], labels: npt.NDArray[np.int32] | None
    ) -> "Records":
        """Return the records of a source.

        Args:
            source: The source.
            folder: What their paths begin with, "" if the names are enough.
            names: Name of each record.
            labels: Class index of each record, or None.
        """
        kinds = np.full(len(names), KINDS.index(source.kind), np.uint8)
        folder_of = np.zeros(len(names), np.int32)
        columns = Columns(_byte_column([folder]), folder_of, _byte_column(names), kinds, SourceRows([source]))
        return cls(columns, labels=labels)

    @classmethod
    def from_folders(cls, groups: Iterable[tuple[str, Sequence[str], str]]) -> "Records":
        """Return unlabeled records, sorted by path.

        Args:
            groups: Absolute path of a folder, names in it, and their kind; a folder may occur once per kind.
        """
        by_folder: dict[str, list[tuple[str, int]]] = {}
        for folder, names, kind in groups:
            by_folder.setdefault(folder, []).extend((name, KINDS.index(kind)) for name in names)
        folders = sorted(by_folder, key=lambda folder: os.path.join(folder, ""))
        rows = [(code, *row) for code, folder in enumerate(folders) for row in sorted(by_folder[folder])]
        starts = [os.path.join(folder, "") for folder in folders]
        if any(later.startswith(earlier) for earlier, later in pairwise(starts)):  # "a.jpg" sorts before "a/b.jpg"
            rows.sort(key=lambda row: starts[row[0]] + row[1])
        columns = Columns(
            _byte_column(folders),
            np.fromiter((code for code, _, _ in rows), np.int32, len(rows)),
            _byte_column([name for _, name, _ in rows]),
            np.fromiter((kind for _, _, kind in rows), np.uint8, len(rows)),
        )
        return cls(columns)

    @classmethod
    def concatenate(cls, parts: Sequence["Records"]) -> "Records":
        """Return the records of several splits, one after the other, without their groups."""
        import pyarrow as pa

        starts = np.cumsum([0, *(len(part._columns.folders) for part in parts)])
        columns = Columns(
            pa.concat_arrays([part._columns.folders for part in parts]),
            np.concatenate(
                [part.folder_codes + start for part, start in zip(parts, starts, strict=False)], dtype=np.int32
            ),
            pa.concat_arrays([part._name_column() for part in parts]),
            np.concatenate([part.kind_codes for part in parts]),
            _joined_sources(parts),
        )
        labels = (
            None if all(part._labels is None for part in parts) else np.concatenate([part.labels for part in parts])
        )
        segments = None
        if any(part._segments is not None for part in parts):
            whole = [np.full((len(part), 2), np.nan) if part._segments is None else part._segments for part in parts]
            segments = np.concatenate(whole)
        return cls(columns, labels=labels, segments=segments)

    def __len__(self) -> int:
        return len(self._columns.folder_of) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, index: int) -> MediaRecord: ...
    @overload
    def __getitem__(self, index: slice) -> "Records": ...
    def __getitem__(self, index: int | slice) -> "MediaRecord | Records":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        row = index if self._rows is None else int(self._rows[index])
        start_s, end_s = (None, None) if self._segments is None else map(_number, self._segments[index].tolist())
        label = self._label(index, row)
        kind = KINDS[self._columns.kinds[row]]
        return MediaRecord(self._path(row), None if label == UNLABELED else label, kind, start_s, end_s)

    def __iter__(self) -> Iterator[MediaRecord]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Records) and len(self) == len(other) and all(map(MediaRecord.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def paths(self) -> Iterator[str]:
        """Iterate over the paths."""
        return (self.path(index) for index in range(len(self)))

    def kind(self, index: int) -> str:
        """Return the kind of a record: "video", "image" or "frames"."""
        return KINDS[self._columns.kinds[index if self._rows is None else int(self._rows[index])]]

    def path(self, index: int) -> str:
        """Return the path of a record."""
        return self._path(index if self._rows is None else int(self._rows[index]))

    def names(self) -> list[bytes]:
        """Return the names of the files in their folders."""
        return list(self._name_column().to_pylist())

    def _name_column(self) -> Any:
        return self._columns.names if self._rows is None else self._columns.names.take(self._rows)

    def folders(self) -> list[str]:
        """Return the folders of the table, by their codes."""
        return [os.fsdecode(folder.as_py()) for folder in self._columns.folders]

    def any_name_has(self, text: str) -> bool:
        """Return whether a text is part of any name in the table."""
        import pyarrow.compute as pc

        return bool(pc.any(pc.match_substring(self._columns.names, text)).as_py())

    @property
    def has_source(self) -> bool:
        """Whether a source reads the records, so that their paths are names."""
        return self._columns.source is not None

    def place_in_source(self, index: int) -> tuple[OpenedSource, int] | None:
        """Return the source that reads a record and the index of the record in it; None for a file."""
        source = self._columns.source
        return None if source is None else source.at(index if self._rows is None else int(self._rows[index]))

    @property
    def folder_codes(self) -> npt.NDArray[np.int32]:
        """Index into `folders()` of each record, int32 (N,)."""
        return self._columns.folder_of if self._rows is None else self._columns.folder_of[self._rows]

    @property
    def kind_codes(self) -> npt.NDArray[np.uint8]:
        """Index into `KINDS` of each record, uint8 (N,)."""
        return self._columns.kinds if self._rows is None else self._columns.kinds[self._rows]

    @property
    def segments(self) -> npt.NDArray[np.float64] | None:
        """Start and end in seconds of the part of each video to use, float64 (N, 2), or None for whole videos."""
        return self._segments

    def shares_table(self, other: "Records") -> bool:
        """Return whether the records of both are rows of one table."""
        return self._columns is other._columns

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Class index of each record, int32 (N,), `UNLABELED` for none."""
        if self._labels is None:
            return np.full(len(self), UNLABELED, np.int32)
        return self._labels[self.folder_codes] if self._labels_by_folder else self._labels

    def num_by_kind(self) -> Counter[str]:
        """Return the number of records of each kind that occurs."""
        counts = np.zeros(len(KINDS), np.int64)
        for start in range(0, len(self), _BLOCK):
            rows = slice(start, start + _BLOCK)
            chosen = rows if self._rows is None else self._rows[rows]
            counts += np.bincount(self._columns.kinds[chosen], minlength=len(KINDS))
        return Counter({kind: int(count) for kind, count in zip(KINDS, counts, strict=True) if count})

    def num_by_folder(self) -> npt.NDArray[np.int64]:
        """Return the number of records in each folder of `folders()`."""
        counts = np.zeros(len(self._columns.folders), np.int64)
        for start in range(0, len(self), _BLOCK):
            rows = slice(start, start + _BLOCK)
            chosen = rows if self._rows is None else self._rows[rows]
            counts += np.bincount(self._columns.folder_of[chosen], minlength=len(counts))
        return counts

    def kinds_by_folder(self) -> dict[str, dict[str, str]]:
        """Return the kind of each record by its folder and its name."""
        import pyarrow as pa

        codes = self.folder_codes
        order = np.argsort(codes, kind="stable")
        column = self._columns.names.take(pa.array(order if self._rows is None else self._rows[order]))
        try:
            names = column.cast(pa.large_string()).to_pylist()
        except pa.ArrowInvalid:  # some name is not valid UTF-8
            names = list(map(os.fsdecode, column.to_pylist()))
        kinds = [KINDS[kind] for kind in self.kind_codes[order].tolist()]
        used, starts = np.unique(codes[order], return_index=True)
        ends = [*starts.tolist()[1:], len(names)]
        folders = self.folders()
        return {
            folders[code]: dict(zip(names[start:end], kinds[start:end], strict=True))
            for code, start, end in zip(used.tolist(), starts.tolist(), ends, strict=True)
        }

    def num_by_label(self, num_classes: int) -> npt.NDArray[np.int64]:
        """Return the number of records of each class, (C,)."""
        counts = np.zeros(num_classes + 1, np.int64)  # the first is that of unlabeled records
        for start in range(0, len(self) if self._labels is not None else 0, _BLOCK):
            rows = slice(start, start + _BLOCK)
            chosen = rows if self._rows is None else self._rows[rows]
            assert self._labels is not None
            labels = self._labels[self._columns.folder_of[chosen]] if self._labels_by_folder else self._labels[rows]
            counts += np.bincount(labels + 1, minlength=len(counts))
        return counts[1:]

    def all_images(self) -> bool:
        """Return whether every record is a single image."""
        return set(self.num_by_kind()) <= {"image"}

    def take(self, indices: npt.NDArray[Any] | Sequence[int]) -> "Records":
        """Return the records at some indices, in that order."""
        indices = np.asarray(indices, np.int64)
        rows = indices if self._rows is None else self._rows[indices]
        by_record = self._labels is not None and not self._labels_by_folder
        labels = self._labels[indices] if self._labels is not None and by_record else self._labels
        segments = None if self._segments is None else self._segments[indices]
        groups = None if self.groups is None else self.groups[indices]
        num_rows = len(self._columns.folder_of)
        rows = rows.astype(np.min_scalar_type(max(0, num_rows - 1)))
        return Records(self._columns, rows, labels, self._labels_by_folder, segments, groups)

    def where(self, mask: npt.NDArray[np.bool_]) -> "Records":
        """Return the records at which a mask is true, in the original order."""
        return self if mask.all() else self.take(np.flatnonzero(mask))

    def with_labels(self, labels: npt.NDArray[np.int32] | None) -> "Records":
        """Return the same records with other labels, int32 (N,), or without labels."""
        return Records(self._columns, self._rows, labels, False, self._segments, self.groups)

    def with_folder_labels(self, labels: npt.NDArray[np.int32]) -> "Records":
        """Return the same records, labeled by the folders of `folders()`, int32 (number of folders,)."""
        return Records(self._columns, self._rows, labels, True, self._segments, self.groups)

    def with_frames_pattern(self, pattern: str) -> "Records":
        """Return the same records, each folder of frames replaced by the images in it that match a pattern."""
        paths = [os.path.join(record.path, pattern) if record.kind == "frames" else record.path for record in self]
        kinds = [KINDS[code] for code in self.kind_codes.tolist()]
        columns = Records.from_columns(paths, kinds)._columns
        return Records(columns, None, self.labels, False, self._segments, self.groups)

    def with_groups(self, groups: npt.NDArray[np.int64]) -> "Records":
        """Return the same records with a group each, int64 (N,)."""
        return Records(self._columns, self._rows, self._labels, self._labels_by_folder, self._segments, groups)

    def _path(self, row: int) -> str:
        columns = self._columns
        folder = columns.folders[int(columns.folder_of[row])].as_py()
        return os.fsdecode(os.path.join(folder, columns.names[row].as_py()))

    def _label(self, index: int, row: int) -> int:
        if self._labels is None:
            return UNLABELED
        return int(self._labels[self._columns.folder_of[row]] if self._labels_by_folder else self._labels[index])


def _joined_sources(parts: Sequence[Records]) -> SourceRows | None:
    """Return the sources of all parts; either all or none of them have one."""
    tables = []
    for part in parts:
        if part._columns.source is None:
            return None
        tables.append((part._columns.source, np.arange(len(part)) if part._rows is None else part._rows))
    return SourceRows.join(tables)


def group_code(name: str) -> int:
    """Return a number for the name of a group, the same on every machine."""
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _byte_column(names: Sequence[str]) -> Any:
    """Return names as an Arrow array of type large_binary."""
    import pyarrow as pa

    return pa.array(map(os.fsencode, names), pa.large_binary(), size=len(names))


def _number(value: float) -> float | None:
    """Return None for NaN."""
    return None if value != value else value
