"""A job on files: its records in shards, its settings, and the outputs and receipts of the shards, in one folder.

job.json          command, settings, version, number of shards
inputs.arrow      a batch of records per shard
outputs/          an Arrow file per finished shard, named by its content
receipts/         a receipt per finished shard, which names its output
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from eztorch_sce.errors import ConfigError
from eztorch_sce.jobs.receipts import Receipt, read_receipt, read_receipts, write_receipt
from eztorch_sce.jobs.sharding import num_shards, shard_of
from eztorch_sce.jobs.store import Store
from eztorch_sce.jobs.work import LOADING, Output, Shard, Work

JOB_FILE = "job.json"
INPUTS_FILE = "inputs.arrow"
OUTPUTS = "outputs"
ROW = "row"
"""Column of the inputs: position of the record in the data set, which changes when others are added."""
_DIGESTS_KEY = b"eztorch_sce.digests"
_PER_TASK = 256  # files that a thread examines in one go


def version() -> str:
    """Return the version of this package, which all workers of a job must have."""
    from eztorch_sce import __version__

    return __version__


class Job:
    """A job in its folder. Create one with `create`, or open it in a worker with `open`.

    Attributes:
        store: The folder.
        command: The command, such as "data doctor".
        work: Module and class of the work, such as "eztorch_sce.curation.doctor_work:DoctorWork".
        settings: The settings of the work.
        settings_digest: Digest of the command and of the settings that decide the output.
        version: Version of this package.
        count: Number of shards.
    """

    def __init__(self, store: Store, description: dict[str, Any]) -> None:
        self.store = store
        self.command: str = description["command"]
        self.work: str = description["work"]
        self.settings: dict[str, Any] = description["settings"]
        self.version: str = description["version"]
        self.count: int = description["shards"]
        deciding = {name: value for name, value in self.settings.items() if name != LOADING}
        self.settings_digest = _digest_of([self.command, deciding])
        import pyarrow as pa

        self._inputs = pa.ipc.open_file(store.open(INPUTS_FILE))
        self._digests: list[str] = json.loads(self._inputs.schema.metadata[_DIGESTS_KEY])

    @classmethod
    def create(cls, folder: str | os.PathLike[str], work: Work, records: Any, per_shard: int) -> "Job":
        """Write the description of a job, or that of a job that exists anew, and return it.

        A job that exists keeps its number of shards, and with it the receipts of shards whose records are the same.

        Args:
            folder: Folder of the job.
            work: What to do.
            records: Arrow table of all records in their order, with a unique `key` (large_binary) each, and whatever
                columns the work needs; each column decides whether a receipt is valid.
            per_shard: Records per shard of a new job.
        """
        store = Store(folder)
        count = _earlier_count(store) or num_shards(len(records), per_shard)
        description = {
            "command": work.command,
            "work": f"{type(work).__module__}:{type(work).__qualname__}",
            "settings": work.settings(),
            "version": version(),
            "shards": count,
            "records": len(records),
        }
        _write_inputs(store, records, count)
        store.write(JOB_FILE, (json.dumps(description, indent=2) + "\n").encode())
        return cls(store, description)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Job":
        """Return the job in a folder, for a worker.

        Raises:
            ConfigError: If there is none, or another version of this package has started it.
        """
        store = Store(folder)
        try:
            description = json.loads(store.read(JOB_FILE))
        except (FileNotFoundError, ValueError):
            raise ConfigError([f"{folder} is not the folder of a job: it has no {JOB_FILE}"]) from None
        if description["version"] != version():
            cure = "install the same version on all machines"
            raise ConfigError(
                [f"the job was started by eztorch_sce {description['version']}, and this is {version()}: {cure}"]
            )
        return cls(store, description)

    @property
    def num_records(self) -> int:
        """Number of records of all shards."""
        return sum(self.num_inputs(number) for number in range(self.count))

    def shard(self, number: int) -> Shard:
        """Return the records of a shard."""
        import pyarrow as pa

        return Shard(number, pa.Table.from_batches([self._inputs.get_batch(number)]))

    def num_inputs(self, number: int) -> int:
        """Return the number of records of a shard."""
        return len(self._inputs.get_batch(number))

    def digest(self, number: int) -> str:
        """Return the digest of the records of a shard."""
        return self._digests[number]

    def is_valid(self, receipt: Receipt) -> bool:
        """Return whether a receipt is one of the present records, settings and version."""
        return (
            receipt.shard < self.count
            and receipt.inputs == self.digest(receipt.shard)
            and receipt.settings == self.settings_digest
            and receipt.version == self.version
        )

    def receipts(self) -> dict[int, Receipt]:
        """Return the valid receipts whose outputs exist, by shard."""
        outputs = set(self.store.names(OUTPUTS))
        return {
            number: receipt
            for number, receipt in read_receipts(self.store).items()
            if self.is_valid(receipt) and receipt.output in outputs
        }

    def pending(self) -> list[int]:
        """Return the shards that have no valid receipt, ascending."""
        done = self.receipts()
        return [number for number in range(self.count) if number not in done]

    def not_done(self, shards: Sequence[int]) -> list[int]:
        """Return those of some shards that have no valid receipt, reading no receipts of others."""
        outputs = set(self.store.names(OUTPUTS))
        receipts = [read_receipt(self.store, number) for number in shards]
        return [
            number
            for number, receipt in zip(shards, receipts, strict=True)
            if receipt is None or not self.is_valid(receipt) or receipt.output not in outputs
        ]

    def unchanged(self, number: int) -> Any:
        """Return the rows of the last output of a shard whose records are the same, or None if there are none.

        They are those of a shard in which other records have been added, changed or removed since, if the work keeps
        rows.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        receipt = read_receipt(self.store, number)
        if receipt is None or (receipt.settings, receipt.version) != (self.settings_digest, self.version):
            return None
        try:
            content = self.store.read(f"{OUTPUTS}/{receipt.output}")
        except OSError:
            return None
        columns = [name for name in self._inputs.schema.names if name != ROW]
        if receipt.output != output_name(number, content):
            return None
        table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
        if not set(columns) <= set(table.column_names):
            return None
        rows = self.shard(number).rows
        place = pc.index_in(table["key"], value_set=rows["key"])
        is_same = pc.is_valid(place)
        for name in columns:
            is_same = pc.and_(is_same, pc.fill_null(pc.equal(table[name], rows[name].take(place)), False))
        return table.filter(is_same) if pc.any(is_same).as_py() else None

    def num_unchanged(self, number: int) -> int:
        """Return the number of rows of `unchanged`."""
        rows = self.unchanged(number)
        return 0 if rows is None else len(rows)

    def save(self, output: Output, receipt: Receipt) -> Receipt:
        """Write the output of a shard, then its receipt, and return the receipt with the name of the output."""
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, output.table.schema) as writer:
            writer.write_table(output.table.combine_chunks())
        content = sink.getvalue()
        receipt = replace(receipt, output=output_name(output.number, content))
        self.store.write(f"{OUTPUTS}/{receipt.output}", content)
        write_receipt(self.store, receipt)
        return receipt


def output_name(number: int, content: Any) -> str:
    """Return the name of the output of a shard, which holds a digest of its content (bytes or a buffer)."""
    return f"{number:06d}-{hashlib.blake2b(content, digest_size=16).hexdigest()}.arrow"


def file_states(paths: list[str], stat: Callable[[str], os.stat_result] = os.stat) -> list[tuple[int, int]]:
    """Return size and modification time in nanoseconds of each file; zeros for one that cannot be examined.

    The file system is asked from several threads, since a network file system answers after a millisecond.
    """
    from concurrent.futures import ThreadPoolExecutor

    def state(path: str) -> tuple[int, int]:
        try:
            status = stat(path)
        except (OSError, ValueError):
            return 0, 0
        return status.st_size, status.st_mtime_ns

    def states(start: int) -> list[tuple[int, int]]:
        return [state(path) for path in paths[start : start + _PER_TASK]]

    with ThreadPoolExecutor(16) as pool:
        return [pair for part in pool.map(states, range(0, len(paths), _PER_TASK)) for pair in part]


def _write_inputs(store: Store, records: Any, count: int) -> None:
    """Write the records as a batch per shard, in their order, with the digest of each shard."""
    import numpy as np
    import pyarrow as pa

    keys = records["key"].to_pylist()
    if len(set(keys)) != len(keys):
        raise AssertionError("records of a job need unique keys")
    of_record = np.fromiter((shard_of(key, count) for key in keys), np.int64, len(keys))
    order = np.argsort(of_record, kind="stable")
    ends = np.searchsorted(of_record[order], np.arange(count), side="right")
    table = records.append_column(ROW, pa.array(np.arange(len(keys)))).take(pa.array(order)).combine_chunks()
    starts = [0, *ends[:-1].tolist()]
    slices = [table.slice(start, end - start) for start, end in zip(starts, ends.tolist(), strict=True)]
    digests = json.dumps([_digest_of_rows(rows.drop_columns([ROW])) for rows in slices])
    schema = table.schema.with_metadata({_DIGESTS_KEY: digests})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for rows in slices:
            batches = rows.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
            writer.write_batch(batches[0])
    store.write(INPUTS_FILE, sink.getvalue())


def _digest_of_rows(rows: Any) -> str:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    compact = rows.take(pa.array(range(len(rows)), pa.int64()))  # without the offsets of a slice
    compact = compact.replace_schema_metadata(None)
    with pa.ipc.new_stream(sink, compact.schema) as writer:
        writer.write_table(compact.combine_chunks())
    return hashlib.blake2b(sink.getvalue(), digest_size=16).hexdigest()


def _digest_of(content: object) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _earlier_count(store: Store) -> int:
    """Return the number of shards of the job that exists, or 0."""
    try:
        return int(json.loads(store.read(JOB_FILE))["shards"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0
