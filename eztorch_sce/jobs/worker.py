"""The work on some shards of a job, in any process on any machine that sees its folder."""

import importlib
import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eztorch_sce.errors import describe_disk, first_line
from eztorch_sce.jobs.job import ROW, Job
from eztorch_sce.jobs.receipts import Receipt
from eztorch_sce.jobs.work import Advance, Output, Shard, Work

_MOST_ERRORS = 3  # in a row, as when the disk is full; further shards would only be computed in vain


def work_on(job_folder: str, shards: Sequence[int], num_workers: int | None) -> dict[int, str]:
    """Finish shards of the job in a folder: what a task of a cluster calls.

    Returns:
        Machine and reason, by number, of each shard that failed because of files, such as a full disk.

    Raises:
        ConfigError: If the job was started by another version of this package, or its settings cannot be used here.
    """
    try:
        job = Job.open(job_folder)
    except OSError as error:
        return dict.fromkeys(shards, _describe(error, job_folder))
    return finish_shards(job, load_work(job), shards, num_workers, lambda num_records, num_failures=0: None)


def load_work(job: Job) -> Work:
    """Return the work of a job, from its settings."""
    module, _, name = job.work.partition(":")
    work_class: type[Work] = getattr(importlib.import_module(module), name)
    return work_class.load(job.settings)


def finish_shards(
    job: Job, work: Work, shards: Sequence[int], num_workers: int | None, advance: Advance
) -> dict[int, str]:
    """Write output and receipt of each shard as it completes.

    A shard whose files cannot be read or written fails, and the others go on, unless several fail one after the other.

    Args:
        job: The job.
        work: What to do.
        shards: Numbers of the shards.
        num_workers: Worker processes; None starts one per core.
        advance: Called with the number of records that are done since the last call, and with that of failures.

    Returns:
        Machine and reason, by number, of each shard that failed.
    """
    writer = _Writer(job, work, num_workers, advance)
    waiting = deque(shards)
    while waiting and writer.num_errors < _MOST_ERRORS:
        writer.finish(waiting)
    if waiting:
        reason = f"not tried after {_MOST_ERRORS} errors in a row, the last one {writer.reason}"
        writer.failed |= dict.fromkeys(waiting, reason)
    return writer.failed


class _Writer:
    """Writes what a work yields.

    Attributes:
        failed: Reason by number of each shard that failed.
        num_errors: Errors since the last shard that was written.
        reason: The last error in words.
    """

    def __init__(self, job: Job, work: Work, num_workers: int | None, advance: Advance) -> None:
        self.job, self.work, self.num_workers, self.advance = job, work, num_workers, advance
        self.failed: dict[int, str] = {}
        self.num_errors, self.reason = 0, ""
        self.kept: dict[int, Any] = {}  # rows of unchanged records, by shard
        self.started = time.perf_counter()

    def finish(self, waiting: deque[int]) -> None:
        """Work on shards until all are done, or files cannot be read; remove from `waiting` those that were begun."""
        begun: set[int] = set()

        def shards() -> Iterator[Shard]:
            while waiting and self.num_errors < _MOST_ERRORS:
                number = waiting.popleft()
                begun.add(number)
                yield self.changed(self.job.shard(number))

        try:
            for output in self.work.process(shards(), self.num_workers, self.advance):
                begun.remove(output.number)
                self.write(self.completed(output))
        except OSError as error:
            self.note(error, sorted(begun))
        else:
            assert not begun, f"{self.job.work} yielded no output for shards {sorted(begun)}"

    def changed(self, shard: Shard) -> Shard:
        """Return a shard without the records whose rows are kept."""
        kept = self.job.unchanged(shard.number) if self.work.keeps_rows else None
        if kept is None:
            return shard
        self.kept[shard.number] = kept
        self.advance(len(kept))
        return Shard(shard.number, _without(shard.rows, kept))

    def completed(self, output: Output) -> Output:
        """Return an output with the rows that are kept."""
        if not self.work.keeps_rows:
            return output
        return _with_kept(output, self.job.shard(output.number).rows, self.kept.pop(output.number, None))

    def write(self, output: Output) -> None:
        """Write the output and the receipt of a shard."""
        receipt = Receipt(
            shard=output.number,
            inputs=self.job.digest(output.number),
            settings=self.job.settings_digest,
            version=self.job.version,
            num_inputs=self.job.num_inputs(output.number),
            num_outputs=len(output.table),
            output="",
            failures=output.failures,
            host=f"{socket.gethostname()}:{os.getpid()}",
            seconds=time.perf_counter() - self.started,
            finished=time.time(),
        )
        self.started = time.perf_counter()
        try:
            self.job.save(output, receipt)
        except OSError as error:
            self.note(error, [output.number])
        else:
            self.num_errors = 0
            self.advance(0, len(output.failures))

    def note(self, error: OSError, shards: list[int]) -> None:
        """Note an error that made shards fail."""
        self.num_errors += 1
        self.reason = _describe(error, self.job.store.folder)
        self.failed |= dict.fromkeys(shards, self.reason)


def _describe(error: OSError, job_folder: str) -> str:
    """Return the machine and what is wrong with its files."""
    words = describe_disk(error, Path(job_folder)) or first_line(error)
    return f"on {socket.gethostname()}: {words}"


def _without(rows: Any, kept: Any) -> Any:
    """Return the records that have no row yet."""
    import pyarrow.compute as pc

    return rows.filter(pc.invert(pc.is_in(rows["key"], value_set=kept["key"])))


def _with_kept(output: Output, rows: Any, kept: Any) -> Output:
    """Return an output with the columns of its records, and with the rows that were kept, in the order of the shard."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = output.table
    place = pc.index_in(table["key"], value_set=rows["key"])
    for name in rows.column_names:
        if name not in (*table.column_names, ROW):
            table = table.append_column(name, rows[name].take(place))
    if kept is not None:
        table = pa.concat_tables([kept.select(table.column_names), table])
        table = table.take(pc.sort_indices(pc.index_in(table["key"], value_set=rows["key"])))
    return output._replace(table=table)
