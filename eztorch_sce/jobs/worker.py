"""The work on some shards of a job, in any process on any machine that sees its folder."""

import importlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.receipts import Receipt
from eztorch_sce.jobs.work import Shard, Work


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

    def rows() -> Iterator[Shard]:
        for number in shards:
            shard = job.shard(number)
            digests[number] = job.digest(number)
            yield shard

    for output in work.process(rows(), num_workers, advance):
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
