"""NT-Xent, the contrastive loss of SimCLR."""

from dataclasses import dataclass

import torch
from torch import Tensor

from eztorch_sce.losses.infonce import InfoNCELoss
from eztorch_sce.losses.pairs import ViewPairs
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, setting


@register("loss", "ntxent")
@dataclass
class NTXentConfig(Settings):
    """NT-Xent: InfoNCE in which keys receive gradients too, as in SimCLR."""

    temperature: float = setting(0.1, above=0, help="Temperature of the similarities.")

    needs_negatives = True

    def build(self) -> "NTXentLoss":
        """Return the loss."""
        return NTXentLoss(self.temperature)


class NTXentLoss(InfoNCELoss):
    """InfoNCE with gradients for the keys: classify a sample's other view among both views of all other samples.

    `loss(z0, z1)` is the mean over both directions: each of the 2N embeddings has 2N - 2 negatives. Otherwise the
    negatives are those passed: a queue, or both views of the global batch, `batch_keys` (2, G, D) with their gradients.

    Source: Chen et al., ICML 2020, arXiv:2002.05709.
    """

    def __init__(self, temperature: float = NTXentConfig.temperature, *, normalize: bool = False) -> None:
        super().__init__(temperature, normalize=normalize)

    def within_batch(self, query: Tensor, key: Tensor) -> ViewPairs:
        """Return both directions, with the other samples of both views as negatives."""
        both = torch.stack([query, key])  # (2, B, D)
        return ViewPairs([query, key], [query, key], [(0, 1), (1, 0)], batch_keys=[both, both])

    def targets(self, views: ViewPairs) -> ViewPairs:
        """Return the views unchanged, so that keys receive gradients."""
        return views
