"""A backbone with a linear classifier."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eztorch_sce.models.backbones.base import Backbone


class Classifier(nn.Module):
    """Backbone, dropout and linear layer (see `linear_head`).

    Args:
        backbone: Network that extracts the features.
        num_classes: Number of classes N.
        dropout: Probability of dropping a feature before the linear layer.
    """

    def __init__(self, backbone: Backbone, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.linear = linear_head(backbone.num_features, num_classes)

    def forward(self, clips: Float[Tensor, "B C ..."]) -> Float[Tensor, "B N"]:
        """Return the logits of normalized clips (B, C, T, H, W) or images (B, C, H, W)."""
        logits: Tensor = self.linear(self.dropout(self.backbone(clips)))
        return logits


def linear_head(num_features: int, num_classes: int, generator: torch.Generator | None = None) -> nn.Linear:
    """Return a linear classifier initialized as in the papers: weights from N(0, 0.01), zero bias."""
    head = nn.Linear(num_features, num_classes)
    nn.init.normal_(head.weight, std=0.01, generator=generator)
    nn.init.zeros_(head.bias)
    return head
