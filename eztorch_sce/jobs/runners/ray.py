"""The work on shards by actors on a Ray cluster, through Ray Data."""

import os
import re
import socket
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
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
_MOST_DEATHS = 3  # of workers with the same shard
_MOST_ERRORS = 3  # per worker


class RayRunner(Runner):
    """Works on shards by actors, each of which loads the work once and finishes one shard at a time.

    Outputs and receipts are written by the actors; only numbers and reasons travel. Ray restarts actors that die, on
    another node if theirs is gone, and gives them their shard again.

    Args:
        config: The settings.
    """

    def __init__(self, config: "RayConfig") -> None:
        self._config = config
        self._failing: set[str] = set()  # nodes whose files failed, which get no shards of the next try

    def check(self, job_folder: str, num_workers: int | None) -> None:
        """See `Runner.check`. Starts the cluster if `address` names none."""
        from eztorch_sce.jobs.runners import ray_cluster

        address = self._config.address or os.environ.get("RAY_ADDRESS")
        is_own = ray_cluster.connect(address) and address is None
        try:
            nodes = ray_cluster.find_nodes(self._needs())
            if not is_own:
                ray_cluster.check_nodes(nodes, _absolute(job_folder))
        except BaseException:
            self.close()
            raise

    def run(
        self, job: "Job", work: "Work", shards: Sequence[int], num_workers: int | None, advance: "Advance"
    ) -> dict[int, str]:
        """See `Runner.run`."""
        import ray

        from eztorch_sce.jobs.runners import ray_cluster
        from eztorch_sce.jobs.watching import watch_receipts

        needs = self._needs()
        sizes = self._sizes(needs, len(shards))
        actor: Any = ray.remote(Attempts)
        attempts = actor.options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote(_MOST_ERRORS * sizes[0])
        num_workers = num_workers or self._config.cpus_per_worker
        arguments = (_absolute(job.store.folder), num_workers, os.getcwd(), attempts)
        results = ray_cluster.results(shards, RayWorker, arguments, needs, sizes, self._failing)
        execution = _Execution(results)
        execution.start()
        try:
            watch_receipts(job, shards, advance, execution.is_alive)
        finally:
            ray.kill(attempts)  # workers without it begin no more shards
        execution.join()
        self._failing |= execution.nodes
        return execution.reasons(shards)

    def _sizes(self, needs: "Needs", num_shards: int) -> tuple[int, int]:
        """Return the fewest and the most workers: at once as many as the present nodes hold."""
        from eztorch_sce.jobs.runners import ray_cluster

        most = min(num_shards, self._config.max_workers or num_shards)
        present = sum(needs.count(node["Resources"]) for node in ray_cluster.find_nodes(needs))
        return min(most, max(self._config.min_workers, present)), most

    def _needs(self) -> "Needs":
        from eztorch_sce.jobs.runners.ray_cluster import Needs

        config = self._config
        return Needs(config.cpus_per_worker, config.gpus_per_worker, config.memory_gb)

    def close(self) -> None:
        """Leave the cluster, which ends the actors, or end the cluster that `check` has started."""
        from eztorch_sce.jobs.runners import ray_cluster

        ray_cluster.leave()


class _Execution(threading.Thread):
    """Reads the results while the main thread looks for receipts and signals.

    Attributes:
        nodes: Nodes on which shards failed.
    """

    def __init__(self, results: Any) -> None:
        super().__init__(name="ray results", daemon=True)
        self._results = results
        self._reasons: dict[int, str] = {}
        self._error = ""
        self.nodes: set[str] = set()

    def run(self) -> None:
        try:
            for row in self._results.iter_rows():
                if row["reason"]:
                    self._reasons[int(row["shard"])] = row["reason"]
                    self.nodes |= {row["node"]} - {""}
        except Exception as error:
            self._error = f"because Ray stopped: {_last_sentences(str(error)) or type(error).__name__}"

    def reasons(self, shards: Sequence[int]) -> dict[int, str]:
        """Return the reason of each shard that has one."""
        others = dict.fromkeys(shards, self._error) if self._error else {}
        return others | self._reasons


class Attempts:
    """An actor that knows of all attempts at shards, and says which are in vain: Ray itself would try for ever.

    Args:
        most_errors: Errors in a row, of all workers, after which no shard is begun, as when the disk is full.
    """

    def __init__(self, most_errors: int) -> None:
        self._most_errors = most_errors
        self._num_errors, self._error = 0, ""
        self._begun: dict[int, list[str]] = {}  # machines by shard

    def begin(self, shard: int, host: str) -> str:
        """Note that a shard is begun on a machine, or return the reason not to."""
        if self._num_errors >= self._most_errors:
            return f"not tried after {self._num_errors} errors in a row, the last one {self._error}"
        hosts = self._begun.setdefault(shard, [])
        if len(hosts) >= _MOST_DEATHS:
            return f"on {hosts[-1]}: {len(hosts)} workers died of it, as when the system kills them to free memory"
        hosts.append(host)
        return ""

    def end(self, reason: str) -> None:
        """Note that a shard has ended: with a receipt, or with the reason that it has none."""
        self._num_errors, self._error = (self._num_errors + 1, reason) if reason else (0, "")


class RayWorker:
    """An actor that finishes one shard at a time.

    Args:
        job_folder: Folder of the job.
        num_workers: Worker processes.
        folder: Working directory of the command, to which its paths may be relative.
        attempts: Handle of `Attempts`.
    """

    def __init__(self, job_folder: str, num_workers: int, folder: str, attempts: Any) -> None:
        from eztorch_sce.jobs.job import Job
        from eztorch_sce.jobs.worker import load_work

        if os.path.isdir(folder):
            os.chdir(folder)
        self._job = Job.open(job_folder)
        self._work = load_work(self._job)
        self._num_workers, self._attempts = num_workers, attempts

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Finish the shard of a batch of one row.

        Returns:
            The number of the shard, the reason if it failed, and the node if that is why.
        """
        import ray

        shard, host = int(batch["shard"][0]), socket.gethostname()
        if reason := ray.get(self._attempts.begin.remote(shard, host)):
            return {"shard": [shard], "reason": [reason], "node": [""]}
        reason = self._finish(shard, host)
        ray.get(self._attempts.end.remote(reason))
        node = ray.get_runtime_context().get_node_id() if reason else ""
        return {"shard": [shard], "reason": [reason], "node": [node]}

    def _finish(self, shard: int, host: str) -> str:
        from eztorch_sce.jobs.worker import finish_shards

        try:
            reasons = finish_shards(self._job, self._work, [shard], self._num_workers, _ignore)
        except Exception as error:
            return f"on {host}: {_describe(error)}"
        return reasons.get(shard, "")


def _absolute(job_folder: str) -> str:
    """Return a folder as other processes find it."""
    return job_folder if "://" in job_folder else os.path.abspath(job_folder)


def _ignore(num_records: int, num_failures: int = 0) -> None:
    """Report no progress: the receipts do."""


def _last_sentences(message: str) -> str:
    """Return the lines without indent at the end of a message, where Ray tells the cause.

    >>> _last_sentences("The actor died.\\n\\tactor_id: 08f8\\nAll references were removed.\\nIt never ran.")
    'All references were removed. It never ran.'
    """
    lines = takewhile(lambda line: line[:1].strip(), reversed(message.strip().splitlines()))
    return " ".join(reversed(list(lines)))


def _describe(error: Exception) -> str:
    """Return an error as one line, with its type if it is not one that explains itself; the log of Ray has it all."""
    if isinstance(error, EXPLAINED):
        return "; ".join(getattr(error, "problems", [str(error)]))
    traceback.print_exception(error)
    if "Original Traceback" in str(error):  # of a process that loads data
        return _last_sentences(str(error))
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
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            messages.append(f"{prefix}.gpus_per_worker={self.gpus_per_worker:g} must be a whole number, or less than 1")
        return messages

    def build(self) -> RayRunner:
        """Return the runner."""
        return RayRunner(self)
