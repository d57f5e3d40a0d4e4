"""Export to a weights file of this package, with a card that says everything about the network."""

from dataclasses import replace
from pathlib import Path

from eztorch_sce.interop.exports.check import largest_difference
from eztorch_sce.interop.exports.format import ExportFormat, Written
from eztorch_sce.interop.exports.taken import Taken, network_of, outputs_of
from eztorch_sce.models.weights import load_weights, write_weights

BATCH_SIZE = 2


def difference_of_file(source: Taken, file: Path, format_name: str) -> float:
    """Return the largest difference between the network and the one that a weights file holds."""
    weights = load_weights(str(file))
    inputs = source.inputs(BATCH_SIZE)
    again = network_of(weights, weights.config())
    return largest_difference(format_name, outputs_of(again, inputs), outputs_of(source.network, inputs))


def _write(source: Taken, path: Path) -> Written:
    write_weights(path, replace(source.weights, about=source.card))
    return Written(difference_of_file(source, path, OURS.name), "the network of the file, read back")


OURS = ExportFormat("eztorch_sce", "weights file of this package, with its card", "all", _write, suffix=".safetensors")
