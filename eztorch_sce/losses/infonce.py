"""InfoNCE, the contrastive loss of MoCo."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from eztorch_sce.losses.contrastive import ContrastiveLoss, SampleLosses
from eztorch_sce.losses.negatives import Negatives
from eztorch_sce.losses.pairs import PairLosses, ViewPairs
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, setting


@register("loss", "infonce")
@dataclass
class InfoNCEConfig(Settings):
    """InfoNCE: classify the positive among the negatives, as in MoCo."""

    temperature: float = setting(0.1, above=0, help="Temperature of the similarities.")
    weight: float = setting(
        1.0, above=0, help="Weight of the loss. MoCo v3 uses 4 * temperature: 2 * temperature, summed over two pairs."
    )

    needs_negatives = True

    def build(self) -> "InfoNCELoss":
        """Return the loss."""
        return InfoNCELoss(self.temperature, self.weight)


class InfoNCELoss(ContrastiveLoss):
    """Classify the positive among the negatives: cross entropy of the softmax over similarities.

    Source: van den Oord et al., 2018, arXiv:1807.03748; with a queue: He et al., CVPR 2020, arXiv:1911.05722; MoCo v3:
    Chen et al., ICCV 2021, arXiv:2104.02057.
    """

    def __init__(
        self,
        temperature: float = InfoNCEConfig.temperature,
        weight: float = InfoNCEConfig.weight,
        *,
        normalize: bool = False,
    ) -> None:
        super().__init__(InfoNCEConfig(temperature, weight), normalize)
        self.temperature, self.weight = temperature, weight

    def per_sample(self, query: Float[Tensor, "B D"], key: Float[Tensor, "B D"], negatives: Negatives) -> SampleLosses:
        """Return -log p(positive) of each sample, unweighted; p is the softmax of query . k / temperature."""
        positive = (query * key).sum(dim=1) / self.temperature  # (B,)
        others = negatives.log_sum_exp(query, self.temperature)  # (B,)
        log_positive = F.logsigmoid(positive - others)
        return SampleLosses(-log_positive, log_positive.exp())

    def over_pairs(self, views: ViewPairs) -> PairLosses:
        """Return the weighted mean over pairs."""
        losses = super().over_pairs(views)
        return losses._replace(loss=self.weight * losses.loss)
