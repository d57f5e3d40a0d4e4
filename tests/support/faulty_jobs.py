"""Jobs whose workers fail: one dies of a record, one has a full disk. Workers of clusters import them by name.

As a program, it works on the job of a folder: python faulty_jobs.py JOB ADDRESS
"""

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from toy_job import CountLetters

from eztorch_sce.jobs.work import Output, Shard


class DiesOfX(CountLetters):
    """Kills its process, as the system does for lack of memory, when a file has the letter x."""

    def process(
        self, shards: Iterable[Shard], num_workers: int | None, advance: Callable[[int], None]
    ) -> Iterator[Output]:
        for shard in shards:
            if any("x" in Path(os.fsdecode(key)).read_text() for key in shard.rows["key"].to_pylist()):
                os.kill(os.getpid(), signal.SIGKILL)
            yield from super().process([shard], num_workers, advance)


class FullDisk(CountLetters):
    """Leaves room for a few bytes per file when an output is written on a node whose environment has FULL_DISK."""

    def process(
        self, shards: Iterable[Shard], num_workers: int | None, advance: Callable[[int], None]
    ) -> Iterator[Output]:
        for output in super().process(shards, num_workers, advance):
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            if "FULL_DISK" in os.environ:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
            try:
                yield output
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)


if __name__ == "__main__":
    from eztorch_sce import signals
    from eztorch_sce.jobs.driver import run_job
    from eztorch_sce.jobs.job import Job
    from eztorch_sce.jobs.runners.ray import RayConfig
    from eztorch_sce.jobs.worker import load_work

    with signals.watched():
        job = Job.open(sys.argv[1])
        run_job(job, load_work(job), RayConfig(address=sys.argv[2]).build(), None)
