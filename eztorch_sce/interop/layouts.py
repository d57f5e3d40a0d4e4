"""Layouts: the names that code bases give to the tensors of networks that we have."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch

from eztorch_sce import registry
from eztorch_sce.models.backbones.base import Backbone, BackboneConfig, as_backbone, build_network

COUNTER = "num_batches_tracked"
"""Last part of the name of a counter of batch norm, which no output depends on and many files lack."""


class Network(NamedTuple):
    """A network of ours.

    Attributes:
        backbone: Its registered name.
        settings: Settings that decide shapes, as (name, value), other than the defaults.
    """

    backbone: str
    settings: tuple[tuple[str, Any], ...] = ()

    def config(self, more: Mapping[str, Any] | None = None) -> BackboneConfig:
        """Return the config that builds it, with further settings."""
        cls = registry.choices("backbone")[self.backbone]
        config: BackboneConfig = cls(**{**dict(self.settings), **(more or {})})
        return config


@cache
def _built(network: Network) -> Backbone:
    """Return a network without numbers."""
    with torch.device("meta"):
        return as_backbone(build_network(network.config()))


@cache
def shapes_of(network: Network) -> Mapping[str, torch.Size]:
    """Return the shapes in the state dict of a network, in order, by our names."""
    return {name: tensor.shape for name, tensor in _built(network).state_dict().items()}


def width_of(network: Network) -> int:
    """Return the number of features of a network."""
    return _built(network).num_features


@dataclass(frozen=True)
class Layout:
    """The names that a code base gives to the tensors of networks.

    Attributes:
        name: Its name.
        anchor: Their name of the first convolution's weight, by which a network is found in a file.
        networks: The networks that have such names, in the order in which they are tried. Of several that fit a file,
            the first is taken unless the user names another.
        renames: Pairs of a pattern in our names and its replacement, applied in order by `re.sub`.
        head: Their name of the linear classifier, without ".weight"; "" if there is none.
    """

    name: str
    anchor: str
    networks: tuple[Network, ...]
    renames: tuple[tuple[str, str], ...] = ()
    head: str = "fc"

    def theirs(self, name: str) -> str:
        """Return the name that a tensor of ours has in this layout."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


_RESNETS = tuple(
    Network(name, settings)
    for settings in ((), (("small_input", True),))
    for name in ("resnet50", "resnet18", "resnet34")
)

_IMAGES = (Layout("torchvision", "conv1.weight", _RESNETS),)

_VIDEO = (
    Layout(
        "pytorchvideo",
        "blocks.0.conv.weight",
        (Network("r3d50"), Network("r3d18"), Network("r2plus1d_50")),
        head="blocks.5.proj",
    ),
)

LAYOUTS: Mapping[str, Layout] = {layout.name: layout for layout in (*_IMAGES, *_VIDEO)}
"""The layouts by name."""
