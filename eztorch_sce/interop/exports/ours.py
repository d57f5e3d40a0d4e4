"""Export to a weights file of this package, with a card that says everything about the network."""

from dataclasses import replace
from pathlib import Path

from eztorch_sce.interop.exports.check import difference_from
from eztorch_sce.interop.exports.format import ExportFormat, Written
from eztorch_sce.interop.exports.taken import Taken, network_of, outputs_of
from eztorch_sce.models.weights import load_weights, write_weights


def _write(taken: Taken, path: Path) -> Written:
    write_weights(path, replace(taken.weights, about=taken.card))
    again = load_weights(str(path))
    network = network_of(again, again.config())
    difference = difference_from(taken, lambda inputs: outputs_of(network, inputs), OURS.name)
    return Written(difference, "the network of the file, read back")


OURS: ExportFormat = ExportFormat(
    "eztorch_sce", "weights file of this package, with its card", "all", _write, (".safetensors",)
)
