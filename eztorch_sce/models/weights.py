"""Weights files: a backbone, the config that builds it, its input, and its classifier if there is one."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from eztorch_sce.augment.statistics import normalization_of, register_statistics, statistics_names
from eztorch_sce.data.sources.provenance import Provenance
from eztorch_sce.errors import ConfigError, first_line
from eztorch_sce.files import replacing
from eztorch_sce.models.backbones.base import Backbone, BackboneConfig
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.models.network_config import describe_network, rebuild_network
from eztorch_sce.types import InputSpec

FORMAT = "eztorch_sce weights 1"


@dataclass
class Weights:
    """The content of a weights file.

    Attributes:
        backbone: The config that builds the backbone.
        spec: Input specification of the backbone.
        state: State dict of the backbone.
        head: State dict of the linear classifier, or None.
        classes: Class names, in the order of the classifier's outputs.
        sha256: First 16 hexadecimal digits of the file's hash.
        provenance: The records that the network was trained on, or None if the file does not say.
    """

    backbone: BackboneConfig
    spec: InputSpec
    state: dict[str, Tensor]
    head: dict[str, Tensor] | None
    classes: list[str]
    sha256: str
    provenance: Provenance | None = None

    def build_backbone(self, untrained: bool = False) -> Backbone:
        """Return the backbone with its weights, or with a random initialization if `untrained`."""
        backbone = self.backbone.build()
        if not untrained:
            backbone.load_state_dict(self.state)
        return backbone


def save_weights(
    path: Path,
    backbone: Backbone,
    config: BackboneConfig,
    spec: InputSpec,
    classifier: Classifier | None,
    classes: list[str],
    provenance: Provenance | None = None,
) -> None:
    """Write a weights file atomically; `torch.load(..., weights_only=True)` reads it.

    Args:
        path: The file to write or replace.
        backbone: The network.
        config: Its registered config, stored so that the file is enough to build the network.
        spec: Input specification of the network.
        classifier: Classifier with the linear layer to store, or None.
        classes: Class names, in the order of the classifier's outputs.
        provenance: The records that the network was trained on, or None if that is not known.
    """
    content = {
        "format": FORMAT,
        "backbone": describe_network(config),
        "input": asdict(spec),
        "normalization": normalization_of(spec.stats),  # of pixels in [0, 1], for other programs
        "state": {key: value.cpu() for key, value in backbone.state_dict().items()},
        "head": None if classifier is None else {k: v.cpu() for k, v in classifier.linear.state_dict().items()},
        "classes": classes,
        "data": None if provenance is None else provenance.to_dict(),
    }
    with replacing(path) as partial:
        torch.save(content, partial)


def load_weights(path: str) -> Weights:
    """Read a weights file, or the one in a run directory.

    Raises:
        ConfigError: If the file is missing, is not a weights file, or holds a network that is not registered.
    """
    file = Path(path)
    if file.is_dir():
        file = next((file / name for name in ("classifier.pt", "backbone.pt") if (file / name).is_file()), file)
    if not file.is_file():
        raise ConfigError(
            [f"weights={path}: no such file; runs write backbone.pt (pretrain) or classifier.pt (finetune)"]
        )
    try:
        content = torch.load(file, weights_only=True, map_location="cpu")
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']} instead of {FORMAT}")
        description = content["backbone"]
    except Exception as error:
        raise ConfigError(
            [
                f"weights={path} is not a weights file of this package ({first_line(error)}); use the backbone.pt or "
                "classifier.pt of a run"
            ]
        ) from error
    config = rebuild_network(description, path)
    spec = InputSpec(**content["input"])
    if spec.stats not in statistics_names():
        register_statistics(spec.stats, **content["normalization"])  # of the process that trained the network
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    data = content.get("data")  # files of earlier versions have none
    return Weights(
        config,
        spec,
        content["state"],
        content["head"],
        content["classes"],
        sha256,
        None if data is None else Provenance.from_dict(data, f"weights={path}"),
    )
