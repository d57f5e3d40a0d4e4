"""Channels-last layout of networks, in which convolutions in 16 bits are fastest on a GPU."""

import torch
from torch import nn

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
