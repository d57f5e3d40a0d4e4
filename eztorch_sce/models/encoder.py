"""A backbone with its projector and predictor."""

import copy
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.types import Embeddings


class Encoder(nn.Module):
    """Embed clips as unit vectors: backbone, projector, and a predictor if the method has one.

    Args:
        backbone: (B, C, T, H, W) to (B, F).
        projector: (B, F) to (B, D).
        predictor: (B, D) to (B, D), or None.
        normalize: Whether the embeddings are unit vectors; otherwise they are projections and predictions as they are.
    """

    def __init__(
        self, backbone: Backbone, projector: nn.Module, predictor: nn.Module | None = None, normalize: bool = True
    ) -> None:
        super().__init__()
        self.backbone, self.projector, self.predictor, self.normalize = backbone, projector, predictor, normalize

    def forward(self, clips: Tensor) -> Embeddings:
        """Embed normalized clips (B, C, T, H, W) or images (B, C, H, W)."""
        h = self.backbone(clips)  # (B, F)
        projection = self.projector(h)  # (B, D)
        z = self._embedding(projection)
        q = z if self.predictor is None else self._embedding(self.predictor(projection))
        return Embeddings(h, z, q)

    if TYPE_CHECKING:
        __call__ = forward  # that of nn.Module takes and returns Any

    def without_predictor(self) -> "Encoder":
        """Return a copy of the backbone and the projector."""
        return Encoder(copy.deepcopy(self.backbone), copy.deepcopy(self.projector), normalize=self.normalize)

    def _embedding(self, rows: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Convert to at least float32, since the losses divide similarities by small temperatures, and normalize."""
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        return F.normalize(rows, dim=1) if self.normalize else rows


def embed_views(encoder: Encoder, views: list[Tensor], num_global: int) -> list[Embeddings]:
    """Embed each global view separately, and all local views of the same shape in one forward pass.

    Args:
        encoder: The network.
        views: Views (B, C, T, S, S), global views first.
        num_global: Number of global views.
    """
    global_embeddings = [encoder(view) for view in views[:num_global]]
    local_views = views[num_global:]
    local_embeddings: dict[int, Embeddings] = {}
    for shape in dict.fromkeys(view.shape for view in local_views):
        indices = [index for index, view in enumerate(local_views) if view.shape == shape]
        merged: Embeddings = encoder(torch.cat([local_views[index] for index in indices]))
        chunks = zip(*(tensor.chunk(len(indices)) for tensor in merged), strict=True)
        local_embeddings |= {index: Embeddings(*chunk) for index, chunk in zip(indices, chunks, strict=True)}
    return global_embeddings + [local_embeddings[index] for index in range(len(local_views))]
