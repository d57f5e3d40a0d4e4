"""InfoNCE, the contrastive loss of MoCo."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eztorch_sce.losses.similarity import detached, similarities
from eztorch_sce.registry import register


class InfoNCELoss(nn.Module):
    """Tell the positive from the negatives: cross entropy of the softmax over similarities.

    Source: van den Oord et al., 2018, arXiv:1807.03748; with a queue: He et al., CVPR 2020, arXiv:1911.05722.

    Args:
        temperature: Divides the similarities; > 0.

    Raises:
        ValueError: If the temperature is not positive.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if problems := InfoNCEConfig(temperature).problems("InfoNCELoss"):
            raise ValueError("; ".join(problems))
        self.temperature = temperature

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        negatives: Tensor | None = None,
        batch_keys: Tensor | None = None,
        batch_offset: int = 0,
    ) -> Tensor:
        """Return the batch mean, a scalar; arguments and shapes as in `SCELoss.forward`."""
        negatives, batch_keys = detached(negatives), detached(batch_keys)
        cosines = similarities(query, key.detach(), negatives, batch_keys, batch_offset)  # (B, 1 + K + G)
        logits = cosines / self.temperature
        return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))


@register("loss", "infonce")
@dataclass
class InfoNCEConfig:
    """Settings of `InfoNCELoss`."""

    temperature: float = 0.1

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        return [] if self.temperature > 0 else [f"{prefix}.temperature={self.temperature} must be greater than 0"]

    def build(self) -> InfoNCELoss:
        """Return the loss."""
        return InfoNCELoss(self.temperature)
