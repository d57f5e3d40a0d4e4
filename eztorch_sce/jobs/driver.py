"""The course of a job: find what is not done, work on it by a runner, try again what failed, merge."""

from eztorch_sce.errors import ConfigError, first_messages
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.merge import Merged, merge
from eztorch_sce.jobs.runners.base import Runner
from eztorch_sce.jobs.work import Work
from eztorch_sce.progress import print_above

_NUM_TRIES = 3


def run_job(job: Job, work: Work, runner: Runner, num_workers: int | None) -> Merged:
    """Finish all shards of a job that have no valid receipt, and return the merged outputs.

    Args:
        job: The job.
        work: What to do.
        runner: Where to do it.
        num_workers: Worker processes per machine; None starts one per core.

    Raises:
        ConfigError: If the runner cannot start, shards have failed several times, or the outputs do not prove complete.
        Stopped: If a signal asks the command to end; what is done stays.
    """
    pending = job.pending()
    num_done = job.num_records - sum(job.num_inputs(number) - job.num_unchanged(number) for number in pending)
    if num_done:
        print_above(f"{num_done} of {job.num_records} records are done and unchanged")
    if pending:
        runner.check(job.store.folder, num_workers)
    errors: dict[int, str] = {}
    for _ in range(_NUM_TRIES):
        if not pending:
            break
        errors = runner.run(job, work, pending, num_workers, lambda count: None)
        pending = job.pending()
    if pending:
        messages = [f"shard {number}: {errors.get(number, 'no receipt')}" for number in pending]
        raise ConfigError(first_messages(messages))
    return merge(job)
