"""How the views of a batch go through an encoder."""

from itertools import groupby

import torch
from torch import Tensor

from eztorch_sce.models.encoder import Encoder
from eztorch_sce.types import Embeddings


def embed_views(encoder: Encoder, views: list[Tensor], num_global: int) -> list[Embeddings]:
    """Embed each global view by itself, and neighbouring local views of one shape in one forward pass.

    Args:
        encoder: The network.
        views: Each (B, C, T, S, S), the `num_global` global ones first.
        num_global: How many are global.
    """
    embedded = [encoder(view) for view in views[:num_global]]
    for _, group in groupby(views[num_global:], key=lambda view: view.shape):
        alike = list(group)
        together = encoder(torch.cat(alike))
        parts = zip(*(part.chunk(len(alike)) for part in together), strict=True)
        embedded += [Embeddings(*part) for part in parts]
    return embedded
