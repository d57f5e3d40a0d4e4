"""The momentum encoder: a moving average of the online encoder that computes the keys."""

import copy
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eztorch_sce.models.encoder import Encoder


class MomentumEncoder(nn.Module):
    """An exponential moving average of the backbone and the projector of an encoder.

    It starts as a copy. Its parameters are averages and receive no gradients; its batch norms keep their own statistics
    and always run in training mode, as in the papers.

    Source: He et al., CVPR 2020, arXiv:1911.05722.
    """

    def __init__(self, online: Encoder) -> None:
        super().__init__()
        self.encoder = Encoder(copy.deepcopy(online.backbone), copy.deepcopy(online.projector))
        self.encoder.requires_grad_(False)

    @torch.no_grad()
    def forward(self, clips: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B D"]:
        """Return the keys of clips, unit vectors."""
        keys: Tensor = self.encoder(clips).z
        return keys

    @torch.no_grad()
    def update(self, online: Encoder, momentum: float) -> None:
        """Set the average to `momentum * average + (1 - momentum) * online`; call once per optimizer step."""
        averaged: list[Tensor] = list(self.encoder.parameters())  # backbone, then projector; it has no predictor
        latest: list[Tensor] = [*online.backbone.parameters(), *online.projector.parameters()]
        torch._foreach_lerp_(averaged, latest, 1 - momentum)


def cosine_momentum(start: float, progress: float) -> float:
    """Return the momentum at `progress` in [0, 1] of training, rising from `start` to 1 along half a cosine.

    >>> cosine_momentum(0.99, progress=0.5)
    0.995
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
