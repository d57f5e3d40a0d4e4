"""InfoNCE, the contrastive loss of MoCo."""

from dataclasses import dataclass

from eztorch_sce.losses.soft_contrast import SoftContrast, setting_problems
from eztorch_sce.registry import register


class InfoNCELoss(SoftContrast):
    """Tell the positive from the negatives: cross entropy of the softmax over similarities.

    Source: van den Oord et al., 2018, arXiv:1807.03748; with a queue: He et al., CVPR 2020, arXiv:1911.05722; MoCo v3:
    Chen et al., ICCV 2021, arXiv:2104.02057.

    Args:
        temperature: Divides the similarities; > 0.
        implementation: "streaming" or "dense", see `SoftContrast`.
        weight: Multiplies the loss; > 0. MoCo v3 takes 2 * temperature, and the sum instead of the mean over its two
            pairs, so 4 * temperature here.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, temperature: float = 0.1, implementation: str = "streaming", weight: float = 1.0) -> None:
        super().__init__(temperature, implementation=implementation, weight=weight)


@register("loss", "infonce")
@dataclass
class InfoNCEConfig:
    """Settings of `InfoNCELoss`."""

    temperature: float = 0.1
    implementation: str = "streaming"
    weight: float = 1.0

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        return setting_problems(prefix, self.temperature, implementation=self.implementation, weight=self.weight)

    def build(self) -> InfoNCELoss:
        """Return the loss."""
        return InfoNCELoss(self.temperature, self.implementation, self.weight)
