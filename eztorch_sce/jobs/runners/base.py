"""The interface of runners: where the shards of a job are worked on."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eztorch_sce.settings import Settings, setting

if TYPE_CHECKING:
    from eztorch_sce.jobs.job import Job
    from eztorch_sce.jobs.work import Advance, Work


class Runner(ABC):
    """Works on shards, on this machine or on others.

    Attributes:
        is_local: Whether the work is done in this process, which may then hold objects that no settings describe.
    """

    is_local: bool = False

    @abstractmethod
    def check(self, job_folder: str, num_workers: int | None) -> None:
        """Raise ConfigError unless the machines can be reached and have this version of the package, before work."""

    @abstractmethod
    def run(
        self, job: "Job", work: "Work", shards: Sequence[int], num_workers: int | None, advance: "Advance"
    ) -> dict[int, str]:
        """Work on shards, and return when each has a receipt or has failed.

        A runner of other machines starts its tasks, which call `worker.work_on`, and leaves the waiting to
        `watching.watch_receipts`. Whatever ends the waiting, such as `Stopped`, the runner ends its tasks.

        Args:
            job: The job.
            work: What to do.
            shards: Numbers of the shards.
            num_workers: Worker processes per machine; None starts one per core that the worker may use.
            advance: To be called with the number of records that are done since the last call, and with that of
                failures.

        Returns:
            Reason by number of each shard that failed, which names the machine. The job tries these shards again.
        """

    def close(self) -> None:  # noqa: B027  # most runners hold nothing
        """Release what `check` has acquired, such as the connection to a cluster."""

    def describe(self, job_folder: str, num_shards: int) -> list[str]:
        """Return lines that tell what `run` would start, such as a job script, for `--dry-run`."""
        return []


@dataclass
class RunnerConfig(Settings, ABC):
    """Settings of all runners."""

    RESUMABLE = True

    shard_records: int = setting(
        2000,
        at_least=1,
        help="Records per shard, the unit of work: what is done again after an interruption. A job that exists keeps "
        "its number of shards until they would be four times as large.",
    )

    @abstractmethod
    def build(self) -> Any:
        """Return the `Runner`."""
