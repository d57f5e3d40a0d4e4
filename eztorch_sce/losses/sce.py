"""Similarity Contrastive Estimation."""

from dataclasses import dataclass, field

from eztorch_sce.losses.soft_contrast import SoftContrast, setting_problems
from eztorch_sce.optim.ramp import NO_RAMP, Ramp
from eztorch_sce.registry import register


class SCELoss(SoftContrast):
    """Contrast the positive, and rank the negatives as the momentum encoder ranks them.

    The target of a query is `positive_weight` on its own key, and the rest spread over the negatives like the softmax
    of the key's similarities with them, the positive left out.

    Source: Denize et al., WACV 2023, arXiv:2111.14585 (lambda, tau and tau_m in the paper).

    Args:
        temperature: Divides the similarities of the query; > 0 (tau).
        target_temperature: Divides the similarities of the key; > 0, below `temperature` to sharpen (tau_m).
        positive_weight: Share of the target on the positive, in [0, 1]; 1 is InfoNCE (lambda).
        implementation: "streaming" or "dense", see `SoftContrast`.
        target_temperature_ramp, positive_weight_ramp: How the two get to their values in training.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        target_temperature: float = 0.05,
        positive_weight: float = 0.5,
        implementation: str = "streaming",
        target_temperature_ramp: Ramp = NO_RAMP,
        positive_weight_ramp: Ramp = NO_RAMP,
    ) -> None:
        super().__init__(
            temperature,
            target_temperature,
            positive_weight,
            implementation,
            target_temperature_ramp=target_temperature_ramp,
            positive_weight_ramp=positive_weight_ramp,
        )


@register("loss", "sce")
@dataclass
class SCEConfig:
    """Settings of `SCELoss`."""

    temperature: float = 0.1
    target_temperature: float = 0.05
    positive_weight: float = 0.5
    implementation: str = "streaming"
    target_temperature_ramp: Ramp = field(default_factory=Ramp)
    positive_weight_ramp: Ramp = field(default_factory=Ramp)

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        return setting_problems(
            prefix,
            self.temperature,
            self.target_temperature,
            self.positive_weight,
            self.implementation,
            target_temperature_ramp=self.target_temperature_ramp,
            positive_weight_ramp=self.positive_weight_ramp,
        )

    def build(self) -> SCELoss:
        """Return the loss."""
        return SCELoss(
            self.temperature,
            self.target_temperature,
            self.positive_weight,
            self.implementation,
            self.target_temperature_ramp,
            self.positive_weight_ramp,
        )
