"""The processes that a launcher (torchrun, srun, Lightning) started, as its environment variables describe them."""

import os
import re
import sys
from collections.abc import Mapping
from typing import NamedTuple

from eztorch_sce.errors import ConfigError

SHELL_JOBS = ("bash", "interactive")
"""Names of SLURM jobs that are shells, in which processes are started by hand."""
_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "MPI_LOCALNRANKS", "JSM_NAMESPACE_SIZE")
_MPI_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "MPI_LOCALRANKID", "JSM_NAMESPACE_RANK")


class Launch(NamedTuple):
    """Processes that were started together.

    Attributes:
        launcher: "torchrun", "srun", "mpirun", "Lightning", whose processes repeat the command of the first, "your
            code", which formed a process group, or "another launcher", which set RANK and WORLD_SIZE.
        world_size: Number of processes on all machines.
        per_node: Processes per machine, or None if the launcher does not say.
        variables: The environment variables that describe the launch, such as "WORLD_SIZE=8, LOCAL_WORLD_SIZE=4".
    """

    launcher: str
    world_size: int
    per_node: int | None
    variables: str

    @property
    def started(self) -> str:
        """The launch in words, for messages."""
        noun = "process" if self.world_size == 1 else "processes"
        return f"{self.launcher} started {self.world_size} {noun} ({self.variables})"


def find_launch(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """Return how this process was launched together with others, or None if it was started by itself.

    A process group that the user's code has formed takes precedence, then torchrun over SLURM (it may run inside a
    SLURM job), as in Lightning. A SLURM job named "bash" or "interactive" is a shell.

    >>> find_launch({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "5"})
    Launch(launcher='torchrun', world_size=8, per_node=4, variables='WORLD_SIZE=8, LOCAL_WORLD_SIZE=4')
    >>> find_launch({"SLURM_NTASKS": "8", "SLURM_TASKS_PER_NODE": "4(x2)", "SLURM_PROCID": "0"})
    Launch(launcher='srun', world_size=8, per_node=4, variables='SLURM_NTASKS=8, SLURM_TASKS_PER_NODE=4(x2)')
    >>> find_launch({"SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "8"}) is None
    True
    """
    launch, group = _from_variables(environ), _process_group()
    if group is None or (launch is not None and launch.world_size == group[1]):
        return launch
    per_node = environ.get("LOCAL_WORLD_SIZE")
    return Launch("your code", group[1], int(per_node) if per_node else None, f"a process group of {group[1]}")


def _from_variables(environ: Mapping[str, str]) -> Launch | None:
    if "WORLD_SIZE" in environ and ("RANK" in environ or "LOCAL_RANK" in environ):
        names = ["WORLD_SIZE", "LOCAL_WORLD_SIZE"]
        launcher = "another launcher" if "RANK" in environ else "Lightning"
        if "LOCAL_WORLD_SIZE" in environ:
            launcher = "torchrun"
    elif _by_srun(environ):
        per_node = [name for name in ("SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE") if name in environ]
        launcher, names = "srun", ["SLURM_NTASKS", *per_node[:1]]
    elif names := [name for name in _MPI_SIZES if int(environ.get(name, "1")) > 1][:1]:
        launcher = "mpirun"
    else:
        return None
    counts = [
        int(re.split(r"[(,]", environ[name])[0]) for name in names if name in environ
    ]  # "4(x2)" is 4 on each of 2
    world_size, per_node_count = counts[0], counts[1] if len(counts) > 1 else None
    if world_size == 1:
        per_node_count = 1
    return Launch(
        launcher, world_size, per_node_count, ", ".join(f"{name}={environ[name]}" for name in names if name in environ)
    )


def is_first_process(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process writes the files of a run, as a process started by itself does.

    >>> is_first_process({"NODE_RANK": "1", "LOCAL_RANK": "0"})
    False
    """
    if (group := _process_group()) is not None:
        return group[0] == 0
    return process_number(environ) == 0


def process_number(environ: Mapping[str, str] = os.environ) -> int:
    """Return the number of this process among all processes, as far as the variables tell: 0 for the first only.

    >>> process_number({"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}), process_number({"PMI_SIZE": "2", "PMI_RANK": "1"})
    (1, 1)
    """
    if (group := _process_group()) is not None:
        return group[0]
    if "RANK" in environ:
        return int(environ["RANK"])
    names = ["LOCAL_RANK", "NODE_RANK"]
    if _by_srun(environ):
        names.insert(0, "SLURM_PROCID")
    elif "WORLD_SIZE" not in environ:
        names += _MPI_RANKS
    numbers = [int(environ[name]) for name in names if name in environ]
    return next(filter(None, numbers), 0)


def local_rank(environ: Mapping[str, str] = os.environ) -> int:
    """Return the number of this process on its machine, which is also the number of its GPU.

    >>> local_rank({"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"})
    1
    """
    if "LOCAL_RANK" in environ:
        return int(environ["LOCAL_RANK"])
    launch, group = find_launch(environ), _process_group()
    if group is not None and launch is not None and launch.launcher == "your code":
        return group[0] % (launch.per_node or launch.world_size)
    return int(environ.get("SLURM_LOCALID", "0")) if _by_srun(environ) else 0


def refuse_several(command: str) -> None:
    """Raise ConfigError in each of several launched processes, for a command that runs in one process."""
    launch = find_launch()
    if launch is not None and launch.world_size > 1 and launch.launcher != "Lightning":
        raise ConfigError([f"{command} runs in one process, but {launch.started}: start it without {launch.launcher}"])


def can_be_repeated() -> bool:
    """Return whether the command of this process can be started again, as Lightning does for further processes.

    A notebook and an interactive session cannot.
    """
    main = sys.modules["__main__"]
    return not hasattr(sys, "ps1") and (getattr(main, "__spec__", None) is not None or os.path.isfile(sys.argv[0]))


def _by_srun(environ: Mapping[str, str]) -> bool:
    return "SLURM_NTASKS" in environ and environ.get("SLURM_JOB_NAME") not in SHELL_JOBS


def _process_group() -> tuple[int, int] | None:
    """Return the rank and the world size of the process group, or None if there is none. Does not import torch."""
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return None
    return int(dist.get_rank()), int(dist.get_world_size())
