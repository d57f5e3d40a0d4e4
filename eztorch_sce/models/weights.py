"""Weights files: a backbone, the config that builds it, its input, and its classifier if there is one.

Files of other code bases are imported as they are read, see `interop`.
"""

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eztorch_sce import tensor_file, torch_file
from eztorch_sce.augment.statistics import normalization_of, register_statistics, statistics_names
from eztorch_sce.data.sources.provenance import Provenance
from eztorch_sce.errors import (
    ConfigError,
    DamagedFileError,
    NewerFileError,
    TrainingError,
    did_you_mean,
    first_line,
    shorten,
)
from eztorch_sce.interop.accounting import summary
from eztorch_sce.interop.containers import Container, files_of, is_container, read_container
from eztorch_sce.interop.import_weights import Imported, import_container
from eztorch_sce.models.backbones.base import Backbone, BackboneConfig, as_backbone, build_network
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.models.migrations import FORMAT, is_of_this_package, migrated
from eztorch_sce.models.network_config import describe_network, name_of_network, rebuild_network
from eztorch_sce.models.weights_content import check_content
from eztorch_sce.objects import as_config
from eztorch_sce.tensor_card import encode
from eztorch_sce.types import InputSpec

BACKBONE_FILE = "backbone.safetensors"
CLASSIFIER_FILE = "classifier.safetensors"
WEIGHTS_IN_FOLDER = "model.safetensors"
"""Name of the weights file in a folder for the Hugging Face Hub, where other programs expect it."""
_IN_RUNS = (CLASSIFIER_FILE, "classifier.pt", BACKBONE_FILE, "backbone.pt")
_CHECKPOINT = (
    "is a checkpoint of a training, which only its own run goes on from: give the directory of the run, its "
    f"{BACKBONE_FILE} or its {CLASSIFIER_FILE}"
)


@dataclass
class Weights:
    """The content of a weights file.

    Attributes:
        network: Description of the backbone, see `describe_network`.
        spec: Input specification of the backbone.
        state: State dict of the backbone.
        head: State dict of the linear classifier, or None.
        classes: Class names, in the order of the classifier's outputs; empty if the file does not say.
        sha256: First 16 hexadecimal digits of the file's hash; "" before it is written.
        provenance: The records that the network was trained on, or None if the file does not say.
        file: Path of the file, as it was asked for.
        method: What a pretraining goes on from beside the backbone: tensors of the state dict of a method, such as its
            projector, momentum encoder and queue; empty in files that runs write.
        source: Where an imported network comes from: file, hash, format, encoder, account and notes; None if it was
            trained here.
        about: What people want to know: recipe, versions, results, license; empty if the file does not say.
    """

    network: dict[str, Any]
    spec: InputSpec
    state: dict[str, Tensor]
    head: dict[str, Tensor] | None
    classes: list[str]
    sha256: str = ""
    provenance: Provenance | None = None
    file: str = ""
    method: dict[str, Tensor] = field(default_factory=dict)
    source: dict[str, Any] | None = None
    about: dict[str, Any] = field(default_factory=dict)

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
        weights: The weights file, or the run directory that contains it, or a checkpoint of another code base.
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
    content = Weights(
        describe_network(config),
        spec,
        dict(backbone.state_dict() if state is None else state),
        None if classifier is None else classifier.linear.state_dict(),
        classes,
        provenance=provenance,
    )
    try:
        write_weights(path, content)
    except OSError as error:
        cure = "make room on the disk and run the same command again, which goes on from its last checkpoint"
        raise TrainingError(f"{path} cannot be written ({error.strerror}): {cure}") from error


def write_weights(path: Path, weights: Weights, name_of: Callable[[str], str] | None = None) -> None:
    """Write the content of a weights file; `save_weights` does so for a network.

    Args:
        path: The file to write or replace.
        weights: The content; its `sha256` and `file` are not written.
        name_of: Returns the name that other programs find a tensor by: of "layer1.0.conv1.weight" in the backbone, or
            of "head.weight"; None keeps the names.

    Raises:
        OSError: If the file cannot be written, such as on a full disk.
    """
    content = {
        "format": FORMAT,
        "backbone": weights.network,
        "input": asdict(weights.spec),
        "normalization": normalization_of(weights.spec.stats),  # of pixels in [0, 1], for other programs
        "state": weights.state,
        "head": weights.head,
        "classes": weights.classes,
        "data": None if weights.provenance is None else weights.provenance.to_dict(),
        "method": weights.method,
        "source": weights.source,
        "about": weights.about,
    }
    tensor_file.write(path, content, root="state", name_of=name_of)


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
    """Return the path of a weights file, or of the one in a run directory or an exported folder. It need not exist.

    A folder of another code base is returned as it is, see `is_weights`.
    """
    file = Path(path)
    if not file.is_dir():
        return file
    exported = file / WEIGHTS_IN_FOLDER
    own = exported if exported.is_file() and tensor_file.is_tensor_file(exported) else file
    return next((file / name for name in _IN_RUNS if (file / name).is_file()), own)


def is_weights(file: Path) -> bool:
    """Return whether a path is a file, or a folder of weights that is no run directory."""
    return file.is_file() or (file.is_dir() and not (file / "config.yaml").is_file() and is_container(file))


def hash_of(file: Path) -> str:
    """Return the first 16 hexadecimal digits of the hash of a file, or of the weights and settings in a folder."""
    digest = hashlib.sha256()
    for each in files_of(file):
        if each != file:
            digest.update(each.name.encode())
        with each.open("rb") as stream:
            while chunk := stream.read(1 << 24):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def _why_absent(file: Path) -> str:
    """Return why there is no weights file at a path, and the cure."""
    written = f"the run directory of `pretrain`, with {BACKBONE_FILE}, or of `finetune`, with {CLASSIFIER_FILE}"
    if file.exists() and not file.is_dir():
        return f"is neither a file nor a folder: give {written}, or a file of other code"
    if not file.is_dir():
        siblings = [str(other) for other in file.parent.iterdir()] if file.parent.is_dir() else []
        return f"does not exist{did_you_mean(str(file), siblings)}; give {written}, or a file of other code"
    missing = f"{BACKBONE_FILE} or {CLASSIFIER_FILE}"
    reports = importlib.import_module("eztorch_sce.report.unfinished")  # of runs, and so above this module
    if unfinished := reports.unfinished(file):
        return f"has no {missing}: {unfinished}"
    return f"has no {missing}: give {written}, or a file of other code"


def load_weights(path: str) -> Weights:
    """Read a weights file, or the one in a run directory, or a file or folder of another code base.

    Raises:
        ConfigError: If the file is missing or damaged, holds no network that is known, or is not taken whole.
    """
    content = read_weights(path)
    if isinstance(content, Weights):
        return content
    return imported_weights(import_container(content, path), path, hash_of(weights_file(path)))


def read_weights(path: str) -> Weights | Container:
    """Read a weights file, or the one in a run directory; or return what a file of another code base holds.

    Raises:
        ConfigError: If the file is missing, damaged or a checkpoint of a training.
    """
    file = weights_file(path)
    if not is_weights(file):
        raise ConfigError([f"weights={path} {_why_absent(file)}"])
    try:
        if file.is_file() and tensor_file.is_tensor_file(file):
            return _own_weights(tensor_file.read(file), path, file)
        container = read_container(file)
        if is_of_this_package(container.values.get("format")):
            return _own_weights(torch_file.read(file), path, file)
    except NewerFileError as error:
        raise ConfigError([f"weights={path} is {error.reason}"]) from None
    except (DamagedFileError, OSError) as error:
        reason = error.reason if isinstance(error, DamagedFileError) else str(error.strerror)
        cure = f"give the directory of a run, its {BACKBONE_FILE} or its {CLASSIFIER_FILE}, or a file of other code"
        raise ConfigError([f"weights={path} cannot be read: {reason}; {cure}"]) from error
    if any(name.startswith("state_dict.method.") for name in container.tensors):
        raise ConfigError([f"weights={path} {_CHECKPOINT}"])
    return container


def imported_weights(imported: Imported, file: str, sha256: str) -> Weights:
    """Return an imported network as the content of a weights file.

    Args:
        imported: The network.
        file: The file that it was imported from, as typed.
        sha256: The hash of that file.
    """
    found = imported.found
    source = {
        "file": file,
        "sha256": sha256,
        "format": found.format.name,
        "title": imported.title,
        "encoder": found.encoder,
        "tensors": summary(imported.rows),
        "notes": imported.notes,
    }
    return Weights(
        describe_network(imported.config),
        imported.spec,
        imported.state,
        imported.head,
        imported.classes,
        sha256,
        Provenance.unrecorded(found.format.title),
        file,
        method=imported.method,
        source=source,
    )


def _own_weights(content: dict[str, Any], path: str, file: Path) -> Weights:
    """Return the content of a file of this package, of this version or an earlier one."""
    if "progress" in content:
        raise ConfigError([f"weights={path} {_CHECKPOINT}"])
    content = migrated(content, str(file))
    check_content(content, str(file))
    spec = InputSpec(**content["input"])
    if spec.stats not in statistics_names():
        if content["normalization"] is None:
            what = f"weights={path} was trained with the statistics {spec.stats}, whose numbers it does not hold"
            raise ConfigError([f"{what}: register them in a plugin, register_statistics({spec.stats!r}, mean, std)"])
        register_statistics(spec.stats, **content["normalization"])  # of the process that trained the network
    data = content["data"]
    return Weights(
        content["backbone"],
        spec,
        content["state"],
        content["head"],
        content["classes"],
        hash_of(file),
        None if data is None else _provenance(data, path, file),
        path,
        content["method"],
        content["source"],
        content["about"],
    )


def _provenance(data: dict[str, Any], path: str, file: Path) -> Provenance:
    try:
        return Provenance.from_dict(data, f"weights={path}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFileError(str(file), f"its account of the data is damaged ({first_line(error)})") from None
