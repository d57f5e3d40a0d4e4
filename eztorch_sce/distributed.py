"""Several processes as one; everything is the identity where torch.distributed is not initialized."""

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def join(on_gpu: bool) -> None:
    """Join the processes that torchrun started beside this one, if it did and they are not joined yet."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")


def rank() -> int:
    """Return the number of this process, 0 where it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes, 1 where it is alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def fewest(count: int, device: torch.device) -> int:
    """Return the least count of all processes; what they talk over needs a device of theirs."""
    if world_size() == 1:
        return count
    least = torch.tensor([count], device=device)
    dist.all_reduce(least, op=dist.ReduceOp.MIN)
    return int(least)


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows (N, ...) of all processes in the order of their ranks; N may differ.

    Gradients flow: each process gets what all processes ask of its rows.
    """
    return gather_with_offset(rows)[0]


def gather_with_offset(rows: Tensor) -> tuple[Tensor, int]:
    """Return what `gather_rows` does, and the row of it where those of this process begin."""
    if world_size() == 1:
        return rows, 0
    counts = _counts(rows)
    gathered: Tensor = _GatherRows.apply(rows, counts)
    return gathered, sum(counts[: rank()])


@torch.no_grad()
def same_permutation(count: int, device: torch.device) -> Tensor:
    """Return a random permutation (count,), the same in every process."""
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
        return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.rows], None


def _counts(rows: Tensor) -> list[int]:
    """Return the number of rows of each process."""
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    return [int(n) for n in counts]
