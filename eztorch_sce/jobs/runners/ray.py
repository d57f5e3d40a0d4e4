"""The work on shards by actors on a Ray cluster, through Ray Data."""

import os
import re
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eztorch_sce.errors import EXPLAINED, first_line
from eztorch_sce.jobs.runners.base import Runner, RunnerConfig
from eztorch_sce.registry import register
from eztorch_sce.settings import setting

if TYPE_CHECKING:
    from eztorch_sce.jobs.job import Job
    from eztorch_sce.jobs.runners.ray_cluster import Needs
    from eztorch_sce.jobs.work import Advance, Work

_ADDRESS = r"auto|(ray://)?[^\s/:]+:\d+|(ray://)?\[[0-9a-fA-F:.]+\]:\d+"
_MOST_TRIES = 3  # of a shard whose worker dies


class RayRunner(Runner):
    """Works on shards by actors, each of which loads the work once and finishes one shard at a time.

    Outputs and receipts are written by the actors; only numbers and reasons travel. Ray restarts actors that die, on
    another node if theirs is gone, and gives them their shard again.

    Args:
        config: The settings.
    """

    def __init__(self, config: "RayConfig") -> None:
        self._config = config
        self._is_connected = False

    def check(self, job_folder: str, num_workers: int | None) -> None:
        """See `Runner.check`. Starts the cluster if `address` names none."""
        from eztorch_sce.jobs.runners import ray_cluster

        address = self._config.address or os.environ.get("RAY_ADDRESS")
        self._is_connected = ray_cluster.connect(address)
        nodes = ray_cluster.find_nodes(self._needs())
        if address is not None or not self._is_connected:
            ray_cluster.check_nodes(nodes, job_folder)

    def run(
        self, job: "Job", work: "Work", shards: Sequence[int], num_workers: int | None, advance: "Advance"
    ) -> dict[int, str]:
        """See `Runner.run`."""
        import ray

        from eztorch_sce.jobs.watching import watch_receipts

        actor: Any = ray.remote(Tries)
        tries = actor.options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        arguments = (job.store.folder, num_workers or self._config.cpus_per_worker, tries)
        execution = _Execution(self._results(shards, arguments))
        execution.start()
        try:
            watch_receipts(job, shards, advance, execution.is_alive)
        finally:
            ray.kill(tries)  # without it, workers refuse the shards that they have not begun
        execution.join()
        return execution.reasons(shards)

    def _results(self, shards: Sequence[int], arguments: tuple[Any, ...]) -> Any:
        """Return the Ray data set of the results, whose rows are computed as they are read."""
        from eztorch_sce.jobs.runners import ray_cluster

        needs = self._needs()
        most = min(len(shards), self._config.max_workers or len(shards))
        present = sum(needs.count(node["Resources"]) for node in ray_cluster.find_nodes(needs))
        least = min(most, max(self._config.min_workers, present))
        return ray_cluster.results(shards, RayWorker, arguments, needs, (least, most))

    def _needs(self) -> "Needs":
        from eztorch_sce.jobs.runners.ray_cluster import Needs

        config = self._config
        return Needs(config.cpus_per_worker, config.gpus_per_worker, config.memory_gb)

    def close(self) -> None:
        """Leave the cluster, which ends the actors, or end the cluster that `check` has started."""
        if self._is_connected:
            import ray

            self._is_connected = False
            ray.shutdown()


class _Execution(threading.Thread):
    """Reads the results while the main thread looks for receipts and signals."""

    def __init__(self, results: Any) -> None:
        super().__init__(name="ray results", daemon=True)
        self._results = results
        self._reasons: dict[int, str] = {}
        self._error = ""

    def run(self) -> None:
        try:
            for row in self._results.iter_rows():
                if row["reason"]:
                    self._reasons[int(row["shard"])] = row["reason"]
        except Exception as error:
            self._error = f"because Ray stopped: {str(error).strip().splitlines()[-1]}"

    def reasons(self, shards: Sequence[int]) -> dict[int, str]:
        """Return the reason of each shard that has one."""
        others = dict.fromkeys(shards, self._error) if self._error else {}
        return others | self._reasons


class Tries:
    """An actor that counts how often each shard was begun: Ray itself would try for ever."""

    def __init__(self) -> None:
        self._places: dict[int, list[str]] = {}

    def begin(self, shard: int, place: str) -> list[str]:
        """Return where a shard was begun before, and note that it begins at `place`."""
        places = self._places.setdefault(shard, [])
        places.append(place)
        return places[:-1]


class RayWorker:
    """An actor that finishes one shard at a time.

    Args:
        job_folder: Folder of the job.
        num_workers: Worker processes.
        tries: Handle of `Tries`.
    """

    def __init__(self, job_folder: str, num_workers: int, tries: Any) -> None:
        from eztorch_sce.jobs.job import Job
        from eztorch_sce.jobs.worker import load_work

        self._job = Job.open(job_folder)
        self._work = load_work(self._job)
        self._num_workers, self._tries = num_workers, tries

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Finish the shard of a batch of one row, and return its number and the reason if it failed."""
        shard = int(batch["shard"][0])
        return {"shard": [shard], "reason": [self._finish(shard)]}

    def _finish(self, shard: int) -> str:
        import ray

        from eztorch_sce.jobs.worker import finish_shards

        host = socket.gethostname()
        earlier = ray.get(self._tries.begin.remote(shard, host))
        if len(earlier) >= _MOST_TRIES:
            return f"on {earlier[-1]}: {len(earlier)} workers died of it, as when the system kills them to free memory"
        try:
            reasons = finish_shards(self._job, self._work, [shard], self._num_workers, _ignore)
        except Exception as error:
            return f"on {host}: {_describe(error)}"
        return reasons.get(shard, "")


def _ignore(num_records: int, num_failures: int = 0) -> None:
    """Report no progress: the receipts do."""


def _describe(error: Exception) -> str:
    """Return an error as one line, with its type if it is not one that explains itself."""
    if isinstance(error, EXPLAINED):
        return "; ".join(getattr(error, "problems", [str(error)]))
    return f"{type(error).__name__}: {first_line(error)}"


@register("runner", "ray")
@dataclass
class RayConfig(RunnerConfig):
    """Actors on a Ray cluster, of one machine or many, with GPUs or without, which may grow and shrink."""

    address: str | None = setting(
        None,
        help='Cluster to join: host:port, ray://host:port, or "auto" for the one that runs on this machine; null takes '
        "that of RAY_ADDRESS, which Ray sets in its jobs, or starts one on this machine for the time of the command.",
    )
    min_workers: int = setting(1, at_least=1, help="Fewest workers, for which Ray adds nodes if it can.")
    max_workers: int | None = setting(None, at_least=1, help="Most workers; null uses all nodes of the cluster.")
    cpus_per_worker: int = setting(1, at_least=1, help="CPUs of a worker, each of which runs one of its processes.")
    gpus_per_worker: float = setting(
        0.0, at_least=0, help="GPUs of a worker, which holds the network; 0.5 lets two workers share one."
    )
    memory_gb: float | None = setting(
        None, above=0, help="Memory of a worker in GB, by which Ray places workers; null leaves it out of account."
    )

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per setting that Ray would refuse."""
        messages = []
        if self.address is not None and not re.fullmatch(_ADDRESS, self.address):
            messages.append(f"{prefix}.address={self.address} must be host:port, ray://host:port or auto")
        if self.max_workers is not None and self.max_workers < self.min_workers:
            least = f"{prefix}.min_workers={self.min_workers}"
            messages.append(f"{prefix}.max_workers={self.max_workers} must be at least {least}")
        if self.gpus_per_worker > 1 and not self.gpus_per_worker.is_integer():
            messages.append(f"{prefix}.gpus_per_worker={self.gpus_per_worker:g} must be a whole number, or less than 1")
        return messages

    def build(self) -> RayRunner:
        """Return the runner."""
        return RayRunner(self)
