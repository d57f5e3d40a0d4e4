"""NT-Xent, the contrastive loss of SimCLR."""

from dataclasses import dataclass

from eztorch_sce.losses.infonce import InfoNCELoss
from eztorch_sce.losses.pairs import ViewPairs
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, setting


@register("loss", "ntxent")
@dataclass
class NTXentConfig(Settings):
    """NT-Xent: InfoNCE in which keys receive gradients too, as in SimCLR."""

    temperature: float = setting(0.1, above=0, help="Temperature of the similarities.")

    def build(self) -> "NTXentLoss":
        """Return the loss."""
        return NTXentLoss(self.temperature)


class NTXentLoss(InfoNCELoss):
    """InfoNCE with gradients for the keys: classify a sample's other view among both views of all other samples.

    The negatives are both views of the global batch: `batch_keys` (2, G, D) with their gradients.

    Source: Chen et al., ICML 2020, arXiv:2002.05709.
    """

    def __init__(self, temperature: float = NTXentConfig.temperature) -> None:
        super().__init__(temperature)

    def targets(self, views: ViewPairs) -> ViewPairs:
        """Return the views unchanged, so that keys receive gradients."""
        return views
