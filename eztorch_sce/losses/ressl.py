"""ReSSL: relational self-supervised learning."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from eztorch_sce.losses.contrastive import ContrastiveLoss, SampleLosses
from eztorch_sce.losses.negatives import Negatives
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, setting


@register("loss", "ressl")
@dataclass
class ReSSLConfig(Settings):
    """ReSSL: rank the negatives as the momentum encoder does, without the positive."""

    temperature: float = setting(0.1, above=0, help="Temperature of the similarities of the query.")
    target_temperature: float = setting(
        0.04,
        above=0,
        help="Temperature of the similarities of the key; lower values give sharper targets.",
    )

    needs_negatives = True

    def build(self) -> "ReSSLLoss":
        """Return the loss."""
        return ReSSLLoss(self.temperature, self.target_temperature)


class ReSSLLoss(ContrastiveLoss):
    """Rank the negatives as the momentum encoder ranks them; the positive is left out of target and prediction.

    Source: Zheng et al., NeurIPS 2021, arXiv:2107.09282.
    """

    def __init__(
        self,
        temperature: float = ReSSLConfig.temperature,
        target_temperature: float = ReSSLConfig.target_temperature,
        *,
        normalize: bool = False,
    ) -> None:
        super().__init__(ReSSLConfig(temperature, target_temperature), normalize)
        self.temperature, self.target_temperature = temperature, target_temperature

    def per_sample(self, query: Float[Tensor, "B D"], key: Float[Tensor, "B D"], negatives: Negatives) -> SampleLosses:
        """Return the cross entropy between the softmaxes of key . k (target) and query . k over the negatives k."""
        others = negatives.log_sum_exp(query, self.temperature)  # (B,), log of the denominator of the prediction
        related = negatives.relation(key, self.target_temperature).mean  # (B, D)
        return SampleLosses(others - (query * related).sum(dim=1) / self.temperature)
