"""A backbone with a linear classifier."""

import torch
from torch import Tensor, nn

from eztorch_sce.models.backbones.base import Backbone


class Classifier(nn.Module):
    """Backbone, dropout, linear layer (weight N(0, 0.01), bias 0).

    Args:
        backbone: (B, C, T, H, W) to (B, F).
        num_classes: Outputs.
        dropout: Probability, before the linear layer.
    """

    def __init__(self, backbone: Backbone, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.linear = linear_head(backbone.num_features, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits (B, num_classes) of normalized clips (B, C, T, H, W)."""
        return self.linear(self.dropout(self.backbone(clips)))


def linear_head(num_features: int, num_classes: int, generator: torch.Generator | None = None) -> nn.Linear:
    """Return a linear layer as the papers start it: weight N(0, 0.01), bias 0."""
    head = nn.Linear(num_features, num_classes)
    nn.init.normal_(head.weight, std=0.01, generator=generator)
    nn.init.zeros_(head.bias)
    return head
