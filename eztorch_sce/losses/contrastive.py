"""Contrastive losses: one formula per sample, and passes over the negatives that all pairs of views share."""

from abc import ABC, abstractmethod
from dataclasses import fields
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from eztorch_sce.losses.checks import UnitVectorLoss, check_finite, check_pair, check_views
from eztorch_sce.losses.negatives import Negatives, SharedNegatives, in_batch_keys
from eztorch_sce.losses.pairs import PairLosses, ViewPairs, alignment
from eztorch_sce.precision import exact_float32
from eztorch_sce.settings import invalid_settings


class SampleLosses(NamedTuple):
    """Results of a loss formula, one per sample.

    Attributes:
        loss: Loss of each sample, (B,).
        positive_mass: Probability that the query assigns to its key, (B,), for logging; None if it has none.
    """

    loss: Float[Tensor, " B"]
    positive_mass: Float[Tensor, " B"] | None = None


class ContrastiveLoss(UnitVectorLoss, ABC):
    """A loss that contrasts each query with its key and with negatives.

    A subclass writes its formula in `per_sample`. The similarities with all negatives are never held in memory: a
    formula needs only their log-sum-exp and the mean of the negatives under a softmax (see `streaming`).

    Args:
        config: The settings, including `temperature`; shown when the loss is printed.
        normalize: Whether to normalize the embeddings first; otherwise they must be unit vectors.

    Raises:
        ValueError: If a setting is out of range.
    """

    temperature: float
    needs_negatives = True

    def __init__(self, config: Any, normalize: bool = False) -> None:
        super().__init__(normalize)
        if messages := invalid_settings(config, type(self).__name__):
            raise ValueError("; ".join(messages))
        self.config = config

    @abstractmethod
    def per_sample(self, query: Float[Tensor, "B D"], key: Float[Tensor, "B D"], negatives: Negatives) -> SampleLosses:
        """Return the loss of each sample from unit vectors in float32 or float64."""

    def targets(self, views: ViewPairs) -> ViewPairs:
        """Return the views with keys and negatives detached: only the queries learn."""
        return views._replace(
            keys=[key.detach() for key in views.keys],
            negatives=None if views.negatives is None else views.negatives.detach(),
            batch_keys=None if views.batch_keys is None else [rows.detach() for rows in views.batch_keys],
        )

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        negatives: Tensor | None = None,
        batch_keys: Tensor | None = None,
        batch_offset: int = 0,
    ) -> Tensor:
        """Return the batch mean, a scalar, from embeddings of any floating-point types.

        Without `negatives` and `batch_keys`, the other samples of the batch are the negatives.

        Args:
            query: Online embeddings (B, D).
            key: Target embeddings of the same samples (B, D).
            negatives: Further keys (K, D), usually a queue.
            batch_keys, batch_offset: In-batch keys for this key view, as in `ViewPairs`.

        Raises:
            ValueError: If a shape or type is invalid, if there are no negatives, or if an embedding is not finite or
                not a unit vector. Norms, and on a GPU finiteness, are checked in the first call only.
        """
        check_pair(query, key)
        query, key = self.unit(query), self.unit(key)
        if negatives is None and batch_keys is None:
            return self.over_pairs(self.within_batch(query, key)._replace(with_metrics=False)).loss
        shared = None if negatives is None else self.unit(negatives)
        in_batch = None if batch_keys is None else [self.unit(batch_keys)]
        views = ViewPairs([query], [key], [(0, 0)], shared, in_batch, batch_offset, with_metrics=False)
        return self.over_pairs(views).loss

    if TYPE_CHECKING:
        __call__ = forward  # that of nn.Module takes and returns Any

    def within_batch(self, query: Tensor, key: Tensor) -> ViewPairs:
        """Return the views of a batch in which the other samples are the negatives."""
        return ViewPairs([query], [key], [(0, 0)], batch_keys=[key])

    def over_pairs(self, views: ViewPairs) -> PairLosses:
        """Return the mean over pairs. The queue is read twice, once for all queries and once for all keys."""
        embeddings = check_views(views)
        self.check_norms_once(embeddings)
        views = self.targets(views)
        with exact_float32():
            types = [rows.dtype for rows in (*views.queries, *views.keys)]
            dtype = reduce(torch.promote_types, types, torch.float32)  # similarities are divided by small temperatures
            queries, keys = ([rows.to(dtype) for rows in each] for each in (views.queries, views.keys))
            shared = None
            if views.negatives is not None:
                shared = SharedNegatives(views.negatives, queries, keys, self.temperature)
            negatives = [Negatives(shared, in_batch_keys(views, index)) for index in range(len(keys))]
            terms = [self.per_sample(queries[i], keys[j], negatives[j]) for i, j in views.pairs]
            loss = torch.stack([term.loss.mean() for term in terms]).mean()
        check_finite(loss, embeddings)
        metrics = {"alignment": alignment(views)} | _metrics(terms, negatives) if views.with_metrics else {}
        return PairLosses(loss, metrics)

    def extra_repr(self) -> str:
        """Return the current values of the settings, shown when the loss is printed."""
        settings = [f"{item.name}={getattr(self, item.name)}" for item in fields(self.config)]
        return ", ".join(filter(None, [*settings, super().extra_repr()]))


@torch.no_grad()
def _metrics(terms: list[SampleLosses], negatives: list[Negatives]) -> dict[str, Tensor]:
    """Return the mean positive mass and the mean entropy of the relations, if the formula uses them."""
    metrics = {}
    masses = [term.positive_mass.mean() for term in terms if term.positive_mass is not None]
    if masses:
        metrics["positive_mass"] = torch.stack(masses).mean()
    entropies = [relation.entropy for key_view in negatives for relation in key_view.relations.values()]
    if entropies:
        metrics["target_entropy"] = torch.cat(entropies).mean()
        metrics["target_neighbors"] = torch.cat(entropies).exp().mean()  # effective number of related negatives
    return metrics
