"""CPU cores that this process may use, and its share of them beside the other processes on its machine."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from eztorch_sce.launch import find_launch

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def num_usable_cores() -> int:
    """Return the number of CPU cores this process may use.

    They may be limited by an affinity mask (`taskset`, a job scheduler) or a quota (`docker --cpus`, Kubernetes).
    """
    cores = _affinity(0) or os.cpu_count() or 1
    quota = _cgroup_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def cores_per_process(usable: int, num_processes: int | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Return the share of this process of the cores that all processes of the run on this machine may use.

    A process that is bound to cores of its own, as SLURM binds its tasks, has them all. Processes that are not bound,
    such as those of torchrun, divide the cores among themselves. To tell the one from the other, the cores of this
    process are compared with those of the job (SLURM_CPUS_ON_NODE) or of the launcher, its parent process.

    Args:
        usable: Number of cores that this process may use.
        num_processes: Processes of the run on this machine; None takes the number that were launched.
        environ: The environment variables.
    """
    if num_processes is None:
        num_processes = num_local_processes(environ)
    if num_processes <= 1:
        return usable
    cores = _cores_of_job(usable, environ)
    if (quota := _cgroup_quota()) is not None:  # of the container, which holds all of these processes
        cores = min(cores, int(quota))
    return max(1, min(usable, cores // num_processes))


def spare_cores(num_workers: int, num_processes: int | None = None) -> int:
    """Return the number of cores that its loader's workers leave to this process, at least 1.

    Args:
        num_workers: Number of worker processes.
        num_processes: As in `cores_per_process`.
    """
    return max(1, cores_per_process(num_usable_cores(), num_processes) - num_workers)


def num_local_processes(environ: Mapping[str, str] = os.environ) -> int:
    """Return the number of launched processes on this machine, 1 for a process that was started by itself.

    A launcher that does not tell how many it starts on each machine is taken to start one per GPU.

    >>> num_local_processes({"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8", "RANK": "3"})
    8
    """
    launch = find_launch(environ)
    if launch is None:
        return 1
    if launch.per_node is not None:
        return max(1, launch.per_node)
    torch = sys.modules.get("torch")
    num_gpus = torch.cuda.device_count() if torch is not None else 0
    return min(launch.world_size, num_gpus or launch.world_size)


def _cores_of_job(own: int, environ: Mapping[str, str]) -> int:
    """Return the number of cores that all processes of the run on this machine may use together."""
    launch = find_launch(environ)
    if "SLURM_CPUS_ON_NODE" in environ:
        return max(own, int(environ["SLURM_CPUS_ON_NODE"]))
    if launch is not None and launch.launcher == "srun":
        is_bound = own != os.cpu_count()
        return own * num_local_processes(environ) if is_bound else own
    return max(own, _affinity(os.getppid()))


def _affinity(pid: int) -> int:
    """Return the number of cores that a process may run on, or 0 if it is unknown; 0 as `pid` is this process."""
    if not hasattr(os, "sched_getaffinity"):  # only Linux has it
        return 0
    try:
        return len(os.sched_getaffinity(pid))
    except OSError:  # of another user, or ended
        return 0


def _cgroup_quota() -> float | None:
    """Return the CPU time per second that the control groups of this process allow, or None if they do not limit it."""
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            quotas += [_quota_v2(folder / "cpu.max") for folder in _with_parents(_CGROUPS, path)]
        elif "cpu" in controllers.split(","):
            quotas += [_quota_v1(folder) for folder in _with_parents(_CGROUPS / controllers, path)]
            quotas += [_quota_v1(folder) for folder in _with_parents(_CGROUPS / "cpu", path)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _with_parents(root: Path, path: str) -> list[Path]:
    """Return the folder of a control group and of those that hold it. In a container, only the root may exist."""
    folder = root / path.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent == root or root in parent.parents)]


def _quota_v2(file: Path) -> float | None:
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    except (OSError, ValueError):
        return None
