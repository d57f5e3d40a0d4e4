"""A job on files: its records in shards, its settings, and the outputs and receipts of the shards, in one folder.

job.json          command, settings, version, number of shards
inputs.arrow      a batch of records per shard
outputs/          an Arrow file per finished shard, named by its content
receipts/         a receipt per finished shard, which names its output
"""

import hashlib
import json
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from eztorch_sce.errors import ConfigError, describe_disk
from eztorch_sce.jobs.locking import JobLock, lock_job
from eztorch_sce.jobs.receipts import FOLDER as RECEIPTS
from eztorch_sce.jobs.receipts import Receipt, digest_of, name_of, read_receipt, read_receipts, write_receipt
from eztorch_sce.jobs.sharding import hash_of, num_shards, shard_of
from eztorch_sce.jobs.store import Store
from eztorch_sce.jobs.work import LOADING, Output, Shard, Work

JOB_FILE = "job.json"
INPUTS_FILE = "inputs.arrow"
OUTPUTS = "outputs"
ROW = "row"
"""Column of the inputs: position of the record in the data set, which changes when others are added."""
_DIGESTS_KEY = b"eztorch_sce.digests"
_SIZES_KEY = b"eztorch_sce.sizes"
NOT_DONE = "not done"
DAMAGED = ("receipt damaged", "output missing")
"""Why a shard has no valid receipt, though it has been done."""
_MOST_GROWTH = 4  # of the records of a shard, before a job is divided anew, so that many machines have work
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

    def __init__(
        self, store: Store, description: dict[str, Any], lock: JobLock | None = None, inputs: Any = None
    ) -> None:
        self.store = store
        self.command: str = description["command"]
        self.work: str = description["work"]
        self.settings: dict[str, Any] = description["settings"]
        self.version: str = description["version"]
        self.count: int = description["shards"]
        deciding = {name: value for name, value in self.settings.items() if name != LOADING}
        self.settings_digest = digest_of([self.command, deciding])
        import pyarrow as pa

        self._inputs = pa.ipc.open_file(store.open(INPUTS_FILE) if inputs is None else pa.BufferReader(inputs))
        self._digests: list[str] = json.loads(self._inputs.schema.metadata[_DIGESTS_KEY])
        self._sizes: list[int] = json.loads(self._inputs.schema.metadata[_SIZES_KEY])
        self._num_holds = 0
        self._lock: JobLock | None = None
        self._keep(lock)

    @classmethod
    def create(cls, folder: str | os.PathLike[str], work: Work, records: Any, per_shard: int) -> "Job":
        """Write the description of a job, or that of a job that exists anew, and return it.

        A job that exists keeps its number of shards, and with it the receipts of shards whose records are the same,
        until its shards would hold four times `per_shard` records: then it is divided anew, and all is done again.
        The job is locked until its work is finished, or this object is gone.

        Args:
            folder: Folder of the job.
            work: What to do.
            records: Arrow table of all records in their order, with a unique `key` (large_binary) each, and whatever
                columns the work needs; each column decides whether a receipt is valid.
            per_shard: Records per shard of a new job.

        Raises:
            ConfigError: If another process works on the job, or its folder cannot be written.
        """
        store = Store(folder)
        lock = lock_job(store)
        try:
            description, inputs = _described(store, work, records, per_shard)
            store.write(INPUTS_FILE, inputs)
            store.write(JOB_FILE, (json.dumps(description, indent=2) + "\n").encode())
            return cls(store, description, lock)
        except BaseException as error:
            lock.release()
            if isinstance(error, OSError) and (words := describe_disk(error, store.path)):
                raise ConfigError([words]) from error
            raise

    @classmethod
    def planned(cls, folder: str | os.PathLike[str], work: Work, records: Any, per_shard: int) -> "Job":
        """Return the job that `create` would write, without writing or locking anything: for `--dry-run`."""
        store = Store(folder)
        description, inputs = _described(store, work, records, per_shard)
        return cls(store, description, inputs=inputs)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Job":
        """Return the job in a folder, for a worker.

        Raises:
            ConfigError: If there is none, or another version of this package has started it.
        """
        job = cls.read(folder)
        if job.version != version():
            cure = "install the same version on all machines"
            raise ConfigError([f"the job was started by eztorch_sce {job.version}, and this is {version()}: {cure}"])
        return job

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "Job":
        """Return the job in a folder, whichever version has started it, to look at it.

        Raises:
            ConfigError: If there is none.
        """
        store = Store(folder)
        try:
            return cls(store, json.loads(store.read(JOB_FILE)))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            raise ConfigError([f"{folder} is not the folder of a job: it has no {JOB_FILE}"]) from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock of the job until the outermost such block ends.

        Raises:
            ConfigError: If another process works on the job.
        """
        if self._lock is None:
            self._keep(lock_job(self.store))
        self._num_holds += 1
        try:
            yield
        finally:
            self._num_holds -= 1
            if not self._num_holds and self._lock is not None:
                self._lock.release()
                self._lock = None

    def confirm_lock(self) -> None:
        """Raise ConfigError if another process has taken the lock, as after a long pause of this one."""
        if self._lock is not None:
            self._lock.confirm()

    def _keep(self, lock: JobLock | None) -> None:
        self._lock = lock
        if lock is not None:
            weakref.finalize(self, lock.release)

    @property
    def num_records(self) -> int:
        """Number of records of all shards."""
        return sum(self._sizes)

    def shard(self, number: int) -> Shard:
        """Return the records of a shard."""
        import pyarrow as pa

        return Shard(number, pa.Table.from_batches([self._inputs.get_batch(number)]))

    def num_inputs(self, number: int) -> int:
        """Return the number of records of a shard."""
        return self._sizes[number]

    def digest(self, number: int) -> str:
        """Return the digest of the records of a shard."""
        return self._digests[number]

    def is_valid(self, receipt: Receipt) -> bool:
        """Return whether a receipt is one of the present records, settings and version."""
        return not self._staleness(receipt)

    def _staleness(self, receipt: Receipt) -> str:
        """Return in what a receipt differs from the job; empty if it is valid."""
        if receipt.shard >= self.count:
            return f"beyond the {self.count} shards of the job"
        differences = {
            "records changed": receipt.inputs != self.digest(receipt.shard),
            "settings differ": receipt.settings != self.settings_digest,
            f"done by eztorch_sce {receipt.version}": receipt.version != self.version,
        }
        return " and ".join(words for words, differs in differences.items() if differs)

    def receipts(self) -> dict[int, Receipt]:
        """Return the valid receipts whose outputs exist, by shard."""
        return self.state()[0]

    def pending(self) -> list[int]:
        """Return the shards that have no valid receipt, ascending."""
        return list(self.state()[1])

    def state(self) -> tuple[dict[int, Receipt], dict[int, str]]:
        """Return the valid receipts whose outputs exist, by shard, and why each of the other shards has none."""
        names = self.store.names(RECEIPTS)
        outputs, receipts = set(self.store.names(OUTPUTS)), read_receipts(self.store)
        done: dict[int, Receipt] = {}
        reasons: dict[int, str] = {}
        written = {name_of(number).partition("/")[2]: number for number in range(self.count)}
        damaged = {written[name] for name in names if name in written} - receipts.keys()
        for number in range(self.count):
            receipt = receipts.get(number)
            if receipt is None:
                reasons[number] = DAMAGED[0] if number in damaged else NOT_DONE
            elif words := self._staleness(receipt):
                reasons[number] = words
            elif receipt.output not in outputs:
                reasons[number] = DAMAGED[1]
            else:
                done[number] = receipt
        return done, reasons

    def not_done(self, shards: Sequence[int]) -> list[int]:
        """Return those of some shards that have no valid receipt, reading no receipts of others."""
        outputs = set(self.store.names(OUTPUTS))
        receipts = [read_receipt(self.store, number) for number in shards]
        return [
            number
            for number, receipt in zip(shards, receipts, strict=True)
            if receipt is None or not self.is_valid(receipt) or receipt.output not in outputs
        ]

    def discard(self, number: int) -> None:
        """Remove the receipt of a shard, which is then done again."""
        self.store.remove(name_of(number))

    def discard_shards_of(self, keys: Iterable[bytes]) -> None:
        """Remove the receipts of the shards of records whose results are gone."""
        for number in self.shards_of(keys):
            self.discard(number)

    def shards_of(self, keys: Iterable[bytes]) -> list[int]:
        """Return the shards of some records, ascending."""
        return sorted({shard_of(key, self.count) for key in keys})

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


def _described(store: Store, work: Work, records: Any, per_shard: int) -> tuple[dict[str, Any], Any]:
    """Return the description of a job and the file of its records."""
    count = _earlier_count(store)
    if not count or len(records) > _MOST_GROWTH * count * per_shard:
        count = num_shards(len(records), per_shard)
    description = {
        "command": work.command,
        "work": f"{type(work).__module__}:{type(work).__qualname__}",
        "settings": work.settings(),
        "version": version(),
        "shards": count,
        "records": len(records),
    }
    return description, _inputs_of(records, count)


def _inputs_of(records: Any, count: int) -> Any:
    """Return a file of the records as a batch per shard, in their order, with the digest of each shard."""
    import numpy as np
    import pyarrow as pa

    hashes = _hashes(records["key"])
    of_record = (hashes % np.uint64(count)).astype(np.int64)
    order = np.argsort(of_record, kind="stable")
    ends = np.searchsorted(of_record[order], np.arange(count), side="right")
    table = records.append_column(ROW, pa.array(np.arange(len(records)))).take(pa.array(order)).combine_chunks()
    starts = [0, *ends[:-1].tolist()]
    slices = [table.slice(start, end - start) for start, end in zip(starts, ends.tolist(), strict=True)]
    digests = [_digest_of_rows(rows.drop_columns([ROW])) for rows in slices]
    metadata = {_DIGESTS_KEY: json.dumps(digests), _SIZES_KEY: json.dumps([len(rows) for rows in slices])}
    schema = table.schema.with_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for rows in slices:
            batches = rows.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
            writer.write_batch(batches[0])
    return sink.getvalue()


def _hashes(keys: Any) -> Any:
    """Return the hash of each key, uint64 (N,), after checking that no key is there twice."""
    import numpy as np

    hashes = np.empty(len(keys), np.uint64)
    start = 0
    for chunk in keys.chunks:
        hashes[start : start + len(chunk)] = np.fromiter(map(hash_of, chunk.to_pylist()), np.uint64, len(chunk))
        start += len(chunk)
    ranked = np.argsort(hashes)
    twice = ranked[1:][hashes[ranked[1:]] == hashes[ranked[:-1]]]
    if len(twice):
        same = keys.filter(np.isin(hashes, hashes[twice])).to_pylist()
        if len(set(same)) != len(same):
            raise AssertionError(f"records of a job need unique keys; {max(same, key=same.count)!r} is there twice")
    return hashes


def _digest_of_rows(rows: Any) -> str:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    compact = rows.take(pa.array(range(len(rows)), pa.int64()))  # without the offsets of a slice
    compact = compact.replace_schema_metadata(None)
    with pa.ipc.new_stream(sink, compact.schema) as writer:
        writer.write_table(compact.combine_chunks())
    return hashlib.blake2b(sink.getvalue(), digest_size=16).hexdigest()


def _earlier_count(store: Store) -> int:
    """Return the number of shards of the job that exists, or 0."""
    try:
        return int(json.loads(store.read(JOB_FILE))["shards"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0
