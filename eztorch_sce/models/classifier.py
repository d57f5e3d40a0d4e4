"""A backbone with a linear classifier."""

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
        self.linear = nn.Linear(backbone.num_features, num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits (B, num_classes) of normalised clips (B, C, T, H, W)."""
        return self.linear(self.dropout(self.backbone(clips)))
