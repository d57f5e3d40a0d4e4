"""Negatives of a batch: a queue shared by all views, and the other samples of the batch."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from eztorch_sce.losses.pairs import ViewPairs
from eztorch_sce.losses.streaming import Keys, attend, log_sum_exp


class Relation(NamedTuple):
    """The softmax of a key's similarities with the negatives.

    Attributes:
        mean: Mean of the negatives under this distribution, (B, D).
        totals: Log-sum-exp of the similarities with the negatives of each source, (sources, B).
        key, temperature: The key (B, D), and the divisor of its similarities.
    """

    mean: Float[Tensor, "B D"]
    totals: Float[Tensor, "sources B"]
    key: Float[Tensor, "B D"]
    temperature: float

    @property
    def entropy(self) -> Float[Tensor, " B"]:
        """The entropy of this distribution in nats."""
        expected = (self.key * self.mean).sum(dim=1) / self.temperature  # mean similarity
        return (self.totals.logsumexp(dim=0) - expected).clamp_min(0)


class SharedNegatives:
    """Negatives shared by all views, read once for all queries and once for all keys.

    Args:
        rows: Unit vectors (K, D).
        queries, keys: The views of the batch, each (B, D).
        temperature: Temperature of the queries' similarities.
    """

    def __init__(self, rows: Tensor, queries: list[Tensor], keys: list[Tensor], temperature: float) -> None:
        self.rows, self.queries, self.keys, self.temperature = Keys(rows), queries, keys, temperature
        self._totals = _split(log_sum_exp(torch.cat(queries), self.rows, temperature), queries)
        self._attended: dict[float, list[tuple[Tensor, Tensor]]] = {}

    def log_sum_exp(self, query: Tensor, temperature: float) -> Tensor:
        """Return the log-sum-exp (B,) of a query, from the shared pass if the query is a view."""
        view = _position(query, self.queries)
        if view is None or temperature != self.temperature:
            return log_sum_exp(query, self.rows, temperature)
        return self._totals[view]

    def attend(self, key: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Return the log-sum-exp (B,) and softmax mean (B, D) of a key, from the shared pass if the key is a view."""
        view = _position(key, self.keys)
        if view is None:
            return attend(key, self.rows, temperature)
        if temperature not in self._attended:
            totals, means = attend(torch.cat(self.keys), self.rows, temperature)
            self._attended[temperature] = list(zip(_split(totals, self.keys), _split(means, self.keys), strict=True))
        return self._attended[temperature][view]


class Negatives:
    """All negatives of the queries that are compared with one key view.

    Args:
        shared: Negatives of all views, or None.
        in_batch: Keys of the batch; each sample's own key is left out.
    """

    def __init__(self, shared: SharedNegatives | None, in_batch: list[Keys]) -> None:
        self.shared, self.in_batch = shared, in_batch
        self.relations: dict[float, Relation] = {}  # by temperature: the same for every query of the key view

    def log_sum_exp(self, query: Float[Tensor, "B D"], temperature: float) -> Float[Tensor, " B"]:
        """Return log sum_k exp(query . k / temperature) over the negatives k."""
        totals = [] if self.shared is None else [self.shared.log_sum_exp(query, temperature)]
        totals += [log_sum_exp(query, keys, temperature) for keys in self.in_batch]
        return torch.stack(totals).logsumexp(dim=0)

    @torch.no_grad()
    def relation(self, key: Float[Tensor, "B D"], temperature: float) -> Relation:
        """Return the relation softmax_k(key . k / temperature) over the negatives k, without gradients."""
        if temperature not in self.relations:
            sources = [] if self.shared is None else [self.shared.attend(key, temperature)]
            sources += [attend(key, keys, temperature) for keys in self.in_batch]
            totals = torch.stack([total for total, _ in sources])  # (sources, B)
            means = torch.stack([mean for _, mean in sources])  # (sources, B, D)
            mean = (totals.softmax(dim=0)[..., None] * means).sum(dim=0)
            self.relations[temperature] = Relation(mean, totals, key, temperature)
        return self.relations[temperature]


def in_batch_keys(views: ViewPairs, key_view: int) -> list[Keys]:
    """Return the in-batch keys of a key view, one entry per view; empty for a batch of one sample."""
    if views.batch_keys is None:
        return []
    batch_keys = views.batch_keys[key_view]  # (G, D) or (V, G, D)
    by_view = batch_keys if batch_keys.ndim == 3 else batch_keys[None]
    return [Keys(rows, views.batch_offset) for rows in by_view if len(rows) > 1]


def _split(rows: Tensor, views: list[Tensor]) -> list[Tensor]:
    """Undo the concatenation of views along the batch."""
    return list(rows.split([len(view) for view in views]))


def _position(view: Tensor, views: list[Tensor]) -> int | None:
    """Return the index of a tensor in a list by identity, or None."""
    return next((index for index, other in enumerate(views) if other is view), None)
