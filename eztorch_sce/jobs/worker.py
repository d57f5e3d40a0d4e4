"""The work on some shards of a job, in any process on any machine that sees its folder."""

import importlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from eztorch_sce.jobs.job import ROW, Job
from eztorch_sce.jobs.receipts import Receipt
from eztorch_sce.jobs.work import Output, Shard, Work


def work_on(job_folder: str, shards: Sequence[int], num_workers: int | None) -> None:
    """Finish shards of the job in a folder: what a task of a cluster calls.

    Raises:
        ConfigError: If the job was started by another version of this package, or its settings cannot be used here.
        OSError: If an output cannot be written.
    """
    job = Job.open(job_folder)
    finish_shards(job, load_work(job), shards, num_workers, lambda count: None)


def load_work(job: Job) -> Work:
    """Return the work of a job, from its settings."""
    module, _, name = job.work.partition(":")
    work_class: type[Work] = getattr(importlib.import_module(module), name)
    return work_class.load(job.settings)


def finish_shards(
    job: Job, work: Work, shards: Sequence[int], num_workers: int | None, advance: Callable[[int], None]
) -> None:
    """Write output and receipt of each shard as it completes.

    Args:
        job: The job.
        work: What to do.
        shards: Numbers of the shards.
        num_workers: Worker processes; None starts one per core.
        advance: Called with the number of records that are done since the last call.
    """
    started = time.perf_counter()
    digests: dict[int, str] = {}
    kept: dict[int, Any] = {}

    def rows() -> Iterator[Shard]:
        for number in shards:
            shard = job.shard(number)
            digests[number] = job.digest(number)
            kept[number] = job.unchanged(number) if work.keeps_rows else None
            yield shard if kept[number] is None else Shard(number, _without(shard.rows, kept[number]))

    for output in work.process(rows(), num_workers, advance):
        if work.keeps_rows:
            output = _with_kept(output, job.shard(output.number).rows, kept.pop(output.number))
        receipt = Receipt(
            shard=output.number,
            inputs=digests[output.number],
            settings=job.settings_digest,
            version=job.version,
            num_inputs=job.num_inputs(output.number),
            num_outputs=len(output.table),
            output="",
            failures=output.failures,
            host=f"{socket.gethostname()}:{os.getpid()}",
            seconds=time.perf_counter() - started,
            finished=time.time(),
        )
        job.save(output, receipt)
        started = time.perf_counter()


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
