"""Export to a program of `torch.export`, which the same version of PyTorch runs without this package."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eztorch_sce.errors import ConfigError, first_line
from eztorch_sce.interop.exports.check import EXAMPLE_SIZE, difference_from
from eztorch_sce.interop.exports.format import ExportFormat, Written
from eztorch_sce.interop.exports.taken import Taken, outputs_of

CARD_FILE = "card.json"
"""Name of the card in the archive, as `torch.export.load(file, extra_files={"card.json": ""})` reads it."""


def _write(taken: Taken, path: Path) -> Written:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own exporter, about itself
        program = _convert(taken)
        torch.export.save(program, path, extra_files={CARD_FILE: json.dumps(_marked(taken.card), indent=1)})
        module: Any = torch.export.load(path).module()

    def run(inputs: Tensor) -> tuple[Tensor, ...]:
        return outputs_of(module, inputs)

    version = f"tied to PyTorch: written by {torch.__version__}, and other versions may not load it"
    difference = difference_from(taken, run, TORCH_EXPORT.name)
    return Written(difference, "the program, loaded again, with batches of 1 and 3", [version])


def _convert(taken: Taken) -> Any:
    try:
        inputs, batch = taken.inputs(EXAMPLE_SIZE), {0: torch.export.Dim.DYNAMIC}
        return torch.export.export(taken.network, (inputs,), dynamic_shapes=(batch,))
    except Exception as error:  # whatever torch raises for what it cannot trace
        reason = f"torch cannot trace the backbone {taken.name}: {type(error).__name__}: {first_line(error)}"
        raise ConfigError([f"format={TORCH_EXPORT.name}: {reason}; choose another format"]) from error


def _marked(card: dict[str, Any]) -> dict[str, Any]:
    return {"torch": str(torch.__version__), **card}


TORCH_EXPORT: ExportFormat = ExportFormat(
    "torch_export",
    "program of torch.export, tied to its version of PyTorch",
    "all that torch.export traces",
    _write,
    (".pt2",),
)
