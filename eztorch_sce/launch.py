"""The processes that a launcher (torchrun, srun, Lightning) started, as its environment variables describe them."""

import os
from collections.abc import Mapping
from typing import NamedTuple

_SHELL_JOBS = ("bash", "interactive")  # names of SLURM jobs that are shells, in which processes are started by hand


class Launch(NamedTuple):
    """Processes that were started together.

    Attributes:
        launcher: "torchrun", "srun", or "Lightning", whose processes repeat the command of the first.
        world_size: Number of processes on all machines.
        per_node: Processes per machine, or None if the launcher does not say.
        variables: The environment variables that describe the launch, such as "WORLD_SIZE=8, LOCAL_WORLD_SIZE=4".
    """

    launcher: str
    world_size: int
    per_node: int | None
    variables: str


def find_launch(environ: Mapping[str, str] = os.environ) -> Launch | None:
    """Return how this process was launched together with others, or None if it was started by itself.

    As in Lightning, torchrun takes precedence over SLURM (it may run inside a SLURM job), and a SLURM job named "bash"
    or "interactive" is a shell.

    >>> find_launch({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "5"})
    Launch(launcher='torchrun', world_size=8, per_node=4, variables='WORLD_SIZE=8, LOCAL_WORLD_SIZE=4')
    >>> find_launch({"SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "8"}) is None
    True
    """
    if "WORLD_SIZE" in environ and ("RANK" in environ or "LOCAL_RANK" in environ):
        names = ("WORLD_SIZE", "LOCAL_WORLD_SIZE")
        launcher = "torchrun" if "LOCAL_WORLD_SIZE" in environ else "Lightning"
    elif _by_srun(environ):
        launcher, names = "srun", ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")
    else:
        return None
    world_size, per_node = (int(environ[name]) if name in environ else None for name in names)
    assert world_size is not None  # the first of the names is set in every branch
    if world_size == 1:
        per_node = 1
    return Launch(launcher, world_size, per_node, ", ".join(f"{n}={environ[n]}" for n in names if n in environ))


def is_first_process(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process writes the files of a run, as a process started by itself does.

    >>> is_first_process({"NODE_RANK": "1", "LOCAL_RANK": "0"})
    False
    """
    names = ["RANK", "LOCAL_RANK", "NODE_RANK"]
    if _by_srun(environ):
        names.append("SLURM_PROCID")
    return all(int(environ.get(name, "0")) == 0 for name in names)


def local_rank(environ: Mapping[str, str] = os.environ) -> int:
    """Return the number of this process on its machine, which is also the number of its GPU.

    >>> local_rank({"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"})
    1
    """
    default = environ.get("SLURM_LOCALID", "0") if _by_srun(environ) else "0"
    return int(environ.get("LOCAL_RANK", default))


def _by_srun(environ: Mapping[str, str]) -> bool:
    return "SLURM_NTASKS" in environ and environ.get("SLURM_JOB_NAME") not in _SHELL_JOBS
