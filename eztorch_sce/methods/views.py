"""How the views of a batch go through an encoder."""

import torch
from torch import Tensor

from eztorch_sce.models.encoder import Encoder
from eztorch_sce.types import Embeddings


def embed_views(encoder: Encoder, views: list[Tensor], num_global: int) -> list[Embeddings]:
    """Embed each global view by itself, and the local views of one shape in one forward pass.

    Args:
        encoder: The network.
        views: Each (B, C, T, S, S), the `num_global` global ones first.
        num_global: How many are global.
    """
    embedded = [encoder(view) for view in views[:num_global]]
    local = views[num_global:]
    by_number: dict[int, Embeddings] = {}
    for shape in dict.fromkeys(view.shape for view in local):
        alike = [number for number, view in enumerate(local) if view.shape == shape]
        together = encoder(torch.cat([local[number] for number in alike]))
        parts = zip(*(part.chunk(len(alike)) for part in together), strict=True)
        by_number |= {number: Embeddings(*part) for number, part in zip(alike, parts, strict=True)}
    return embedded + [by_number[number] for number in range(len(local))]
