"""The momentum encoder: a moving average of the online encoder that computes the keys."""

import copy
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eztorch_sce.models.encoder import Encoder
from eztorch_sce.shards import shard_of
from eztorch_sce.types import Embeddings


class MomentumEncoder(nn.Module):
    """An exponential moving average of a network; of an `Encoder`, of its backbone and projector.

    It starts as a copy. Its parameters are averages and receive no gradients; its batch norms keep their own statistics
    and always run in training mode, as in the papers.

    Source: He et al., CVPR 2020, arXiv:1911.05722.
    """

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        self.encoder = online.without_predictor() if isinstance(online, Encoder) else copy.deepcopy(online)
        self.encoder.requires_grad_(False)

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """Return the keys (B, D) of clips (B, C, T, H, W): the projections of an encoder, or the network's output."""
        output = self.encoder(clips)
        keys: Tensor = output.z if isinstance(output, Embeddings) else output
        return keys

    if TYPE_CHECKING:
        __call__ = forward  # that of nn.Module takes and returns Any

    @torch.no_grad()
    def update(self, online: nn.Module, momentum: float) -> None:
        """Set the average to `momentum * average + (1 - momentum) * online`; call once per optimizer step.

        Raises:
            ValueError: If the parameters of `online` are not those of the network that is averaged.
        """
        averaged, latest = dict(self.encoder.named_parameters()), dict(online.named_parameters())
        if missing := averaged.keys() - latest.keys():
            raise ValueError(
                f"the online network has no parameter {min(missing)}: pass the network that the momentum encoder "
                "copied, without a wrapper such as DistributedDataParallel (its .module)"
            )
        averages, values = [shard_of(each) for each in averaged.values()], [shard_of(latest[name]) for name in averaged]
        torch._foreach_lerp_(averages, values, 1 - momentum)


def cosine_momentum(start: float, progress: float) -> float:
    """Return the momentum at `progress` in [0, 1] of training, rising from `start` to 1 along half a cosine.

    >>> cosine_momentum(0.99, progress=0.5)
    0.995
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
