"""NT-Xent, the contrastive loss of SimCLR."""

from dataclasses import dataclass

from eztorch_sce.losses.soft_contrast import SoftContrast, setting_problems
from eztorch_sce.registry import register


class NTXentLoss(SoftContrast):
    """Tell the other view of a sample from both views of all others; every embedding learns, as query and as key.

    `batch_keys` are both views of the global batch, (2, G, D), with their gradients.

    Source: Chen et al., ICML 2020, arXiv:2002.05709.

    Args:
        temperature: Divides the similarities; > 0.
        implementation: "streaming" or "dense", see `SoftContrast`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, temperature: float = 0.1, implementation: str = "streaming") -> None:
        super().__init__(temperature, implementation=implementation, keys_learn=True)


@register("loss", "ntxent")
@dataclass
class NTXentConfig:
    """Settings of `NTXentLoss`."""

    temperature: float = 0.1
    implementation: str = "streaming"

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        return setting_problems(prefix, self.temperature, implementation=self.implementation)

    def build(self) -> NTXentLoss:
        """Return the loss."""
        return NTXentLoss(self.temperature, self.implementation)
