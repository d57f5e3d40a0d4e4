"""Exact nearest-neighbor search by cosine, one chunk of the bank at a time, on any device and number of processes."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from eztorch_sce import signals
from eztorch_sce.distributed import gather_rows, rank, world_size
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.memory import available_bytes, on_device
from eztorch_sce.host_memory import total_bytes
from eztorch_sce.precision import exact_float32
from eztorch_sce.progress import track
from eztorch_sce.transfers import to_device
from eztorch_sce.types import Features, StoredRows

# Rows compared at once on a CPU. Their similarities take 4 MB whatever the size of the bank and the number of queries,
# so they are still in the cache when the nearest are selected.
BANK_CHUNK = 2048
QUERY_CHUNK = 512
_GPU_BANK_CHUNK = 16384
_GPU_BYTES = 32  # per similarity, with what is computed from it

_SHORTEST = 1e-12  # rows below this length are rescaled before their length is measured

NUM_SHOWN = 5  # nearest records that an evaluation reports for each test record

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
        is_finite: Whether no row compared so far holds NaN or infinity, a bool.
    """

    bank: Float[Tensor, " F"]
    queries: Float[Tensor, " F"]
    is_finite: Bool[Tensor, ""]

    def check_finite(self) -> None:
        """Raise ConfigError, in all processes, if a row that one compared holds NaN or infinity. Waits for a GPU."""
        if not gather_rows(self.is_finite.int()[None]).all():
            raise ConfigError(["the features hold NaN or infinity: check the weights of the network"])


class Chunks(NamedTuple):
    """Rows that are compared at once.

    Attributes:
        bank: Rows of the bank.
        queries: Rows of the queries.
    """

    bank: int
    queries: int


def chunks_on(device: torch.device) -> Chunks:
    """Return how many rows to compare at once on a device: on a GPU, what takes 1/32 of its memory."""
    if device.type == "cpu":
        return Chunks(BANK_CHUNK, QUERY_CHUNK)
    queries = available_bytes(device) // (32 * _GPU_BYTES * _GPU_BANK_CHUNK)
    return Chunks(_GPU_BANK_CHUNK, max(QUERY_CHUNK, queries))


@torch.no_grad()
@exact_float32()
def nearest_neighbors(
    bank: Features,
    queries: Features,
    k: int,
    centered: bool = False,
    device: torch.device = CPU,
) -> Neighbors:
    """Find the k rows of a bank that are most similar to each query by cosine.

    Among equally similar rows, the one with the lower index ranks first. With several processes, each searches for a
    subset of the queries, and all return the complete result, on the CPU.

    Args:
        bank: Rows to search, (N, F). May be larger than memory: it is read sequentially, once (twice if centered), and
            copied as a whole only to a GPU that has room for it.
        queries: Rows to search for, (Q, F); the same in all processes. Stored rows are searched for in blocks, and the
            bank is read for each.
        k: Number of neighbors; at most the size of the bank is returned.
        centered: Subtract the mean of the bank and the mean of the queries first.
        device: The device to compute on.

    Raises:
        ConfigError: If a row holds NaN or infinity.
    """
    k, bank = min(k, len(bank)), on_device(bank, device)
    centers = find_centers(bank, queries, centered, device)
    search = _search_on_cpu if device.type == "cpu" else _search_without_waits
    blocks = rows_in_blocks(queries, own_queries(len(queries)))
    found = [search(bank, block, k, centers) for block in blocks]
    centers.check_finite()
    similarity, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Neighbors(gather_rows(similarity).cpu(), gather_rows(indices).cpu())


def rows_in_blocks(rows: Float[Tensor, "N F"] | StoredRows, own: slice) -> Iterator[Tensor]:
    """Yield the rows of a range: a tensor at once, stored rows in blocks of an eighth of the memory of this machine."""
    if isinstance(rows, Tensor):
        yield rows[own]
        return
    start, stop, _ = own.indices(len(rows))
    chunks = max(1, total_bytes() // (8 * 4 * rows.shape[1] * QUERY_CHUNK))
    for first in range(start, max(stop, start + 1), chunks * QUERY_CHUNK):
        yield rows[first : min(first + chunks * QUERY_CHUNK, stop)]


def _search_on_cpu(bank: Tensor | StoredRows, queries: Tensor, k: int, centers: Centers) -> Neighbors:
    best = Neighbors(torch.full((len(queries), k), -torch.inf), torch.zeros(len(queries), k, dtype=torch.long))
    for rows, columns, similarity in similarities(bank, queries, centers, "nearest neighbors"):
        so_far = Neighbors(best.similarity[rows], best.indices[rows])
        candidates = _nearest_of_chunk(similarity, k, columns.start, so_far.similarity[:, -1:])
        best.similarity[rows], best.indices[rows] = _merge(so_far, candidates, k)
    return best


def _search_without_waits(bank: Tensor | StoredRows, queries: Tensor, k: int, centers: Centers) -> Neighbors:
    """Do the same by the k highest of unique numbers: ties need no second look, for which the host would have to wait.

    A number holds the similarity in its upper 32 bits and the index of the row, subtracted from the highest, below.
    """
    lowest = torch.iinfo(torch.long).min
    best = torch.full((len(queries), k), lowest, device=centers.queries.device)
    for rows, columns, similarity in similarities(bank, queries, centers, "nearest neighbors"):
        index = torch.arange(columns.start, columns.stop, device=similarity.device)
        numbers = (_sortable(similarity.add_(0.0)).long() << 32) | (_HIGHEST_INDEX - index)  # -0 becomes 0
        of_chunk = numbers.topk(min(k, numbers.shape[1]), dim=1).values
        best[rows] = torch.cat([best[rows], of_chunk], dim=1).topk(k, dim=1).values
    return Neighbors(_sortable((best >> 32).int()).view(torch.float32), _HIGHEST_INDEX - (best & _HIGHEST_INDEX))


_HIGHEST_INDEX = 2**32 - 1


def _sortable(values: Tensor) -> Tensor:
    """Return integers, int32, in the order of float32 values; or, of such integers, the bits of the values."""
    bits = values.view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def similarities(
    bank: Float[Tensor, "N F"] | StoredRows, queries: Float[Tensor, "Q F"], centers: Centers, title: str
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield query rows, bank rows and their cosines, on the device of the centers.

    The bank is read once from beginning to end; the queries are copied. The host does not wait for a GPU: rows with NaN
    or infinity have similarities of NaN, and `centers.check_finite` finds them.

    Args:
        bank: Rows to compare with, (N, F).
        queries: Rows to compare, (Q, F).
        centers: Subtracted from the rows first.
        title: Title of the progress bar.
    """
    device = centers.queries.device
    chunks = chunks_on(device)
    unit_queries = unit_rows(to_device(queries, device) - centers.queries)
    centers.is_finite.logical_and_(_are_finite(unit_queries))
    for columns in track(_chunks(len(bank), chunks.bank), -(-len(bank) // chunks.bank), title):
        keys = unit_rows(to_device(bank[columns], device) - centers.bank)
        centers.is_finite.logical_and_(_are_finite(keys))
        for rows in _chunks(len(queries), chunks.queries):
            signals.poll()
            yield rows, columns, unit_queries[rows] @ keys.T


def _are_finite(unit: Float[Tensor, "N F"]) -> Tensor:
    """Return whether no result of `unit_rows` is NaN, a tensor of one bool. A row is NaN in all columns or in none."""
    return unit[:, 0].isfinite().all()


def find_centers(
    bank: Tensor | StoredRows, queries: Tensor | StoredRows, centered: bool, device: torch.device
) -> Centers:
    """Return the means of the bank and of the queries, or zeros if not centered."""
    is_finite = torch.ones((), dtype=torch.bool, device=device)
    if not centered:
        zeros = torch.zeros(bank.shape[1], device=device)
        return Centers(zeros, zeros, is_finite)
    return Centers(_mean_row(bank, device), _mean_row(queries, device), is_finite)


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

    A row that holds NaN or infinity becomes NaN.
    """
    lengths = rows.norm(dim=1, keepdim=True)
    extreme = (lengths < _SHORTEST) | ~lengths.isfinite()
    # Squares of these rows leave the range of float32. Whether there are any is not asked of a GPU: it would be a wait.
    if rows.is_cuda or extreme.any():
        largest = rows.abs().amax(dim=1, keepdim=True)
        scaled = rows / largest.where(largest > 0, 1)
        lengths = scaled.norm(dim=1, keepdim=True).where(extreme, lengths)
        rows.copy_(scaled.where(extreme, rows))
    return rows.div_(lengths.clamp_min_(_SHORTEST))  # in place: half the time of F.normalize on a large chunk


def _mean_row(rows: Tensor | StoredRows, device: torch.device) -> Tensor:
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=device)
    for chunk in _chunks(len(rows), chunks_on(device).bank):
        total += to_device(rows[chunk], device).sum(dim=0, dtype=torch.float64)
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
