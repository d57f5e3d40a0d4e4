"""The work on shards by the processes of this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eztorch_sce.jobs.runners.base import Runner, RunnerConfig
from eztorch_sce.registry import register

if TYPE_CHECKING:
    from eztorch_sce.jobs.job import Job
    from eztorch_sce.jobs.work import Advance, Work


class LocalRunner(Runner):
    """Works on all shards in this process and its worker processes."""

    is_local = True

    def check(self, job_folder: str, num_workers: int | None) -> None:
        """Check nothing: this process is the machine."""

    def run(
        self, job: "Job", work: "Work", shards: Sequence[int], num_workers: int | None, advance: "Advance"
    ) -> dict[int, str]:
        """See `Runner.run`."""
        from eztorch_sce.jobs.worker import finish_shards

        return finish_shards(job, work, shards, num_workers, advance)

    def describe(self, job_folder: str, num_shards: int) -> list[str]:
        """See `Runner.describe`."""
        return ["runner=local: the processes of this machine"]


@register("runner", "local")
@dataclass
class LocalConfig(RunnerConfig):
    """Processes of this machine."""

    def build(self) -> LocalRunner:
        """Return the runner."""
        return LocalRunner()
