"""Channels-last layout of networks, in which convolutions in 16 bits are fastest on a GPU."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def to_channels_last(network: nn.Module) -> nn.Module:
    """Store the weights of the convolutions of a network with their channels last, in place, and return the network.

    A convolution of such weights returns this layout, so all that follows has it too. Values, names and shapes stay the
    same.
    """
    for weight in _weights_of_convolutions(network):
        weight.data = weight.data.contiguous(memory_format=_CHANNELS_LAST[weight.ndim])
    return network


def has_convolutions(network: nn.Module) -> bool:
    """Return whether a network has convolutions of images or clips."""
    return any(True for _ in _weights_of_convolutions(network))


def _weights_of_convolutions(network: nn.Module) -> Iterator[nn.Parameter]:
    """Yield weights (C2, C, *K) over two or three axes; of a parametrized one, those that it is computed from."""
    for convolution in network.modules():
        if isinstance(convolution, _ConvNd):
            yield from (weight for weight in convolution.parameters() if weight.ndim in _CHANNELS_LAST)
