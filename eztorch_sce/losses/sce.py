"""Similarity Contrastive Estimation."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eztorch_sce.losses.similarity import detached, similarities
from eztorch_sce.registry import register


class SCELoss(nn.Module):
    """Contrast the positive, and rank the negatives as the momentum encoder ranks them.

    The target of a query is `positive_weight` on its own key, and the rest spread over the negatives like the softmax
    of the key's similarities with them, the positive left out.

    Source: Denize et al., WACV 2023, arXiv:2111.14585 (lambda, tau and tau_m in the paper).

    Args:
        temperature: Divides the similarities of the query; > 0 (tau).
        target_temperature: Divides the similarities of the key; > 0, below `temperature` to sharpen (tau_m).
        positive_weight: Share of the target on the positive, in [0, 1]; 1 is InfoNCE (lambda).

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self, temperature: float = 0.1, target_temperature: float = 0.05, positive_weight: float = 0.5
    ) -> None:
        super().__init__()
        config = SCEConfig(temperature, target_temperature, positive_weight)
        if problems := config.problems("SCELoss"):
            raise ValueError("; ".join(problems))
        self.temperature, self.target_temperature = temperature, target_temperature
        self.positive_weight = positive_weight

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        negatives: Tensor | None = None,
        batch_keys: Tensor | None = None,
        batch_offset: int = 0,
    ) -> Tensor:
        """Return the batch mean, a scalar.

        Args:
            query: Online embeddings, unit vectors (B, D).
            key: Momentum embeddings of the same samples, unit vectors (B, D).
            negatives: Unit vectors (K, D), usually a queue.
            batch_keys: All keys of the global batch (G, D), used as negatives of each other.
            batch_offset: Row of `batch_keys` where `key` begins.
        """
        key = key.detach()  # only the query learns
        negatives, batch_keys = detached(negatives), detached(batch_keys)
        logits = similarities(query, key, negatives, batch_keys, batch_offset) / self.temperature  # (B, 1 + K + G)
        log_prediction = F.log_softmax(logits, dim=1)
        relation = similarities(key, key, negatives, batch_keys, batch_offset) / self.target_temperature
        relation[:, 0] = -torch.inf  # the paper leaves the positive out; its public code leaves it in with logit 0
        target = (1 - self.positive_weight) * relation.softmax(dim=1)
        target[:, 0] = self.positive_weight
        # A masked column has probability 0 on both sides; 0 * -inf would be NaN.
        return -(target * log_prediction.masked_fill(target == 0, 0)).sum(dim=1).mean()


@register("loss", "sce")
@dataclass
class SCEConfig:
    """Settings of `SCELoss`."""

    temperature: float = 0.1
    target_temperature: float = 0.05
    positive_weight: float = 0.5

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        found = [
            f"{prefix}.{name}={value} must be greater than 0"
            for name, value in (("temperature", self.temperature), ("target_temperature", self.target_temperature))
            if not value > 0
        ]
        if not 0 <= self.positive_weight <= 1:
            found.append(f"{prefix}.positive_weight={self.positive_weight} must be between 0 and 1")
        return found

    def build(self) -> SCELoss:
        """Return the loss."""
        return SCELoss(self.temperature, self.target_temperature, self.positive_weight)
