"""Squared distance between unit vectors, the loss of BYOL."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eztorch_sce.losses.checks import UnitVectorLoss, check_finite, check_pair
from eztorch_sce.losses.pairs import PairLosses, ViewPairs, alignment, squared_distance
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings


class CosineLoss(UnitVectorLoss):
    """Predict the key: 2 - 2 cos(query, key). Negatives are ignored.

    Source: Grill et al., NeurIPS 2020, arXiv:2006.07733.

    Args:
        normalize: Whether to normalize the embeddings first; otherwise they must be unit vectors.
    """

    def __init__(self, normalize: bool = False) -> None:
        super().__init__(normalize)

    def forward(self, query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Return the batch mean, a scalar in [0, 4], from embeddings (B, D).

        Raises:
            ValueError: If the shapes differ, or an embedding is not finite or not a unit vector. Norms, and on a GPU
                finiteness, are checked in the first call only.
        """
        check_pair(query, key)
        query, key = self.unit(query), self.unit(key)
        embeddings = [("query", query), ("key", key)]
        self.check_norms_once(embeddings)
        loss = squared_distance(query, key.detach()).mean()
        check_finite(loss, embeddings)
        return loss

    if TYPE_CHECKING:
        __call__ = forward  # that of nn.Module takes and returns Any

    def over_pairs(self, views: ViewPairs) -> PairLosses:
        """Return the mean over pairs; the samples of other processes make no difference."""
        loss = torch.stack([self(views.queries[i], views.keys[j]) for i, j in views.pairs]).mean()
        return PairLosses(loss, {"alignment": alignment(views)} if views.with_metrics else {})


@register("loss", "cosine")
@dataclass
class CosineConfig(Settings):
    """Squared distance between query and key, as in BYOL; no settings."""

    needs_negatives = False

    def build(self) -> CosineLoss:
        """Return the loss."""
        return CosineLoss()
