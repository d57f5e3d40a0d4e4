"""Exact search by cosine in a bank of any size: a chunk of it at a time, on any device, on one process or several."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from eztorch_sce.distributed import gather_rows, rank, world_size
from eztorch_sce.errors import ConfigError
from eztorch_sce.progress import track

# What is compared at once: the similarities take 4 MB, whatever the size of the bank and the number of queries, and
# stay in the cache from the product to the choice of the nearest.
BANK_CHUNK = 2048
QUERY_CHUNK = 512

CPU = torch.device("cpu")


class Neighbors(NamedTuple):
    """The k nearest rows of a bank to each query, nearest first: similarity float32 (Q, k), indices int64 (Q, k)."""

    similarity: Tensor
    indices: Tensor


class Centers(NamedTuple):
    """What is taken off the rows before they are compared: float32 (F,), on the device that compares."""

    bank: Tensor
    queries: Tensor


@torch.no_grad()
def nearest_neighbors(
    bank: Tensor, queries: Tensor, k: int, centered: bool = False, device: torch.device = CPU
) -> Neighbors:
    """Find the k rows of a bank (N, F) that are most similar to each query (Q, F) by cosine.

    Of equally similar rows, that of the lower index is nearer. Of several processes each searches for its share of the
    queries, and all get the whole result, on the CPU.

    Args:
        bank: May be memory-mapped, and larger than memory: it is read from beginning to end, once (twice if centered),
            and never copied whole.
        queries: The same on all processes.
        k: Neighbors; all of a bank that has fewer.
        centered: Take the mean off first, of the bank and of the queries each by itself.
        device: Where to compute.

    Raises:
        ConfigError: If a row holds NaN or infinity.
    """
    k = min(k, len(bank))
    centers = find_centers(bank, queries, centered, device)
    own = queries[own_share(len(queries))]
    best = Neighbors(
        torch.full((len(own), k), -torch.inf, device=device), torch.zeros(len(own), k, dtype=torch.long, device=device)
    )
    for rows, columns, similarity in similarities(bank, own, centers, "nearest neighbors"):
        before = Neighbors(best.similarity[rows], best.indices[rows])
        found = _nearest_of_chunk(similarity, k, columns.start, before.similarity[:, -1:])
        best.similarity[rows], best.indices[rows] = _nearest_of_both(before, found, k)
    return Neighbors(gather_rows(best.similarity).cpu(), gather_rows(best.indices).cpu())


def similarities(bank: Tensor, queries: Tensor, centers: Centers, title: str) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield rows of the queries, rows of the bank, and their cosines, on the device of the centers.

    The bank is read once from beginning to end; of the queries a copy is made. The title is shown meanwhile.
    """
    asked = _unit_rows(queries, centers.queries)
    for columns in track(_chunks(len(bank), BANK_CHUNK), -(-len(bank) // BANK_CHUNK), title):
        keys = _unit_rows(bank[columns], centers.bank)
        for rows in _chunks(len(queries), QUERY_CHUNK):
            yield rows, columns, asked[rows] @ keys.T


def find_centers(bank: Tensor, queries: Tensor, centered: bool, device: torch.device) -> Centers:
    """Return the means of the bank and of the queries, or zeros where nothing is to be centered."""
    if not centered:
        return Centers(*(torch.zeros(bank.shape[1], device=device) for _ in range(2)))
    return Centers(_mean_row(bank, device), _mean_row(queries, device))


def own_share(num_queries: int) -> slice:
    """Return the queries of this process: whole chunks, whose similarities are the same on any number of processes."""
    num_chunks = -(-num_queries // QUERY_CHUNK)
    first, last = (num_chunks * number // world_size() for number in (rank(), rank() + 1))
    return slice(first * QUERY_CHUNK, last * QUERY_CHUNK)


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _unit_rows(rows: Tensor, center: Tensor) -> Tensor:
    rows = rows.to(center) - center
    lengths = rows.norm(dim=1, keepdim=True)
    if not lengths.isfinite().all():
        raise ConfigError(["the features hold NaN or infinity, which is near nothing: the network that made them does"])
    return rows.div_(lengths.clamp_min_(1e-12))  # in place: half the time of F.normalize on a large chunk


def _mean_row(rows: Tensor, device: torch.device) -> Tensor:
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=device)
    for part in _chunks(len(rows), BANK_CHUNK):
        total += rows[part].to(device).sum(dim=0, dtype=torch.float64)
    return (total / len(rows)).float()


def _nearest_of_chunk(similarity: Tensor, k: int, first: int, least: Tensor) -> Neighbors:
    """Return the columns of each row that may be among its k nearest, in the order of their index.

    Args:
        similarity: (Q, columns).
        k: Neighbors.
        first: Added to the indices.
        least: (Q, 1), the k-th best so far: only what is better counts, for an equal one has the higher index.
    """
    rows, columns = (similarity > least).nonzero(as_tuple=True)  # row by row, the columns in order
    counts = rows.bincount(minlength=len(similarity))
    most = int(counts.max())
    if most <= k:  # nearly always, once some chunks were seen: a tenth of the time of `topk`
        places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(dim=0) - counts)[rows]  # within the row
        # Rows with fewer are filled up with what is never near.
        found = Neighbors(similarity.new_full((len(counts), most), -torch.inf), rows.new_zeros(len(counts), most))
        found.similarity[rows, places] = similarity[rows, columns]
        found.indices[rows, places] = columns + first
        return found
    k = min(k, similarity.shape[1])
    value, index = similarity.topk(min(k + 1, similarity.shape[1]), dim=1)  # the one more shows whether a tie is cut
    cut = value[:, k - 1] == value[:, -1]
    value, index = value[:, :k], index[:, :k]
    if cut.any():  # `topk` takes any of the equal ones
        in_order = similarity[cut].sort(dim=1, descending=True, stable=True)
        value[cut], index[cut] = in_order.values[:, :k], in_order.indices[:, :k]
    index, order = index.sort(dim=1)
    return Neighbors(value.gather(1, order), index + first)


def _nearest_of_both(before: Neighbors, found: Neighbors, k: int) -> Neighbors:
    """Return the k best of both; the indices of `before` are lower, so a stable sort keeps them first among equals."""
    similarity, order = torch.cat([before.similarity, found.similarity], dim=1).sort(
        dim=1, descending=True, stable=True
    )
    return Neighbors(similarity[:, :k], torch.cat([before.indices, found.indices], dim=1).gather(1, order[:, :k]))
