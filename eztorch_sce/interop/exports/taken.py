"""The network that is exported, as it was trained, and the inputs it is compared on."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eztorch_sce.data.sources.provenance import Provenance
from eztorch_sce.interop.exports.card import card_of
from eztorch_sce.models.backbones.base import (
    Backbone,
    BackboneConfig,
    NetworkBackbone,
    as_backbone,
    build_network,
)
from eztorch_sce.models.classifier import linear_head
from eztorch_sce.models.weights import Weights, load_weights


class WholeNetwork(nn.Module):
    """A backbone and its classifier, if it has one, with tuples as outputs.

    Args:
        backbone: The backbone.
        head: The classifier, or None.
    """

    def __init__(self, backbone: Backbone, head: nn.Linear | None) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the features (B, F), and the logits (B, N) if there is a classifier.

        Args:
            inputs: Normalized clips (B, 3, T, H, W), or images (B, 3, H, W) for a backbone that only takes images.
        """
        if isinstance(self.backbone, NetworkBackbone):
            features: Tensor = self.backbone.network(inputs)  # without the check of its output, which reads shapes
        else:
            features = self.backbone.features(inputs if self.backbone.takes_clips else inputs.unsqueeze(2))
        return (features,) if self.head is None else (features, self.head(features))


@dataclass(frozen=True)
class Taken:
    """A network to export.

    Attributes:
        weights: The content of its weights file.
        config: The config of its backbone.
        network: The network in evaluation mode.
        card: What the output says about it, in types of JSON, see `card_of`.
    """

    weights: Weights
    config: BackboneConfig
    network: WholeNetwork
    card: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the backbone."""
        return self.network.backbone.name

    @property
    def input_name(self) -> str:
        """Name of the input."""
        return "clips" if self.network.backbone.takes_clips else "images"

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in order."""
        return ["features"] if self.network.head is None else ["features", "logits"]

    def input_in_words(self) -> str:
        """Return the shape and the type of the input."""
        shape = ", ".join(str(length) for length in self.card["preprocessing"]["shape"])
        return f"{self.input_name} ({shape}), float32, prepared as its card says under preprocessing"

    def inputs(self, batch_size: int) -> Tensor:
        """Return random inputs, always the same: clips (B, 3, T, S, S), or images (B, 3, S, S)."""
        spec = self.weights.spec
        frames = (spec.num_frames,) if self.network.backbone.takes_clips else ()
        shape = (batch_size, 3, *frames, spec.size, spec.size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def open_run(run: str, license: str | None = None) -> Taken:
    """Return the network of a run.

    Args:
        run: The run directory, or a file of weights.
        license: Identifier of the license of the weights, for the card; None keeps the one that they have.

    Raises:
        ConfigError: If the weights cannot be read or their network cannot be built.
    """
    weights = _without_folders(load_weights(run))
    config = weights.config()
    network = network_of(weights, config)
    return Taken(weights, config, network, card_of(weights, network.backbone.takes_clips, Path(run), license))


def _without_folders(weights: Weights) -> Weights:
    """Return weights without the folders of this machine, which are nobody else's business."""
    source = weights.source and weights.source | {"file": os.path.basename(weights.source["file"])}
    return replace(weights, source=source, provenance=_named_only(weights.provenance))


def _named_only(provenance: Provenance | None) -> Provenance | None:
    if provenance is None:
        return None
    source, origin = (re.sub(r"\S*/", "", text) for text in (provenance.source, provenance.origin))
    return replace(provenance, source=source, origin=origin, earlier=_named_only(provenance.earlier))


def network_of(weights: Weights, config: BackboneConfig) -> WholeNetwork:
    """Return the network of weights in evaluation mode, without gradients."""
    spec = weights.spec
    backbone = as_backbone(build_network(config), num_frames=spec.num_frames, size=spec.size)
    weights.load_into(backbone)
    head = None
    if weights.head is not None:
        head = linear_head(backbone.num_features, len(weights.head["bias"]))
        head.load_state_dict(weights.head)
    network = WholeNetwork(backbone, head)
    network.eval().requires_grad_(False)
    return network


def outputs_of(network: nn.Module, inputs: Tensor) -> tuple[Tensor, ...]:
    """Return the outputs of a network that returns tuples."""
    with torch.no_grad():
        outputs: tuple[Tensor, ...] = network(inputs)
    return outputs
