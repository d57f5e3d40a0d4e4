"""A backbone with its projector and predictor."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.types import Embeddings


class Encoder(nn.Module):
    """Clips to unit vectors: backbone, projector, and a predictor where the method has one.

    Args:
        backbone: (B, C, T, H, W) to (B, F).
        projector: (B, F) to (B, D).
        predictor: (B, D) to (B, D), or None.
    """

    def __init__(self, backbone: Backbone, projector: nn.Module, predictor: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone, self.projector, self.predictor = backbone, projector, predictor

    def forward(self, clips: Tensor) -> Embeddings:
        """Embed normalized clips (B, C, T, H, W)."""
        h = self.backbone(clips)  # (B, F)
        projection = self.projector(h)  # (B, D)
        z = _unit(projection)
        q = z if self.predictor is None else _unit(self.predictor(projection))
        return Embeddings(h, z, q)


def _unit(x: Tensor) -> Tensor:
    """Normalize in float32 at least: the losses divide similarities by small temperatures."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)
