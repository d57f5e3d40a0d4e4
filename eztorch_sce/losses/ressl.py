"""ReSSL: relational self-supervised learning."""

from dataclasses import dataclass

from eztorch_sce.losses.soft_contrast import SoftContrast, setting_problems
from eztorch_sce.registry import register


class ReSSLLoss(SoftContrast):
    """Rank the negatives as the momentum encoder ranks them; the positive is on neither side.

    Source: Zheng et al., NeurIPS 2021, arXiv:2107.09282.

    Args:
        temperature: Divides the similarities of the query; > 0.
        target_temperature: Divides the similarities of the key; > 0, below `temperature` to sharpen.
        implementation: "streaming" or "dense", see `SoftContrast`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self, temperature: float = 0.1, target_temperature: float = 0.04, implementation: str = "streaming"
    ) -> None:
        super().__init__(temperature, target_temperature, 0.0, implementation, positive_is_candidate=False)


@register("loss", "ressl")
@dataclass
class ReSSLConfig:
    """Settings of `ReSSLLoss`."""

    temperature: float = 0.1
    target_temperature: float = 0.04
    implementation: str = "streaming"

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        return setting_problems(prefix, self.temperature, self.target_temperature, implementation=self.implementation)

    def build(self) -> ReSSLLoss:
        """Return the loss."""
        return ReSSLLoss(self.temperature, self.target_temperature, self.implementation)
