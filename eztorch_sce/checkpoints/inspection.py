"""Inspection of a file that may hold the weights of a network, and its import as a weights file of this package."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eztorch_sce import tensor_file
from eztorch_sce.errors import ConfigError
from eztorch_sce.interop.accounting import MATCHED, TensorRow
from eztorch_sce.interop.containers import Container, files_of
from eztorch_sce.interop.import_weights import Choices, examine
from eztorch_sce.models.backbones.base import built_on_meta
from eztorch_sce.models.weights import Weights, hash_of, imported_weights, read_weights, weights_file, write_weights

SUFFIX = tensor_file.SUFFIX


@dataclass
class Inspection:
    """What a file or folder holds.

    Attributes:
        file: The file or folder, as it was asked for.
        container: Its tensors, its plain values, and the classes of objects in it, of which nothing was run.
        num_bytes: Its size.
        title: The format that was recognized, in words; "" if none was.
        weights: The network in it; None if none was recognized.
        encoder: Which of several encoders `weights` is.
        encoders: All encoders that the file holds.
        rows: What became of each tensor.
        notes: What was assumed or left out, in words.
        refused: Why the network cannot be used as it is, with the cure; "" if it can.
    """

    file: str
    container: Container
    num_bytes: int
    title: str = ""
    weights: Weights | None = None
    encoder: str = ""
    encoders: list[str] = field(default_factory=list)
    rows: list[TensorRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: str = ""

    @property
    def num_parameters(self) -> int | None:
        """Number of parameters of the backbone; None if it cannot be built here, such as one passed as an object."""
        if self.weights is None:
            return None
        try:
            network = built_on_meta(self.weights.config())
        except ConfigError:
            return None
        return sum(parameter.numel() for parameter in network.parameters())


def inspect_checkpoint(file: str | Path) -> Inspection:
    """Return what a file, a folder or a run directory holds, and whether its network can be used.

    Args:
        file: A weights file, a run directory, or a checkpoint of another code base.

    Raises:
        ConfigError: If it is missing or damaged, or is no container of tensors that is read here.
    """
    return _inspected(str(file), Choices(), is_refused=True)


def import_weights(
    file: str | Path,
    out: str | Path,
    *,
    format: str | None = None,
    encoder: str | None = None,
    backbone: str | None = None,
    allow: Sequence[str] = (),
    inflate: str | None = None,
) -> Inspection:
    """Write the network of a checkpoint of another code base to a weights file of this package.

    A weights file of an earlier version is written as one of this version.

    Args:
        file: The checkpoint: a file, or a folder.
        out: The weights file to write, which ends in .safetensors. One that exists is replaced.
        format: Name of its format; None recognizes it.
        encoder: Which of several encoders to take; None takes the first.
        backbone: Registered name of the network; None recognizes it.
        allow: Names of tensors or modules, or patterns, that may be missing, unexpected or of another shape.
        inflate: "repeat" or "center", to give 2-D convolutions the frames of the video network `backbone`.

    Raises:
        ConfigError: If the file cannot be read, holds no network that is known, a tensor is not accounted for, its
            network computes what ours cannot express, or `out` cannot be written.
    """
    if problems := problems_of_out(file, out):
        raise ConfigError(problems)
    inspection = opened(file, Choices(format, encoder, backbone, tuple(allow), inflate))
    write(inspection, out)
    return inspection


def problems_of_out(file: str | Path, out: str | Path) -> list[str]:
    """Return why the import of a file cannot be written to `out`, before anything is read."""
    path = Path(out)
    if path.suffix != SUFFIX:
        return [f"OUT={out} must end in {SUFFIX}, such as {path.with_suffix(SUFFIX)}: it is a weights file"]
    if not path.parent.is_dir():
        return [f"OUT={out} is in a folder that does not exist: {path.parent}"]
    if path.is_dir():
        return [f"OUT={out} is a folder: name a file in it, such as {path / f'backbone{SUFFIX}'}"]
    if path.exists() and weights_file(file).exists() and path.samefile(weights_file(file)):
        return [f"OUT={out} is the file to import: choose another name"]
    if path.exists() and not tensor_file.is_tensor_file(path):
        return [f"OUT={out} exists and is not a weights file of this package: choose another name"]
    return []


def opened(file: str | Path, choices: Choices) -> Inspection:
    """Return what a file holds, with the choices of the user.

    Raises:
        ConfigError: As `inspect_checkpoint`; and if no network is recognized, or a choice is invalid.
    """
    return _inspected(str(file), choices, is_refused=False)


def write(inspection: Inspection, out: str | Path) -> None:
    """Write the network of a file to a weights file.

    Raises:
        ConfigError: If it cannot be used, or cannot be written.
    """
    if inspection.refused or inspection.weights is None:
        raise ConfigError([inspection.refused])
    try:
        write_weights(Path(out), inspection.weights)
    except OSError as error:
        raise ConfigError([f"OUT={out} cannot be written ({error.strerror}): choose another place"]) from error


def _inspected(file: str, choices: Choices, is_refused: bool) -> Inspection:
    """Return what a file holds; that no network is recognized is a remark if `is_refused`, else an error."""
    path = weights_file(file)
    try:
        content = read_weights(file)
    except ConfigError as error:
        raise ConfigError([problem.removeprefix("weights=") for problem in error.problems]) from error
    num_bytes = sum(each.stat().st_size for each in files_of(path))
    if isinstance(content, Weights):
        return _own(file, content, choices, num_bytes)
    inspection = Inspection(file, content, num_bytes)
    try:
        imported = examine(content, file, choices)
    except ConfigError as error:
        if not is_refused:
            raise
        inspection.refused = "; ".join(error.problems)
        return inspection
    inspection.title, inspection.rows, inspection.notes = imported.found.format.title, imported.rows, imported.notes
    inspection.encoder, inspection.encoders = imported.found.encoder, list(imported.found.encoders)
    inspection.weights, inspection.refused = imported_weights(imported, file, hash_of(path)), imported.refused
    return inspection


def _own(file: str, weights: Weights, choices: Choices, num_bytes: int) -> Inspection:
    """Return what a weights file of this package holds."""
    if choices != Choices():
        raise ConfigError([f"{shlex.quote(file)} is a weights file of this package: leave out the settings of imports"])
    tensors = dict(weights.state)
    for part, state in (("head", weights.head or {}), ("method", weights.method)):
        tensors |= {f"{part}.{name}": tensor for name, tensor in state.items()}
    rows = [TensorRow(name, name, MATCHED) for name in tensors]
    kind = "weights file of eztorch_sce, checksums verified"
    return Inspection(file, Container(kind, tensors, {}, {}), num_bytes, "eztorch_sce", weights, rows=rows)
