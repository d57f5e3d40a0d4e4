"""Run directories that hold only the weights of a small network, and the outputs of that network."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eztorch_sce import registry
from eztorch_sce.data.sources.provenance import Provenance
from eztorch_sce.models.backbones.base import BackboneConfig, as_backbone
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.models.weights import load_backbone, load_weights, save_weights
from eztorch_sce.types import InputSpec

SMALL = SmallR2Plus1DConfig(width=2, num_blocks=1)
CLASSES = ["left", "right", "still"]


def config_of(name: str, **settings: Any) -> BackboneConfig:
    config: BackboneConfig = registry.choices("backbone")[name](**settings)
    return config


def write_run(folder: Path, config: BackboneConfig, size: int = 32, has_classes: bool = True, **spec: Any) -> str:
    """Write the weights of a network whose batch norms are not neutral, as after a training."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    backbone = as_backbone(config.build())
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.uniform_(module.bias, -0.1, 0.1)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]  # None without statistics
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    classifier = Classifier(backbone, len(CLASSES)) if has_classes else None
    whole = InputSpec(**{"num_frames": 4 if backbone.takes_clips else 1, "size": size, **spec})
    file = folder / ("classifier.safetensors" if has_classes else "backbone.safetensors")
    trained = np.array([2, 3, 5])
    records = Provenance("videos", "", 3, False, None, 1, trained, trained[:0], np.array([[2, 7]]))  # as runs have
    save_weights(file, backbone, config, whole, classifier, CLASSES if has_classes else [], records)
    return str(folder)


def inputs_and_logits(run: str) -> tuple[Tensor, Tensor]:
    """Return a batch for the network of a run, and the logits of its classifier."""
    weights, backbone = load_weights(run), load_backbone(run)
    frames = (weights.spec.num_frames,) if backbone.takes_clips else ()
    inputs = torch.randn(
        2, 3, *frames, weights.spec.size, weights.spec.size, generator=torch.Generator().manual_seed(1)
    )
    assert weights.head is not None
    return inputs, F.linear(backbone(inputs), weights.head["weight"], weights.head["bias"]).detach()
