"""The work on shards by the tasks of a SLURM job array, which submitit submits.

Each task works on some shards; SLURM queues it again when it is preempted or its time is over, and it goes on with its
shards that have no receipt. The files of submitit, with the logs of the tasks, are in the folder `slurm` of the job.
"""

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eztorch_sce import registry
from eztorch_sce.cores import num_usable_cores
from eztorch_sce.errors import ConfigError, counted
from eztorch_sce.jobs.runners.base import Runner, RunnerConfig
from eztorch_sce.settings import setting

if TYPE_CHECKING:
    from eztorch_sce.jobs.job import Job
    from eztorch_sce.jobs.work import Advance, Work

_INSTALL = "pip install 'eztorch-sce[slurm]'"
_PROGRAMS = ("sbatch", "srun", "squeue", "scontrol", "scancel")
_NAME = "eztorch-sce"  # of the array, in squeue
_SIGNAL_S = 90  # between the signal to a task and its end
_OWN = {  # options of sbatch that settings write
    "account": "account",
    "array": "max_tasks",
    "cpus-per-task": "cpus_per_task",
    "gpus-per-node": "gpus_per_node",
    "mem": "mem_gb",
    "partition": "partition",
    "qos": "qos",
    "time": "time_min",
}
_FIXED = ("error", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "signal")


@registry.register("runner", "slurm")
@dataclass
class SlurmConfig(RunnerConfig):
    """Tasks of a SLURM job array, submitted by submitit (`pip install 'eztorch-sce[slurm]'`)."""

    executor: str = setting(
        "slurm",
        choices=("slurm", "local"),
        help="Where submitit starts the tasks: slurm submits them to the cluster; local starts them on this machine, "
        "as many as its cores allow, to try the same thing without SLURM.",
    )
    partition: str | None = setting(None, help="Partition; null is the default of the cluster.")
    account: str | None = setting(None, help="Account that the time is charged to; null is your default.")
    qos: str | None = setting(None, help="Quality of service; null is your default.")
    time_min: int = setting(
        240,
        at_least=1,
        help="Minutes that a task may run. When they are over, it is queued again and goes on with the shards that it "
        "has not finished, so a shard must fit in.",
    )
    cpus_per_task: int = setting(8, at_least=1, help="Cores of a task, and its worker processes unless they are set.")
    mem_gb: float | None = setting(None, above=0, help="Memory of a task in GB; null is the default of the cluster.")
    gpus_per_node: int | None = setting(None, at_least=0, help="GPUs of a task; null asks for none.")
    max_parallel: int = setting(256, at_least=1, help="Most tasks that run at the same time.")
    max_tasks: int = setting(
        1000,
        at_least=1,
        help="Most tasks of the array, which the cluster limits (MaxArraySize - 1, usually 1000). If there are more "
        "shards, they are dealt out in turn, so that each task has several.",
    )
    options: str = setting(
        "", help="Further options of sbatch, in their long form, such as '--constraint=a100 --exclusive --nice=100'."
    )
    folder: str | None = setting(
        None,
        is_path=True,
        help="Folder for the job script and the logs, which every node sees; null puts them beside the receipts, "
        "unless these are behind a URL.",
    )

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per option that is misspelled or that another setting writes."""
        try:
            words = shlex.split(self.options)
        except ValueError as error:
            return [f"{prefix}.options={self.options}: {error}"]
        messages = []
        for word in words:
            name = word.partition("=")[0].removeprefix("--")
            if not re.fullmatch(r"--[a-z][\w-]+(=.*)?", word):
                messages.append(f"{prefix}.options: {word} must be of the long form, such as --constraint=a100")
            elif name in _OWN:
                messages.append(f"{prefix}.options: use {prefix}.{_OWN[name]} in place of {word}")
            elif name in _FIXED:
                messages.append(
                    f"{prefix}.options: a task is one process on one node with a log of its own: remove {word}"
                )
        return messages

    def build(self) -> "SlurmRunner":
        """Return the runner."""
        return SlurmRunner(self)


class SlurmRunner(Runner):
    """Submits an array, and follows its tasks by their receipts.

    Args:
        config: The settings.
    """

    def __init__(self, config: SlurmConfig) -> None:
        self.config = config
        self.is_slurm = config.executor == "slurm"

    def check(self, job_folder: str, num_workers: int | None) -> None:
        """See `Runner.check`."""
        _need_submitit()
        if self.is_slurm and (reason := _without_slurm()):
            raise ConfigError([reason])
        self._folder(job_folder)

    def run(
        self, job: "Job", work: "Work", shards: Sequence[int], num_workers: int | None, advance: "Advance"
    ) -> dict[int, str]:
        """See `Runner.run`. Tasks that an earlier driver has submitted, and that still run, are followed, too."""
        from eztorch_sce.jobs.runners.slurm_array import Array, ShardTask
        from eztorch_sce.jobs.watching import watch_receipts

        array = Array(self._folder(job.store.folder), self.is_slurm, job.settings_digest)
        array.follow_earlier()
        missing = sorted(set(shards) - array.shards)
        with array.followed():
            if missing:
                parts = spread(missing, self.num_tasks(len(missing)))
                workers = num_workers or self.config.cpus_per_task
                tasks = [ShardTask(job.store.folder, part, workers) for part in parts]
                array.submit(tasks, self._parameters(), max_timeouts=max(3, len(parts[0])))
            watch_receipts(job, shards, advance, array.is_running)
        array.refuse_canceled(job.not_done(shards))
        return array.reasons()

    def describe(self, job_folder: str, num_shards: int) -> list[str]:
        """See `Runner.describe`: the job script as it would be submitted."""
        _need_submitit()
        num_tasks = self.num_tasks(num_shards)
        most = counted(-(-num_shards // num_tasks), "shard")
        shards = f"1 task with {most}" if num_tasks == 1 else f"{num_tasks} tasks with at most {most} each"
        if not self.is_slurm:
            return [f"runner=slurm runner.executor=local: {shards}, all at once on this machine"]
        at_once = f"at most {self.config.max_parallel} at once"
        script = self._script(self._folder(job_folder), num_tasks).splitlines()
        lines = [f"runner=slurm: {shards}, {at_once}, by this job script:", *script]
        return [*lines, reason] if (reason := _without_slurm()) else lines

    def num_tasks(self, num_shards: int) -> int:
        """Return how many tasks work on that many shards."""
        most = min(self.config.max_tasks, num_shards)
        if self.is_slurm:
            return most
        return min(most, self.config.max_parallel, max(1, num_usable_cores() // self.config.cpus_per_task))

    def _folder(self, job_folder: str) -> Path:
        """Return the folder of the scripts and logs.

        Raises:
            ConfigError: If there is none because the job is behind a URL.
        """
        if self.config.folder is not None:
            return Path(self.config.folder).absolute()
        if "://" in job_folder:
            cure = "name a folder that every node sees, for the job script and the logs"
            raise ConfigError([f"runner.folder is needed, since the job is at {job_folder}: {cure}"])
        return Path(job_folder).absolute() / "slurm"

    def _parameters(self) -> dict[str, Any]:
        """Return the parameters of the executor, as submitit names them."""
        config = self.config
        signal_s = min(_SIGNAL_S, 20 * config.time_min)
        if not self.is_slurm:
            gpus = config.gpus_per_node or 0
            return {"timeout_min": config.time_min, "gpus_per_node": gpus, "signal_delay_s": signal_s}
        options = dict(word.removeprefix("--").partition("=")[::2] for word in shlex.split(config.options))
        parameters = {
            "job_name": _NAME,
            "partition": config.partition,
            "account": config.account,
            "qos": config.qos,
            "time": config.time_min,
            "cpus_per_task": config.cpus_per_task,
            "mem": None if config.mem_gb is None else f"{round(config.mem_gb * 1024)}MB",
            "gpus_per_node": config.gpus_per_node,
            "signal_delay_s": signal_s,
            "array_parallelism": config.max_parallel,
            "additional_parameters": {name.replace("-", "_"): value or True for name, value in options.items()},
        }
        return {name: value for name, value in parameters.items() if value is not None}

    def _script(self, folder: Path, num_tasks: int) -> str:
        """Return the job script. The executor of submitit writes the same, but only where there is SLURM."""
        from submitit.slurm.slurm import _make_sbatch_string

        command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
        count = num_tasks if num_tasks > 1 else None
        return str(_make_sbatch_string(command, folder, map_count=count, **self._parameters()))


def spread(shards: Sequence[int], num_tasks: int) -> list[list[int]]:
    """Deal out shards to tasks in turn, so that numbers differ by at most one; the first tasks have the most.

    >>> spread([3, 4, 5, 7, 9], 2)
    [[3, 5, 9], [4, 7]]
    """
    return [list(shards[number::num_tasks]) for number in range(num_tasks)]


def _need_submitit() -> None:
    if find_spec("submitit") is None:
        raise ConfigError([f"runner=slurm needs submitit, which is not installed: {_INSTALL}"])


def _without_slurm() -> str:
    """Return what this machine lacks, with the cure, or an empty text."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if not missing:
        return ""
    return (
        f"runner=slurm: this machine has no SLURM ({', '.join(missing)} not found): run the same command on a login "
        "node of the cluster, or set runner=local; runner.executor=local tries the tasks on this machine"
    )
