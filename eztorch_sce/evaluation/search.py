"""Exact nearest-neighbor search by cosine, one chunk of the bank at a time, on any device and number of processes."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from eztorch_sce.distributed import gather_rows, rank, world_size
from eztorch_sce.errors import ConfigError
from eztorch_sce.progress import track

# Rows compared at once. Their similarities take 4 MB whatever the size of the bank and the number of queries, so they
# are still in the cache when the nearest are selected.
BANK_CHUNK = 2048
QUERY_CHUNK = 512

_SHORTEST = 1e-12  # rows below this length are rescaled before their length is measured

CPU = torch.device("cpu")


class Neighbors(NamedTuple):
    """The k nearest rows of a bank to each query, nearest first.

    Attributes:
        similarity: Cosines, (Q, k).
        indices: Rows of the bank, (Q, k).
    """

    similarity: Float[Tensor, "Q k"]
    indices: Int64[Tensor, "Q k"]


class Centers(NamedTuple):
    """Vectors to subtract from the rows before comparing them, on the device of the comparison.

    Attributes:
        bank: Subtracted from the rows of the bank, (F,).
        queries: Subtracted from the queries, (F,).
    """

    bank: Float[Tensor, " F"]
    queries: Float[Tensor, " F"]


@torch.no_grad()
def nearest_neighbors(
    bank: Float[Tensor, "N F"],
    queries: Float[Tensor, "Q F"],
    k: int,
    centered: bool = False,
    device: torch.device = CPU,
) -> Neighbors:
    """Find the k rows of a bank that are most similar to each query by cosine.

    Among equally similar rows, the one with the lower index ranks first. With several processes, each searches for a
    subset of the queries, and all return the complete result, on the CPU.

    Args:
        bank: Rows to search, (N, F). May be memory-mapped and larger than memory: it is read sequentially, once (twice
            if centered), and never copied as a whole.
        queries: Rows to search for, (Q, F); the same in all processes.
        k: Number of neighbors; at most the size of the bank is returned.
        centered: Subtract the mean of the bank and the mean of the queries first.
        device: The device to compute on.

    Raises:
        ConfigError: If a row holds NaN or infinity.
    """
    k = min(k, len(bank))
    centers = find_centers(bank, queries, centered, device)
    own = queries[own_queries(len(queries))]
    best = Neighbors(
        torch.full((len(own), k), -torch.inf, device=device), torch.zeros(len(own), k, dtype=torch.long, device=device)
    )
    for rows, columns, similarity in similarities(bank, own, centers, "nearest neighbors"):
        so_far = Neighbors(best.similarity[rows], best.indices[rows])
        candidates = _nearest_of_chunk(similarity, k, columns.start, so_far.similarity[:, -1:])
        best.similarity[rows], best.indices[rows] = _merge(so_far, candidates, k)
    return Neighbors(gather_rows(best.similarity).cpu(), gather_rows(best.indices).cpu())


def similarities(
    bank: Float[Tensor, "N F"], queries: Float[Tensor, "Q F"], centers: Centers, title: str
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield query rows, bank rows and their cosines, on the device of the centers.

    The bank is read once from beginning to end; the queries are copied.

    Args:
        bank: Rows to compare with, (N, F).
        queries: Rows to compare, (Q, F).
        centers: Subtracted from the rows first.
        title: Title of the progress bar.
    """
    unit_queries = unit_rows(queries.to(centers.queries) - centers.queries)
    for columns in track(_chunks(len(bank), BANK_CHUNK), -(-len(bank) // BANK_CHUNK), title):
        keys = unit_rows(bank[columns].to(centers.bank) - centers.bank)
        for rows in _chunks(len(queries), QUERY_CHUNK):
            yield rows, columns, unit_queries[rows] @ keys.T


def find_centers(bank: Tensor, queries: Tensor, centered: bool, device: torch.device) -> Centers:
    """Return the means of the bank and of the queries, or zeros if not centered."""
    if not centered:
        return Centers(torch.zeros(bank.shape[1], device=device), torch.zeros(bank.shape[1], device=device))
    return Centers(_mean_row(bank, device), _mean_row(queries, device))


def own_queries(num_queries: int) -> slice:
    """Return the queries of this process, in whole chunks so that the number of processes does not affect the bits."""
    num_chunks = -(-num_queries // QUERY_CHUNK)
    first = num_chunks * rank() // world_size()
    last = num_chunks * (rank() + 1) // world_size()
    return slice(first * QUERY_CHUNK, last * QUERY_CHUNK)


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def unit_rows(rows: Float[Tensor, "N F"]) -> Float[Tensor, "N F"]:
    """Scale each row to unit length, in place. A row of zeros has no direction and stays zero.

    Raises:
        ConfigError: If a row holds NaN or infinity.
    """
    lengths = rows.norm(dim=1, keepdim=True)
    extreme = ((lengths < _SHORTEST) | ~lengths.isfinite()).flatten()
    if extreme.any():  # squares of the values leave the range of float32, or the values are not finite
        largest = rows[extreme].abs().amax(dim=1, keepdim=True)
        if not largest.isfinite().all():
            raise ConfigError(["the features hold NaN or infinity: check the weights of the network"])
        rows[extreme] = rows[extreme] / largest.where(largest > 0, 1)
        lengths[extreme] = rows[extreme].norm(dim=1, keepdim=True)
    return rows.div_(lengths.clamp_min_(_SHORTEST))  # in place: half the time of F.normalize on a large chunk


def _mean_row(rows: Tensor, device: torch.device) -> Tensor:
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=device)
    for chunk in _chunks(len(rows), BANK_CHUNK):
        total += rows[chunk].to(device).sum(dim=0, dtype=torch.float64)
    return (total / len(rows)).float()


def _nearest_of_chunk(
    similarity: Float[Tensor, "Q columns"], k: int, first: int, least: Float[Tensor, "Q 1"]
) -> Neighbors:
    """Return the columns of each row that may be among its k nearest, in ascending order of index.

    Args:
        similarity: Cosines of the chunk, (Q, columns).
        k: Number of neighbors.
        first: Index of the first column within the bank.
        least: The k-th highest similarity so far, (Q, 1). Only higher ones count: an equal one has the higher index.
    """
    rows, columns = (similarity > least).nonzero(as_tuple=True)  # row by row, columns ascending
    counts = rows.bincount(minlength=len(similarity))
    most = int(counts.max())
    if most <= k:  # true for nearly all chunks but the first few, and takes a tenth of the time of `topk`
        places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(dim=0) - counts)[rows]  # within the row
        # Pad rows that have fewer candidates with similarity -inf.
        candidates = Neighbors(similarity.new_full((len(counts), most), -torch.inf), rows.new_zeros(len(counts), most))
        candidates.similarity[rows, places] = similarity[rows, columns]
        candidates.indices[rows, places] = columns + first
        return candidates
    k = min(k, similarity.shape[1])
    value, index = similarity.topk(min(k + 1, similarity.shape[1]), dim=1)  # one more, to detect ties at the boundary
    tied = value[:, k - 1] == value[:, -1]
    value, index = value[:, :k], index[:, :k]
    if tied.any():  # `topk` does not define which of the tied columns it returns
        descending = similarity[tied].sort(dim=1, descending=True, stable=True)
        value[tied], index[tied] = descending.values[:, :k], descending.indices[:, :k]
    index, order = index.sort(dim=1)
    return Neighbors(value.gather(1, order), index + first)


def _merge(so_far: Neighbors, candidates: Neighbors, k: int) -> Neighbors:
    """Return the k best of both. A stable sort ranks the lower indices first among ties, as those of `so_far` are."""
    similarity, order = torch.cat([so_far.similarity, candidates.similarity], dim=1).sort(
        dim=1, descending=True, stable=True
    )
    indices = torch.cat([so_far.indices, candidates.indices], dim=1).gather(1, order[:, :k])
    return Neighbors(similarity[:, :k], indices)
