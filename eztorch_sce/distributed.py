"""Several processes as one; everything is the identity where torch.distributed is not initialised."""

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def rank() -> int:
    """Return the number of this process, 0 where it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes, 1 where it is alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


@torch.no_grad()
def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows (N, ...) of all processes in the order of their ranks, without gradient; N may differ."""
    if world_size() == 1:
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    longest = max(int(n) for n in counts)
    padded = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])]).contiguous()
    gathered = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(gathered, padded)
    return torch.cat([part[: int(n)] for part, n in zip(gathered, counts, strict=True)])


def gather_lists(items: list[T]) -> list[T]:
    """Return the items of all processes, in the order of their ranks."""
    if world_size() == 1:
        return items
    parts: list[list[T]] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]
