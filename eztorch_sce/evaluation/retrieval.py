"""Retrieval: the queries are the test part, the bank is the train part."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eztorch_sce.distributed import gather_rows
from eztorch_sce.evaluation.metrics import Scores
from eztorch_sce.evaluation.search import CPU, Centers, find_centers, nearest_neighbors, own_share, similarities
from eztorch_sce.types import FeatureBank

RANKS = (1, 5, 10, 20, 50)
_MAX_PAIRS = 2**24  # queries and records of their class that are ranked at once: bounds the memory


def retrieval(
    bank: FeatureBank, queries: FeatureBank, ranks: Sequence[int] = RANKS, device: torch.device = CPU
) -> Scores:
    """Search the bank for the class of each query, by cosine; return rates in [0, 1], whole and by class.

    `R@k`: the share of queries with their own class among the k nearest; ranks beyond the size of the bank are left
    out. `mAP`: the mean over the queries of `average_precisions`. Both after centring, bank and queries each by their
    own mean, as published; with `_uncentered` without. A class no query has is left out of the classes.
    """
    ranks = [rank for rank in ranks if rank <= len(bank.features)]
    metrics: dict[str, float] = {}
    found = {}
    for suffix, centered in (("", True), ("_uncentered", False)):
        nearest = nearest_neighbors(bank.features, queries.features, max(ranks), centered, device).indices  # (Q, k)
        same_class = bank.labels[nearest] == queries.labels[:, None]
        precisions = average_precisions(bank, queries, centered, device)
        metrics |= {f"R@{rank}{suffix}": float(same_class[:, :rank].any(dim=1).double().mean()) for rank in ranks}
        metrics[f"mAP{suffix}"] = float(precisions.mean())
        found[suffix] = torch.stack([same_class[:, 0].double(), precisions], dim=1)  # (Q, 2)
    return Scores(metrics, _by_class(queries, found[""]))


def _by_class(queries: FeatureBank, found: Tensor) -> dict[str, dict[str, float]]:
    """Return the means over the queries of each class of (Q, 2): whether the first is of the class, and precision."""
    classes = {}
    for label in queries.labels.unique().tolist():
        own = found[queries.labels == label]
        recall, precision = own.mean(dim=0).tolist()
        classes[queries.classes[label]] = {"queries": len(own), "R@1": recall, "AP": precision}
    return classes


@torch.no_grad()
def average_precisions(
    bank: FeatureBank, queries: FeatureBank, centered: bool = False, device: torch.device = CPU
) -> Tensor:
    """Return the average precision of each query over the ranking of the whole bank, float64 (Q,).

    The mean, over the records of the query's class, of the share of that class among the records down to each; 0 where
    the bank has none, as R@k. Of equally similar records those of other classes rank first, so features that are all
    alike earn nothing. Of several processes each ranks for its share of the queries, and all get the whole result.

    Source: Manning, Raghavan and Schuetze, Introduction to Information Retrieval, 2008, section 8.4.
    """
    centers = find_centers(bank.features, queries.features, centered, device)
    classes = _classes_of(bank.labels, queries.labels, device)
    share = own_share(len(queries.features))
    features, labels = queries.features[share], queries.labels[share].to(device)
    block = max(1, _MAX_PAIRS // max(1, int(classes.sizes.max())))
    parts = [
        _average_precisions(bank.features, classes, *part, centers)
        for part in zip(features.split(block), labels.split(block), strict=True)
    ]
    return gather_rows(torch.cat(parts)).cpu()


class _Classes(NamedTuple):
    """The classes of a bank: labels (N,), the number of each record within its class (N,), and sizes (classes,)."""

    labels: Tensor
    numbers: Tensor
    sizes: Tensor


def _classes_of(labels: Tensor, query_labels: Tensor, device: torch.device) -> _Classes:
    sizes = labels.bincount(minlength=int(query_labels.max()) + 1)
    by_class = labels.argsort(stable=True)
    numbers = torch.empty_like(labels)
    numbers[by_class] = torch.arange(len(labels)) - (sizes.cumsum(dim=0) - sizes)[labels[by_class]]
    return _Classes(labels.to(device), numbers.to(device), sizes.to(device))


def _average_precisions(bank: Tensor, classes: _Classes, queries: Tensor, labels: Tensor, centers: Centers) -> Tensor:
    """Read the bank twice: for the similarities of each query's own class, then for what comes before each of them.

    So the memory is that of the pairs of one class, not that of the whole ranking.
    """
    sizes = classes.sizes[labels]  # (Q,)
    own = torch.full((len(queries), int(classes.sizes.max())), torch.inf, device=labels.device)  # (Q, R)
    for rows, columns, similarity in similarities(bank, queries, centers, "average precision 1/2"):
        query, record = (labels[rows, None] == classes.labels[columns]).nonzero(as_tuple=True)
        own[rows.start + query, classes.numbers[columns][record]] = similarity[query, record]
    own = own.sort(dim=1, descending=True).values  # smaller classes begin with infinities, which nothing reaches

    before = torch.zeros_like(own, dtype=torch.int32)  # records of other classes that rank before each of the own
    for rows, columns, similarity in similarities(bank, queries, centers, "average precision 2/2"):
        similarity.masked_fill_(labels[rows, None] == classes.labels[columns], -torch.inf)
        in_order = _sorted(similarity)
        before[rows] += in_order.shape[1] - torch.searchsorted(in_order, own[rows], out_int32=True)
    place = torch.arange(1, own.shape[1] + 1, device=own.device) - (own == torch.inf).sum(dim=1, keepdim=True)
    precision = torch.where(place > 0, place.double() / (place + before), 0.0)
    return precision.sum(dim=1) / sizes.clamp_min(1)


def _sorted(rows: Tensor) -> Tensor:
    """Sort each row in place on a CPU, by numpy, which takes a third of torch's time; elsewhere by torch."""
    if rows.device.type != "cpu":
        return rows.sort(dim=1).values
    rows.numpy().sort(axis=1)
    return rows
