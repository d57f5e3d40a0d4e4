"""Similarity Contrastive Estimation (SCE).

For each sample, over its key and the negatives k:

    loss = -sum_k w_k log p_k                    p = softmax_k(query . k / temperature)
    w = positive_weight                          for the key
    w_k = (1 - positive_weight) s_k              for the negatives, s = softmax_k(key . k / target_temperature)
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from eztorch_sce.losses.contrastive import ContrastiveLoss, SampleLosses
from eztorch_sce.losses.negatives import Negatives
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, setting


@register("loss", "sce")
@dataclass
class SCEConfig(Settings):
    """Similarity Contrastive Estimation: contrast the positive, rank the negatives as keys do."""

    temperature: float = setting(0.1, above=0, help="Temperature of the similarities of the query (tau in the paper).")
    target_temperature: float = setting(
        0.05,
        above=0,
        help="Temperature of the similarities of the key; lower values give sharper targets (tau_m in the paper).",
    )
    positive_weight: float = setting(
        0.5, at_least=0, at_most=1, help="Weight of the positive in the target; 1 is InfoNCE (lambda in the paper)."
    )

    needs_negatives = True

    def build(self) -> "SCELoss":
        """Return the loss."""
        return SCELoss(self.temperature, self.target_temperature, self.positive_weight)


class SCELoss(ContrastiveLoss):
    """Contrast the positive, and rank the negatives as the momentum encoder ranks them.

    Source: Denize et al., WACV 2023, arXiv:2111.14585.
    """

    def __init__(
        self,
        temperature: float = SCEConfig.temperature,
        target_temperature: float = SCEConfig.target_temperature,
        positive_weight: float = SCEConfig.positive_weight,
        *,
        normalize: bool = False,
    ) -> None:
        super().__init__(SCEConfig(temperature, target_temperature, positive_weight), normalize)
        self.temperature, self.target_temperature = temperature, target_temperature
        self.positive_weight = positive_weight

    def per_sample(self, query: Float[Tensor, "B D"], key: Float[Tensor, "B D"], negatives: Negatives) -> SampleLosses:
        """Return the cross entropy of each sample, from unit vectors."""
        positive = (query * key).sum(dim=1) / self.temperature  # (B,)
        others = negatives.log_sum_exp(query, self.temperature)  # (B,): (query @ negatives.T / tau).logsumexp(dim=1)
        related = negatives.relation(key, self.target_temperature).mean  # (B, D): s @ negatives

        everything = torch.logaddexp(others, positive)  # log of the denominator of p
        log_positive = F.logsigmoid(positive - others)  # = positive - everything, without cancellation if p is near 1
        log_related = (query * related).sum(dim=1) / self.temperature - everything  # = sum_k s_k log p_k
        loss = -(self.positive_weight * log_positive + (1 - self.positive_weight) * log_related)
        return SampleLosses(loss, log_positive.exp())
