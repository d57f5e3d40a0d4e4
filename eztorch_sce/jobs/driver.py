"""The course of a job: find what is not done, work on it by a runner, try again what failed, merge."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager

from eztorch_sce import signals
from eztorch_sce.errors import ConfigError, counted, first_messages, shorten
from eztorch_sce.jobs.job import DAMAGED, JOB_FILE, Job
from eztorch_sce.jobs.leftovers import remove_leftovers
from eztorch_sce.jobs.merge import Merged, UnprovenError, merge
from eztorch_sce.jobs.runners.base import Runner
from eztorch_sce.jobs.store import Store
from eztorch_sce.jobs.work import Advance, Work
from eztorch_sce.progress import counting, print_above

_NUM_TRIES = 3
_SILENT = "(its worker died without a message, as when the system kills it for lack of memory)"


def run_job(job: Job, work: Work, runner: Runner, num_workers: int | None) -> Merged:
    """Finish a job, see `finish_job`, and return the merged outputs. Damaged outputs are computed again.

    Raises:
        ConfigError: As `finish_job`, or if the outputs do not prove complete after several tries.
        Stopped: If a signal asks the command to end; what is done stays.
    """
    with job.held():
        for _ in range(_NUM_TRIES - 1):
            finish_job(job, work, runner, num_workers)
            try:
                return _merged(job)
            except UnprovenError as error:
                for problem in error.problems:
                    print_above(f"done again: {problem.rpartition(';')[0]}")
        finish_job(job, work, runner, num_workers)
        return _merged(job)


def finish_job(job: Job, work: Work, runner: Runner, num_workers: int | None) -> None:
    """Finish all shards of a job that have no valid receipt, while no other process works on the job.

    Args:
        job: The job.
        work: What to do.
        runner: Where to do it.
        num_workers: Worker processes per machine; None starts one per core.

    Raises:
        ConfigError: If another process works on the job, the runner cannot start, or shards have failed several times.
        Stopped: If a signal asks the command to end; what is done stays.
    """
    signals.keep(lambda: "finished shards are kept")
    with job.held(), closing(runner):
        pending = _pending(job)
        if pending:
            runner.check(job.store.folder, num_workers)
            remove_leftovers(job)
        reasons: dict[int, str] = {}
        for number in range(_NUM_TRIES):
            if not pending:
                return
            if number:
                words = f"{counted(len(pending), 'shard')} failed and will be tried again"
                print_above(f"{words}: {_first_of(reasons, pending)}")
            with _shown(job, pending) as advance:
                reasons = runner.run(job, work, pending, num_workers, advance)
            job.confirm_lock()
            pending = job.pending()
        if pending:
            raise ConfigError(_describe_failed(reasons, pending))


def _merged(job: Job) -> Merged:
    merged = merge(job)
    remove_leftovers(job)
    return merged


def _pending(job: Job) -> list[int]:
    """Return the shards to work on, and say what is done, and what is done again for another reason than its files."""
    _, reasons = job.state()
    num_done = job.num_records - sum(job.num_inputs(number) - job.num_unchanged(number) for number in reasons)
    if num_done:
        print_above(f"{num_done} of {job.num_records} records are done and unchanged")
    damaged = [str(number) for number, reason in reasons.items() if reason in DAMAGED]
    if damaged:
        print_above(f"done again, since files of {job.store.folder} are missing or damaged: shard {shorten(damaged)}")
    return list(reasons)


def check_new_job(folder: str, runner: Runner, num_workers: int | None) -> None:
    """Raise ConfigError if a runner cannot start, before anything is written into the folder of a new job."""
    if JOB_FILE not in Store(folder).names(""):
        runner.check(folder, num_workers)


def rehearse_job(job: Job, runner: Runner, lost: Iterable[bytes] = ()) -> list[str]:
    """Return lines that tell what `run_job` would do, without writing or starting anything.

    Args:
        job: The job, planned.
        runner: Where it would be done.
        lost: Keys of records whose results are gone, so that their shards are done again.
    """
    pending = sorted({*job.pending(), *job.shards_of(lost)})
    num_records = sum(map(job.num_inputs, pending))
    lines = [f"{len(pending)} of {job.count} shards to do, with {num_records} of {job.num_records} records"]
    return [*lines, *(runner.describe(job.store.folder, len(pending)) if pending else [])]


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
    """Return a message per reason for which shards failed each time."""
    alike: dict[str, list[str]] = {}
    for number in shards:
        alike.setdefault(reasons.get(number, _SILENT), []).append(str(number))
    cure = "fix the cause and run the same command again; finished shards are kept"
    return first_messages(
        [
            f"shard{'s' * (len(numbers) > 1)} {shorten(numbers)} failed {_NUM_TRIES} times, at last {reason}; {cure}"
            for reason, numbers in alike.items()
        ]
    )
