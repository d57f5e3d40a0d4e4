"""Channels-last layout of networks and clips, in which convolutions in 16 bits are fastest on a GPU."""

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@torch.no_grad()
def to_channels_last(network: nn.Module) -> nn.Module:
    """Store the weights of the convolutions of a network with their channels last, in place, and return the network.

    Values, names and shapes stay the same.
    """
    for parameter in network.parameters():
        if parameter.ndim in _CHANNELS_LAST:
            parameter.data = parameter.data.to(memory_format=_CHANNELS_LAST[parameter.ndim])
    return network


def clips_channels_last(clips: Shaped[Tensor, "B C T H W"]) -> Shaped[Tensor, "B C T H W"]:
    """Return clips that are stored with their channels last; those of one frame are so too as images (B, C, H, W)."""
    return clips.contiguous(memory_format=torch.channels_last_3d)
