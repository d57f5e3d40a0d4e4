"""Collectives across processes. Without a process group, every function treats this process as the only one."""

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from eztorch_sce.launch import find_launch, local_rank


def join(on_gpu: bool) -> None:
    """Join the process group of the processes that torchrun or srun started, unless already joined."""
    launch = find_launch()
    if launch is None or launch.world_size == 1 or dist.is_initialized():
        return
    if launch.launcher == "srun":
        os.environ.update(_variables_from_slurm(os.environ))
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")


def _variables_from_slurm(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that torch needs to form a process group, from those of srun.

    >>> job = {"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_NODELIST": "gpu[07-08],cpu1", "SLURM_JOB_ID": "123456"}
    >>> _variables_from_slurm(job)
    {'WORLD_SIZE': '8', 'RANK': '3', 'MASTER_ADDR': 'gpu07', 'MASTER_PORT': '18456'}
    """
    nodes = environ.get("SLURM_NODELIST", "127.0.0.1")
    first_node = re.sub(r"\[(\w+)[^]]*\]", r"\1", nodes).split(",")[0]
    port = 15000 + int(
        environ.get("SLURM_JOB_ID", "0")[-4:]
    )  # the same for all processes of a job, and different between jobs
    return {
        "WORLD_SIZE": environ["SLURM_NTASKS"],
        "RANK": environ["SLURM_PROCID"],
        "MASTER_ADDR": environ.get("MASTER_ADDR", first_node),
        "MASTER_PORT": environ.get("MASTER_PORT", str(port)),
    }


def local_device(accelerator: str) -> torch.device:
    """Return the device of this process: its GPU if there is one, unless `accelerator` is "cpu"."""
    if accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank())


def join_on(accelerator: str) -> torch.device:
    """Join the processes that were launched together, and return the device of this one."""
    device = local_device(accelerator)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    join(device.type == "cuda")
    return device


def rank() -> int:
    """Return the rank of this process (0 when not distributed)."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the world size (1 when not distributed)."""
    return dist.get_world_size() if dist.is_initialized() else 1


def fewest(count: int, device: torch.device) -> int:
    """Return the smallest count over all processes. `device` is the device of this process."""
    if world_size() == 1:
        return count
    minimum = torch.tensor([count], device=device)
    dist.all_reduce(minimum, op=dist.ReduceOp.MIN)
    return int(minimum)


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows (N, ...) of all processes in rank order; N may differ between processes.

    Differentiable: the gradient of a row is the sum of its gradients in all processes.
    """
    return gather_with_offset(rows)[0]


def gather_with_offset(rows: Tensor) -> tuple[Tensor, int]:
    """Return the result of `gather_rows`, and the index of the first row that comes from this process."""
    if world_size() == 1:
        return rows, 0
    counts = _counts(rows)
    gathered: Tensor = _GatherRows.apply(rows, counts)  # type: ignore[no-untyped-call]
    return gathered, sum(counts[: rank()])


@torch.no_grad()
def same_permutation(count: int, device: torch.device) -> Tensor:
    """Return a random permutation (count,) that is the same in every process."""
    order = torch.randperm(count, device=device)
    if world_size() > 1:
        dist.broadcast(order, src=0)
    return order


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.rows = slice(sum(counts[: rank()]), sum(counts[: rank() + 1]))
        padded = torch.cat([rows, rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])]).contiguous()
        gathered = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(gathered, padded)
        return torch.cat([rows[:count] for rows, count in zip(gathered, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.rows], None


def _counts(rows: Tensor) -> list[int]:
    """Return the number of rows of each process, in rank order."""
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    return [int(n) for n in counts]
