"""Retrieval: the queries are the test part, the bank is the train part."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eztorch_sce.types import FeatureBank

RANKS = (1, 5, 10, 20, 50)
_CHUNK = 1024  # queries compared at once: bounds the memory of the similarities


def retrieval_recall(bank: FeatureBank, queries: FeatureBank, ranks: Sequence[int] = RANKS) -> dict[str, float]:
    """Return R@k in [0, 1]: the share of queries with their own class among the k nearest of the bank, by cosine.

    `R@k` is after centring, bank and queries each by their own mean, as published; `R@k_uncentred` without. Ranks
    beyond the size of the bank are left out.
    """
    ranks = [rank for rank in ranks if rank <= len(bank.features)]
    metrics = {}
    for suffix, centred in (("", True), ("_uncentred", False)):
        nearest = nearest_neighbours(bank.features, queries.features, max(ranks), centred)  # (Q, k)
        same_class = bank.labels[nearest] == queries.labels[:, None]
        for rank in ranks:
            metrics[f"R@{rank}{suffix}"] = float(same_class[:, :rank].any(dim=1).float().mean())
    return metrics


def nearest_neighbours(bank: Tensor, queries: Tensor, k: int, centred: bool) -> Tensor:
    """Return the indices (Q, k) of the rows of the bank (N, F) that are nearest to each query (Q, F), nearest first."""
    if centred:
        bank, queries = bank - bank.mean(dim=0), queries - queries.mean(dim=0)
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    return torch.cat([(chunk @ bank.T).topk(k).indices for chunk in queries.split(_CHUNK)])
