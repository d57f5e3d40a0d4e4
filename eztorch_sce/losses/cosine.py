"""Squared distance between unit vectors, the loss of BYOL."""

from dataclasses import dataclass

from torch import Tensor, nn

from eztorch_sce.losses.checks import check_finite, check_pair
from eztorch_sce.losses.pairs import squared_distance
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings


class CosineLoss(nn.Module):
    """Predict the key: 2 - 2 cos(query, key). Negatives are ignored.

    Source: Grill et al., NeurIPS 2020, arXiv:2006.07733.
    """

    def forward(self, query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Return the batch mean, a scalar in [0, 4], from unit vectors (B, D).

        Raises:
            ValueError: If the shapes differ, or (on a CPU) an embedding is not finite.
        """
        check_pair(query, key)
        loss = squared_distance(query, key.detach()).mean()
        check_finite(loss, [("query", query), ("key", key)])
        return loss


@register("loss", "cosine")
@dataclass
class CosineConfig(Settings):
    """Squared distance between query and key, as in BYOL; no settings."""

    needs_negatives = False

    def build(self) -> CosineLoss:
        """Return the loss."""
        return CosineLoss()
