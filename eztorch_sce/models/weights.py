"""Weights files: a backbone, the config that builds it, its input, and its classifier if there is one."""

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eztorch_sce import tensor_file, torch_file
from eztorch_sce.augment.statistics import normalization_of, register_statistics, statistics_names
from eztorch_sce.data.sources.provenance import Provenance
from eztorch_sce.errors import ConfigError, DamagedFileError, TrainingError, did_you_mean, shorten
from eztorch_sce.models.backbones.base import Backbone, BackboneConfig, as_backbone, build_network
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.models.network_config import describe_network, name_of_network, rebuild_network
from eztorch_sce.objects import as_config
from eztorch_sce.tensor_card import encode
from eztorch_sce.types import InputSpec

FORMAT = "eztorch_sce weights 2"
_IN_TORCH_FILES = "eztorch_sce weights 1"  # the same content, written by torch.save

BACKBONE_FILE = "backbone.safetensors"
CLASSIFIER_FILE = "classifier.safetensors"
_IN_RUNS = (CLASSIFIER_FILE, "classifier.pt", BACKBONE_FILE, "backbone.pt")


@dataclass
class Weights:
    """The content of a weights file.

    Attributes:
        network: Description of the backbone, see `describe_network`.
        spec: Input specification of the backbone.
        state: State dict of the backbone.
        head: State dict of the linear classifier, or None.
        classes: Class names, in the order of the classifier's outputs.
        sha256: First 16 hexadecimal digits of the file's hash.
        provenance: The records that the network was trained on, or None if the file does not say.
        file: Path of the file, as it was asked for.
    """

    network: dict[str, Any]
    spec: InputSpec
    state: dict[str, Tensor]
    head: dict[str, Tensor] | None
    classes: list[str]
    sha256: str
    provenance: Provenance | None = None
    file: str = ""

    def config(self) -> BackboneConfig:
        """Return the config that builds the backbone.

        Raises:
            ConfigError: If the backbone was passed as an object, or its config is not registered.
        """
        return rebuild_network(self.network, self.file)

    def load_into(self, backbone: Backbone) -> None:
        """Load the weights into a backbone.

        Raises:
            ConfigError: If its parameters have other names or shapes.
        """
        try:
            backbone.load_state_dict(self.state)
        except RuntimeError as error:
            differences = [line.strip().rstrip(". ") for line in str(error).splitlines()[1:]]
            fits = f"weights={self.file}, of {name_of_network(self.network)}, do not fit the backbone {backbone.name}"
            raise ConfigError([f"{fits}: {shorten(differences, num=2)}"]) from None


def load_backbone(weights: str | Path, *, backbone: nn.Module | BackboneConfig | str | None = None) -> Backbone:
    """Return the backbone of a weights file in evaluation mode; its attribute `input_spec` describes its input.

    Args:
        weights: The weights file, or the run directory that contains it.
        backbone: The network to load the weights into, as an object, a config or a name; required if the weights belong
            to an object that was passed to `pretrain` or `finetune`.

    Raises:
        ConfigError: If the file is missing, is not a weights file or does not fit the network.
    """
    content = load_weights(str(weights))
    config = as_config("backbone", backbone) if backbone is not None else content.config()
    network = as_backbone(build_network(config), num_frames=content.spec.num_frames, size=content.spec.size)
    content.load_into(network)
    network.input_spec = content.spec
    return network.eval()


def save_weights(
    path: Path,
    backbone: Backbone,
    config: BackboneConfig,
    spec: InputSpec,
    classifier: Classifier | None,
    classes: list[str],
    provenance: Provenance | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a weights file: a tensor file, in which other programs find the tensors of the backbone by their names.

    The function returns when the file is durable and read back.

    Args:
        path: The file to write or replace.
        backbone: The network.
        config: Its config; if that is registered, the file is enough to build the network.
        spec: Input specification of the network.
        classifier: Classifier with the linear layer to store, or None.
        classes: Class names, in the order of the classifier's outputs.
        provenance: The records that the network was trained on, or None if that is not known.
        state: State dict of the network, if it has been gathered from several processes; None takes its own.

    Raises:
        TrainingError: If the file cannot be written, such as on a full disk.
    """
    state = backbone.state_dict() if state is None else state
    content = {
        "format": FORMAT,
        "backbone": describe_network(config),
        "input": asdict(spec),
        "normalization": normalization_of(spec.stats),  # of pixels in [0, 1], for other programs
        "state": dict(state),
        "head": None if classifier is None else classifier.linear.state_dict(),
        "classes": classes,
        "data": None if provenance is None else provenance.to_dict(),
    }
    try:
        tensor_file.write(path, content, root="state")
    except OSError as error:
        cure = "make room on the disk and run the same command again, which goes on from its last checkpoint"
        raise TrainingError(f"{path} cannot be written ({error.strerror}): {cure}") from error


def check_savable(backbone: Backbone, config: BackboneConfig) -> None:
    """Check before a training that its weights can be written.

    Raises:
        ConfigError: If the settings or the state dict of the backbone hold other objects than tensors and plain values.
    """
    try:
        encode({"settings": describe_network(config), "state": backbone.state_dict()})
    except TypeError as error:
        cure = "use plain values as settings, and return tensors and plain values from get_extra_state"
        raise ConfigError([f"the weights of the backbone {backbone.name} cannot be written: {error}; {cure}"]) from None


def epoch_file(epoch: int) -> str:
    """Return the name of the backbone after an epoch, counted from 1.

    >>> epoch_file(10)
    'backbone-epoch-0010.safetensors'
    """
    return f"backbone-epoch-{epoch:04d}.safetensors"


def weights_file(path: str | Path) -> Path:
    """Return the path of a weights file, or of the one in a run directory. It need not exist."""
    file = Path(path)
    if file.is_dir():
        return next((file / name for name in _IN_RUNS if (file / name).is_file()), file)
    return file


def hash_of(file: Path) -> str:
    """Return the first 16 hexadecimal digits of the hash of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 24):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def _why_absent(file: Path) -> str:
    """Return why there is no weights file at a path, and the cure."""
    written = f"the run directory of `pretrain`, with {BACKBONE_FILE}, or of `finetune`, with {CLASSIFIER_FILE}"
    if not file.is_dir():
        siblings = [str(other) for other in file.parent.iterdir()] if file.parent.is_dir() else []
        return f"does not exist{did_you_mean(str(file), siblings)}; give {written}"
    missing = f"{BACKBONE_FILE} or {CLASSIFIER_FILE}"
    reports = importlib.import_module("eztorch_sce.report.unfinished")  # of runs, and so above this module
    if unfinished := reports.unfinished(file):
        return f"has no {missing}: {unfinished}"
    return f"has no {missing}: give {written}"


def load_weights(path: str) -> Weights:
    """Read a weights file, or the one in a run directory.

    Raises:
        ConfigError: If the file is missing, is damaged or is not a weights file.
    """
    file = weights_file(path)
    if not file.is_file():
        raise ConfigError([f"weights={path} {_why_absent(file)}"])
    try:
        content = _read(file)
    except (DamagedFileError, OSError) as error:
        reason = error.reason if isinstance(error, DamagedFileError) else str(error.strerror)
        if file.suffix == ".ckpt" or file.parent.name == "checkpoints":
            reason = "a checkpoint of a training"
        raise ConfigError(
            [
                f"weights={path} is damaged, or is not a weights file of this package ({reason}): copy it again, or "
                f"give the directory of a run, its {BACKBONE_FILE} or its {CLASSIFIER_FILE}"
            ]
        ) from error
    spec = InputSpec(**content["input"])
    if spec.stats not in statistics_names():
        register_statistics(spec.stats, **content["normalization"])  # of the process that trained the network
    sha256 = hash_of(file)
    data = content.get("data")  # files of earlier versions have none
    return Weights(
        content["backbone"],
        spec,
        content["state"],
        content["head"],
        content["classes"],
        sha256,
        None if data is None else Provenance.from_dict(data, f"weights={path}"),
        path,
    )


def _read(file: Path) -> dict[str, Any]:
    """Return the content of a weights file of this version or an earlier one."""
    is_earlier = torch_file.is_torch_file(file)
    content: Any = torch_file.read(file) if is_earlier else tensor_file.read(file)
    expected = _IN_TORCH_FILES if is_earlier else FORMAT
    actual = content.get("format") if isinstance(content, dict) else None
    if actual != expected:
        raise DamagedFileError(str(file), f"its format is {actual} instead of {expected}")
    return dict(content)
