"""The momentum encoder: a slow copy that gives the keys."""

import copy
import math

import torch
from torch import Tensor, nn

from eztorch_sce.models.encoder import Encoder


class MomentumEncoder(nn.Module):
    """An exponential moving average of the backbone and the projector of an encoder.

    It starts as a copy. Its parameters are averaged and take no gradient; its batch norms keep their own statistics
    and always run in training mode, as in the papers.

    Source: He et al., CVPR 2020, arXiv:1911.05722.
    """

    def __init__(self, online: Encoder) -> None:
        super().__init__()
        self.encoder = Encoder(copy.deepcopy(online.backbone), copy.deepcopy(online.projector))
        self.encoder.requires_grad_(False)

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """Return keys, unit vectors (B, D), of clips (B, C, T, H, W)."""
        return self.encoder(clips).z

    @torch.no_grad()
    def update(self, online: Encoder, momentum: float) -> None:
        """Move to `momentum` times itself plus the rest of the online encoder; once per optimizer step."""
        slow: list[Tensor] = list(
            self.encoder.parameters()
        )  # backbone, then projector; the momentum encoder has no predictor
        fast: list[Tensor] = [*online.backbone.parameters(), *online.projector.parameters()]
        torch._foreach_lerp_(slow, fast, 1 - momentum)


def cosine_momentum(start: float, progress: float) -> float:
    """Return the momentum at `progress` in [0, 1] of training, rising from `start` to 1 along half a cosine."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
