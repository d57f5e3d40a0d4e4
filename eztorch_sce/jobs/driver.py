"""The course of a job: find what is not done, work on it by a runner, try again what failed, merge."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from eztorch_sce import signals
from eztorch_sce.errors import ConfigError, counted, first_messages
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.merge import Merged, merge
from eztorch_sce.jobs.runners.base import Runner
from eztorch_sce.jobs.work import Advance, Work
from eztorch_sce.progress import counting, print_above

_NUM_TRIES = 3
_SILENT = "(its worker died without a message, as when the system kills it for lack of memory)"


def run_job(job: Job, work: Work, runner: Runner, num_workers: int | None) -> Merged:
    """Finish a job, see `finish_job`, and return the merged outputs."""
    finish_job(job, work, runner, num_workers)
    return merge(job)


def finish_job(job: Job, work: Work, runner: Runner, num_workers: int | None) -> None:
    """Finish all shards of a job that have no valid receipt.

    Args:
        job: The job.
        work: What to do.
        runner: Where to do it.
        num_workers: Worker processes per machine; None starts one per core.

    Raises:
        ConfigError: If the runner cannot start, or shards have failed several times.
        Stopped: If a signal asks the command to end; what is done stays.
    """
    signals.keep(lambda: "finished shards are kept")
    pending = job.pending()
    num_done = job.num_records - sum(job.num_inputs(number) - job.num_unchanged(number) for number in pending)
    if num_done:
        print_above(f"{num_done} of {job.num_records} records are done and unchanged")
    if pending:
        runner.check(job.store.folder, num_workers)
    reasons: dict[int, str] = {}
    for number in range(_NUM_TRIES):
        if not pending:
            break
        if number:
            print_above(
                f"{counted(len(pending), 'shard')} failed and will be tried again: {_first_of(reasons, pending)}"
            )
        with _shown(job, pending) as advance:
            reasons = runner.run(job, work, pending, num_workers, advance)
        pending = job.pending()
    if pending:
        raise ConfigError(_describe_failed(reasons, pending))


@contextmanager
def _shown(job: Job, pending: Sequence[int]) -> Iterator[Advance]:
    """Yield the function that shows the progress of the whole job as one line."""
    num_failed = sum(len(receipt.failures) for receipt in job.receipts().values())
    num_done = job.num_records - sum(job.num_inputs(number) for number in pending)
    with counting(job.num_records, job.command, num_done, "records") as show:

        def advance(num_records: int, num_failures: int = 0) -> None:
            nonlocal num_failed
            num_failed += num_failures
            show(f"{num_failed} failed" if num_failed else "", num_records)

        yield advance


def _first_of(reasons: dict[int, str], shards: Sequence[int]) -> str:
    """Return why the first of these shards failed."""
    return f"shard {shards[0]} {reasons.get(shards[0], _SILENT)}"


def _describe_failed(reasons: dict[int, str], shards: Sequence[int]) -> list[str]:
    """Return a message per shard that failed each time."""
    cure = "fix the cause and run the same command again; finished shards are kept"
    return first_messages(
        [
            f"shard {number} failed {_NUM_TRIES} times, at last {reasons.get(number, _SILENT)}; {cure}"
            for number in shards
        ]
    )
