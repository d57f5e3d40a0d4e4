"""Retrieval on frozen features: each test record is a query, and the train split is the bank."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from eztorch_sce.distributed import gather_rows
from eztorch_sce.evaluation.banks import check_banks
from eztorch_sce.evaluation.base import EvaluationConfig, Scores
from eztorch_sce.evaluation.memory import available_bytes, on_device
from eztorch_sce.evaluation.search import (
    CPU,
    NUM_SHOWN,
    Centers,
    find_centers,
    nearest_neighbors,
    own_queries,
    rows_in_blocks,
    similarities,
)
from eztorch_sce.precision import exact_float32
from eztorch_sce.registry import register
from eztorch_sce.types import FeatureBank, Predictions, StoredRows

RANKS = (1, 5, 10, 20, 50)
_MAX_PAIRS = 2**24  # pairs of a query and a bank record of its class that are ranked at once; limits the memory
_GPU_SHARE = 1024  # a pair for so many bytes of a GPU's memory: they take about 40 bytes each


@register("evaluation", "retrieve")
@dataclass
class RetrieveConfig(EvaluationConfig):
    """Search the train split for records of each test record's class: R@k and mean average precision."""

    def evaluate(self, train: FeatureBank, test: FeatureBank, device: torch.device) -> Scores:
        """Return `R@k` and `mAP`, the same with the suffix `_uncentered`, and the centered R@1 and AP of each class."""
        return retrieval(bank=train, queries=test, device=device)


def retrieval(
    bank: FeatureBank, queries: FeatureBank, ranks: Sequence[int] = RANKS, device: torch.device = CPU
) -> Scores:
    """Search the bank for records of each query's class by cosine; return rates in [0, 1], overall and per class.

    `R@k` is the fraction of queries with a record of their class among the k nearest; ranks that reach the size of the
    bank are omitted, since every query finds all of it. `mAP` is the mean of `average_precisions` over the queries. As
    published, the mean of the bank and the mean of the queries are subtracted first; metrics that end in `_uncentered`
    are computed without this. The prediction for a query is the class of its nearest record. Classes without a query
    are omitted.

    Raises:
        ConfigError: If the features cannot be used; see `check_banks`.
    """
    check_banks(train=bank, test=queries)
    bank = replace(bank, features=on_device(bank.features, device))  # once for the four searches
    ranks = [rank for rank in ranks if rank < len(bank.features)]
    num_nearest = max(NUM_SHOWN, *ranks, 1)
    by_record: dict[str, Tensor] = {}
    predictions: Predictions | None = None
    for suffix, centered in (("", True), ("_uncentered", False)):
        similarity, nearest = nearest_neighbors(
            bank.features, queries.features, num_nearest, centered, device
        )  # (Q, k)
        hits = bank.labels[nearest] == queries.labels[:, None]
        by_record |= {f"R@{rank}{suffix}": hits[:, :rank].any(dim=1).double() for rank in ranks}
        by_record[f"mAP{suffix}"] = average_precisions(bank, queries, centered, device)
        if centered:
            by_class = _mean_by_class(queries, torch.stack([hits[:, 0].double(), by_record["mAP"]], dim=1))
            predictions = Predictions(bank.labels[nearest[:, 0]], similarity[:, 0], nearest[:, :NUM_SHOWN])
    metrics = {name: float(values.mean()) for name, values in by_record.items()}
    return Scores(metrics, by_class, by_record, predictions)


def _mean_by_class(queries: FeatureBank, by_query: Float64[Tensor, "Q 2"]) -> dict[str, dict[str, float]]:
    """Return R@1 and AP of each class, from whether each query's nearest record is of its class, and its precision."""
    by_class = {}
    for label in torch.unique(queries.labels).tolist():
        rows = by_query[queries.labels == label]
        recall, precision = rows.mean(dim=0).tolist()
        by_class[queries.classes[label]] = {"queries": len(rows), "R@1": recall, "AP": precision}
    return by_class


@torch.no_grad()
@exact_float32()
def average_precisions(
    bank: FeatureBank, queries: FeatureBank, centered: bool = False, device: torch.device = CPU
) -> Float64[Tensor, " Q"]:
    """Return the average precision of each query over the ranking of the whole bank, float64 (Q,).

    The average precision is the mean of the precision at the rank of each bank record of the query's class: the
    fraction of that class among all records down to that rank. It is 0 if the bank has no record of the class. Among
    equally similar records, other classes rank first, so identical features gain nothing from the order of the files.
    With several processes, each ranks a subset of the queries, and all return the complete result.

    Source: Manning, Raghavan and Schuetze, Introduction to Information Retrieval, 2008, section 8.4.

    Raises:
        ConfigError: If a feature is NaN or infinite.
    """
    records = on_device(bank.features, device)
    centers = find_centers(records, queries.features, centered, device)
    classes = _classes_of(bank.labels, queries.labels, device)
    own = own_queries(len(queries.features))
    labels = queries.labels[own].to(device)
    max_pairs = _MAX_PAIRS if device.type == "cpu" else available_bytes(device) // _GPU_SHARE
    block = max(1, max_pairs // max(1, classes.largest))
    features = (rows for each in rows_in_blocks(queries.features, own) for rows in torch.split(each, block))
    precisions, done = [], 0
    for rows in features:
        of_rows = labels[done : done + len(rows)]
        precisions.append(_average_precisions(records, classes, rows, of_rows, centers))
        done += len(rows)
    centers.check_finite()
    return gather_rows(torch.cat(precisions)).cpu()


class _Classes(NamedTuple):
    """The classes of the records of a bank.

    Attributes:
        labels: Class of each record, (N,).
        numbers: Index of each record within its class, (N,).
        sizes: Number of records of each class, (C,).
        largest: The highest of them.
    """

    labels: Int64[Tensor, " N"]
    numbers: Int64[Tensor, " N"]
    sizes: Int64[Tensor, " C"]
    largest: int


def _classes_of(labels: Tensor, query_labels: Tensor, device: torch.device) -> _Classes:
    sizes = labels.bincount(minlength=int(query_labels.max()) + 1)
    by_class = labels.argsort(stable=True)
    numbers = torch.empty_like(labels)
    numbers[by_class] = torch.arange(len(labels)) - (sizes.cumsum(dim=0) - sizes)[labels[by_class]]
    return _Classes(labels.to(device), numbers.to(device), sizes.to(device), int(sizes.max()))


def _average_precisions(
    bank: Float[Tensor, "N F"] | StoredRows,
    classes: _Classes,
    queries: Float[Tensor, "Q F"],
    labels: Int64[Tensor, " Q"],
    centers: Centers,
) -> Float64[Tensor, " Q"]:
    """Read the bank twice: for the similarities to each query's own class, then for the records that rank before them.

    The memory is proportional to the number of pairs within a class, not to the complete ranking.
    """
    sizes = classes.sizes[labels]  # (Q,)
    keep = _keep_own_without_waits if labels.is_cuda else _keep_own
    own = torch.full((len(queries), classes.largest + 1), torch.inf, device=labels.device)  # (Q, R + 1)
    for rows, columns, similarity in similarities(bank, queries, centers, "average precision 1/2"):
        same_class = labels[rows, None] == classes.labels[columns]
        keep(own[rows], classes.numbers[columns], same_class, similarity)
    own = own[:, :-1].sort(dim=1, descending=True).values  # (Q, R); rows of smaller classes start with infinities

    before = torch.zeros_like(own, dtype=torch.int32)  # records of other classes that rank before each own record
    for rows, columns, similarity in similarities(bank, queries, centers, "average precision 2/2"):
        similarity.masked_fill_(labels[rows, None] == classes.labels[columns], -torch.inf)
        ascending = _sorted(similarity)
        before[rows] += ascending.shape[1] - torch.searchsorted(ascending, own[rows], out_int32=True)
    place = torch.arange(1, own.shape[1] + 1, device=own.device) - (own == torch.inf).sum(dim=1, keepdim=True)
    precision = torch.where(place > 0, place.double() / (place + before), 0.0)
    return precision.sum(dim=1) / sizes.clamp_min(1)


def _keep_own(own: Tensor, numbers: Tensor, same_class: Tensor, similarity: Tensor) -> None:
    """Write the similarities to records of the query's class into the columns with the numbers of the records.

    Args:
        own: Similarities of each query to the records of its class, (Q, R + 1), written to.
        numbers: Index of each record of a chunk within its class, (columns,).
        same_class: Whether query and record are of one class, (Q, columns).
        similarity: Their similarities, (Q, columns).
    """
    query, record = same_class.nonzero(as_tuple=True)
    own[query, numbers[record]] = similarity[query, record]


def _keep_own_without_waits(own: Tensor, numbers: Tensor, same_class: Tensor, similarity: Tensor) -> None:
    """Do the same without asking a GPU how many pairs are of one class: the last column takes the others."""
    own.scatter_(1, numbers.where(same_class, own.shape[1] - 1), similarity)


def _sorted(rows: Tensor) -> Tensor:
    """Sort each row. On a CPU, sort in place with numpy, which takes a third of torch's time."""
    if rows.device.type != "cpu":
        return rows.sort(dim=1).values
    rows.numpy().sort(axis=1)
    return rows
