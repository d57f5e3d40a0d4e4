"""Features that stay in the shards of an `extract`, in files or behind a URL, and are read by chunks.

The folder of the job holds, beside the outputs of the shards:

features.json          number of features, outputs with the places of their numbers, classes and protocol of each split
features_train.arrow   label, path, group and segment of each train record, in the order of the outputs
features_test.arrow    the same of the test records
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast, overload

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int64
from torch import Tensor

from eztorch_sce.errors import ConfigError, first_line
from eztorch_sce.evaluation.base import Scores
from eztorch_sce.host_memory import total_bytes
from eztorch_sce.jobs.store import Store
from eztorch_sce.types import FeatureBank, StoredRows

INDEX_FILE = "features.json"
_BYTES = 4  # of a number
_AT_ONCE = 2**26  # bytes that are read at once into memory


class Part(NamedTuple):
    """Consecutive rows in a file.

    Attributes:
        name: Name of the file.
        offset: Byte at which the first row begins.
        rows: Number of rows.
    """

    name: str
    offset: int
    rows: int


class ShardedRows(StoredRows):
    """Rows of features in several files, one after the other. A file on a disk is mapped into memory while it is read.

    Args:
        store: The folder of the files.
        parts: The rows in each file.
        num_features: Width of a row.
    """

    def __init__(self, store: Store, parts: Sequence[Part], num_features: int) -> None:
        self._store, self._parts = store, list(parts)
        self._starts = np.cumsum([0, *(part.rows for part in parts)])
        super().__init__(int(self._starts[-1]), num_features)

    def read(self, start: int, stop: int) -> Tensor:
        """See `StoredRows.read`."""
        rows = np.empty((stop - start, self.shape[1]), np.float32)
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        done = 0
        while done < len(rows):
            part, offset = self._parts[first], start + done - int(self._starts[first])
            count = min(part.rows - offset, len(rows) - done)
            if count > 0:
                rows[done : done + count] = self._range(part, offset, count)
            first, done = first + 1, done + max(0, count)
        return torch.from_numpy(rows)

    def take(self, index: Int64[Tensor, " n"]) -> Tensor:
        """See `StoredRows.take`."""
        numbers = index.numpy()
        if not len(numbers):
            return torch.empty(0, self.shape[1])
        rows = np.empty((len(numbers), self.shape[1]), np.float32)
        of_part = np.searchsorted(self._starts, numbers, side="right") - 1
        order = np.argsort(of_part, kind="stable")
        used, begins = np.unique(of_part[order], return_index=True)
        for number, begin, end in zip(used.tolist(), begins, [*begins.tolist(), len(order)][1:], strict=True):
            places = order[begin:end]
            rows[places] = self._rows(self._parts[number], numbers[places] - self._starts[number])
        return torch.from_numpy(rows)

    def _range(self, part: Part, start: int, count: int) -> npt.NDArray[np.float32]:
        """Return consecutive rows of a part."""
        width = self.shape[1]
        if self._store.path is not None:
            return self._mapped(part)[start : start + count]
        first = part.offset + start * width * _BYTES
        content = self._fetched(part, [(first, first + count * width * _BYTES)])[0]
        return np.frombuffer(content, np.float32).reshape(count, width)

    def _rows(self, part: Part, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return some rows of a part. From a URL, only they are fetched, unless they are most of the part."""
        if self._store.path is not None:
            return np.asarray(self._mapped(part)[rows])
        if 2 * len(rows) > part.rows:
            return self._range(part, 0, part.rows)[rows]
        size = self.shape[1] * _BYTES
        firsts = [part.offset + row * size for row in rows.tolist()]
        contents = self._fetched(part, [(first, first + size) for first in firsts])
        return np.stack([np.frombuffer(content, np.float32) for content in contents])

    def _fetched(self, part: Part, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return ranges of bytes of a part behind a URL."""
        try:
            return self._store.read_ranges(part.name, ranges)
        except OSError as error:
            address = self._store.address(part.name)
            raise ConfigError([f"{address} cannot be read ({first_line(error)}): run the same command again"]) from None

    def _mapped(self, part: Part) -> npt.NDArray[np.float32]:
        path = self._store.address(part.name)
        try:
            return np.memmap(path, np.float32, "r", part.offset, (part.rows, self.shape[1]))
        except (OSError, ValueError) as error:
            cure = "copy it back, or run `extract` again"
            raise ConfigError([f"{path} is missing or damaged ({error}): {cure}"]) from None


class Listed(StoredRows):
    """Stored rows in another order.

    Args:
        rows: The rows.
        order: Index of each row in `rows`, (N,).
    """

    def __init__(self, rows: StoredRows, order: Int64[Tensor, " N"]) -> None:
        super().__init__(len(order), rows.shape[1])
        self._rows, self._order = rows, order

    def read(self, start: int, stop: int) -> Tensor:
        """See `StoredRows.read`."""
        return self._rows.take(self._order[start:stop])

    def take(self, index: Int64[Tensor, " n"]) -> Tensor:
        """See `StoredRows.take`."""
        return self._rows.take(self._order[index])


class StoredPaths(Sequence[str]):
    """Paths in an Arrow array of type large_binary, decoded when they are read.

    Args:
        column: The array.
        order: Index of each path in the array; None keeps the order.
    """

    def __init__(self, column: Any, order: Int64[Tensor, " N"] | None = None) -> None:
        self.column, self._order = column, order

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        place = index if self._order is None else int(self._order[index])
        return os.fsdecode(self.column[place].as_py())

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


def write_index(store: Store, parts: Sequence[Sequence[Part]], num_features: int, banks: Sequence[FeatureBank]) -> None:
    """Write the files that make the folder of a job one of features, which evaluations read.

    Args:
        store: The folder of the job.
        parts: The rows of each split.
        num_features: Width of a row.
        banks: The splits, train first; their features are not written.
    """
    import pyarrow as pa

    splits = []
    for name, own, bank in zip(("train", "test"), parts, banks, strict=False):
        columns = {"label": pa.array(bank.labels.numpy()), "path": _column_of(bank.paths)}
        assert bank.places is not None
        columns["place"] = pa.array(bank.places.numpy())
        if bank.groups is not None:
            columns["group"] = pa.array(bank.groups.numpy())
        if bank.segments is not None:
            for number, column in enumerate(("start_s", "end_s")):
                columns[column] = pa.array(bank.segments[:, number].contiguous().numpy())
        sink = pa.BufferOutputStream()
        table = pa.table(columns)
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        store.write(f"features_{name}.arrow", sink.getvalue())
        splits.append({"name": name, "classes": bank.classes, "protocol": bank.protocol, "parts": own})
    content = {"num_features": num_features, "splits": splits}
    store.write(INDEX_FILE, (json.dumps(content) + "\n").encode())


def _column_of(paths: Sequence[str]) -> Any:
    import pyarrow as pa

    return pa.array(map(os.fsencode, paths), pa.large_binary(), size=len(paths))


def stored_banks(folder: str) -> list[FeatureBank] | None:
    """Return the train and test features of the folder of a job; None if it holds none.

    Features that take at most half of the memory of this machine are read into memory, in the order of the data.

    Raises:
        ConfigError: If files are missing or damaged, or the plug-in of fsspec for a URL is not installed.
    """
    import pyarrow as pa

    store = Store(folder)
    try:
        content = json.loads(store.read(INDEX_FILE))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError([f"features={folder}: {INDEX_FILE} cannot be read ({error}); run `extract` again"]) from error
    if "folder" in content:  # written to a run directory by `extract`
        place = content["folder"]
        return stored_banks(place if "://" in place else os.path.join(folder, place))
    banks = []
    for split in content["splits"]:
        rows = ShardedRows(store, [Part(*part) for part in split["parts"]], content["num_features"])
        try:
            with store.open(f"features_{split['name']}.arrow") as file:
                table = pa.ipc.open_file(file).read_all().combine_chunks()
        except (OSError, pa.ArrowInvalid) as error:
            cure = "run `extract` again"
            raise ConfigError([f"features={folder}: features_{split['name']}.arrow: {error}; {cure}"]) from error
        banks.append(_bank_of(rows, table, split))
    fits = sum(bank.features.nbytes for bank in banks) <= total_bytes() // 2
    return [in_memory(bank) if fits else bank for bank in banks]


def _bank_of(rows: ShardedRows, table: Any, split: dict[str, Any]) -> FeatureBank:
    def tensor(name: str) -> Tensor:
        return torch.from_numpy(table[name].to_numpy().copy())

    groups, segments = None, None
    if "group" in table.column_names:
        groups = tensor("group")
    if "start_s" in table.column_names:
        segments = torch.stack([tensor("start_s"), tensor("end_s")], dim=1)
    column = table["path"].combine_chunks()
    paths = StoredPaths(column.chunk(0) if hasattr(column, "chunk") else column)
    places = tensor("place")
    return FeatureBank(
        cast(Tensor, rows), tensor("label").long(), paths, split["classes"], split["protocol"], groups, segments, places
    )


def in_memory(bank: FeatureBank) -> FeatureBank:
    """Return a bank whose features are in memory, in the order of the data."""
    rows, places = bank.features, bank.places
    if not isinstance(rows, StoredRows):
        return bank
    features = torch.empty(rows.shape)
    at_once = max(1, _AT_ONCE // (_BYTES * rows.shape[1]))
    for start in range(0, len(rows), at_once):
        chunk = slice(start, min(start + at_once, len(rows)))
        features[chunk if places is None else places[chunk]] = rows[chunk]
    bank = as_listed(bank)
    return replace(bank, features=features, paths=list(bank.paths))


def as_listed(bank: FeatureBank) -> FeatureBank:
    """Return a bank in the order of the data."""
    if bank.places is None:
        return bank
    order = bank.in_order()
    assert isinstance(bank.features, StoredRows)
    assert isinstance(bank.paths, StoredPaths)
    return FeatureBank(
        cast(Tensor, Listed(bank.features, order)),
        bank.labels[order],
        StoredPaths(bank.paths.column, order),
        bank.classes,
        bank.protocol,
        None if bank.groups is None else bank.groups[order],
        None if bank.segments is None else bank.segments[order],
    )


def scores_as_listed(scores: Scores, train: FeatureBank, test: FeatureBank) -> Scores:
    """Return scores of banks for the same banks in the order of the data."""
    predictions = scores.predictions
    if predictions is not None and predictions.nearest is not None and train.places is not None:
        predictions = predictions._replace(nearest=train.places[predictions.nearest])
    if test.places is not None:
        order = test.in_order()
        if predictions is not None:
            nearest = None if predictions.nearest is None else predictions.nearest[order]
            predictions = type(predictions)(predictions.predicted[order], predictions.score[order], nearest)
        scores = replace(scores, by_record={name: values[order] for name, values in scores.by_record.items()})
    return replace(scores, predictions=predictions)
