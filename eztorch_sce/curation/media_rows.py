"""Rows of the doctor in columns, of which a `MediaRow` is made when it is read."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, overload

import numpy as np

from eztorch_sce.data.sources.media_table import MediaRow

_BLOCK = 10_000  # rows that are objects at a time


def to_bytes(finding: str) -> bytes:
    """Return a finding as it is stored until the table is written: it may quote a name that is not valid UTF-8.

    >>> from_bytes(to_bytes("unreadable: caf\\udce9"))
    'unreadable: caf\\udce9'
    """
    return finding.encode("utf-8", "surrogatepass")


def from_bytes(stored: bytes) -> str:
    """Return the finding that `to_bytes` encoded."""
    return stored.decode("utf-8", "surrogatepass")


class MediaRows(Sequence[MediaRow]):
    """The rows of a diagnosis.

    Args:
        table: Arrow table with a row per file: the columns of `MediaRow`, but `key` for the path, and findings that
            `to_bytes` encoded.
        others: Rows that follow.
    """

    def __init__(self, table: Any, others: Sequence[MediaRow] = ()) -> None:
        self._table = table.select(["key", *MediaRow._fields[1:]])
        self._others = list(others)

    def __len__(self) -> int:
        return len(self._table) + len(self._others)

    @overload
    def __getitem__(self, index: int) -> MediaRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[MediaRow]: ...
    def __getitem__(self, index: int | slice) -> MediaRow | list[MediaRow]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        index = range(len(self))[index]
        if index >= len(self._table):
            return self._others[index - len(self._table)]
        return next(_rows(self._table.slice(index, 1)))

    def __iter__(self) -> Iterator[MediaRow]:
        return chain(_rows(self._table), self._others)

    @property
    def num_unusable(self) -> int:
        """Number of files from which not every clip can be read."""
        import pyarrow.compute as pc

        num_usable: int = pc.sum(self._table["usable"]).as_py() or 0
        return len(self._table) - num_usable + sum(not row.usable for row in self._others)

    def unusable(self, most: int) -> list[MediaRow]:
        """Return the first rows of files from which not every clip can be read."""
        import pyarrow.compute as pc

        return [*_rows(self._table.filter(pc.invert(self._table["usable"])).slice(0, most)), *self._others][:most]

    def counts(self) -> list[tuple[str, int, str]]:
        """Return (kind of finding, number of files, first file), most frequent kind first."""
        import pyarrow.compute as pc

        findings = self._table["findings"].combine_chunks()
        kinds = [from_bytes(finding).split(":")[0] for finding in pc.list_flatten(findings).to_pylist()]
        first: dict[str, str] = {}
        for kind, row in zip(kinds, pc.list_parent_indices(findings).to_pylist(), strict=True):
            if kind not in first:
                first[kind] = os.fsdecode(self._table["key"][row].as_py())
        for other in self._others:
            for finding in other.findings:
                kinds.append(finding.split(":")[0])
                first.setdefault(kinds[-1], other.path)
        counts = Counter(kinds)
        return sorted(((kind, counts[kind], path) for kind, path in first.items()), key=lambda count: -count[1])


def _rows(table: Any) -> Iterator[MediaRow]:
    for start in range(0, len(table), _BLOCK):
        columns = [column.to_pylist() for column in table.slice(start, _BLOCK).columns]
        for key, kind, usable, findings, *rest in zip(*columns, strict=True):
            yield MediaRow(os.fsdecode(key), kind, usable, list(map(from_bytes, findings)), *rest)


def with_findings(table: Any, findings: Mapping[int, Sequence[str]]) -> Any:
    """Return a table of rows with more findings, by the index of their row."""
    import pyarrow as pa

    if not findings:
        return table
    indices = sorted(findings)
    column = table["findings"].combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    present = column.take(pa.array(indices)).to_pylist()
    longer = [old + list(map(to_bytes, findings[index])) for old, index in zip(present, indices, strict=True)]
    place = np.arange(len(table))
    place[indices] = len(table) + np.arange(len(indices))
    column = pa.concat_arrays([column, pa.array(longer, column.type)]).take(pa.array(place))
    return table.set_column(table.column_names.index("findings"), "findings", column)


def findings_as_text(column: Any) -> Any:
    """Return a column of findings as lists of text, in which names that are not valid UTF-8 are escaped."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pc.list_flatten(column).combine_chunks()
    try:
        text = values.cast(pa.string())
    except pa.ArrowInvalid:
        text = pa.array([from_bytes(v).encode("utf-8", "backslashreplace").decode() for v in values.to_pylist()])
    ends = np.cumsum(pc.list_value_length(column).to_numpy(), dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(np.concatenate([np.zeros(1, np.int32), ends])), text)
