"""Export to ONNX, compared by onnxruntime."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eztorch_sce.errors import ConfigError, first_line
from eztorch_sce.interop.exports.check import EXAMPLE_SIZE, difference_from
from eztorch_sce.interop.exports.format import ExportFormat, Written
from eztorch_sce.interop.exports.taken import Taken

_LARGEST = 2_000_000_000  # bytes; a protobuf message, which an ONNX file is, holds less than 2 GiB


def _write(taken: Taken, path: Path) -> Written:
    num_bytes = sum(tensor.nbytes for tensor in taken.network.state_dict().values())
    if num_bytes >= _LARGEST:
        size = f"{num_bytes / 1e9:.1f} GB, and a single ONNX file holds less than 2 GB"
        raise ConfigError([f"format={ONNX.name}: the tensors take {size}; use format=torch_export"])
    _convert(taken, path)
    difference = difference_from(taken, lambda inputs: _run(path, inputs), ONNX.name)
    return Written(difference, "onnxruntime on the CPU, with batches of 1 and 3", [f"inputs: {taken.input_in_words()}"])


def _convert(taken: Taken, path: Path) -> None:
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own exporter, about itself
            program: Any = torch.onnx.export(
                taken.network,
                (taken.inputs(EXAMPLE_SIZE),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                input_names=[taken.input_name],
                output_names=taken.output_names,
                verbose=False,
            )
    except Exception as error:  # whatever torch raises for what it cannot convert
        reason = f"torch cannot convert the backbone {taken.name}: {type(error).__name__}: {first_line(error)}"
        raise ConfigError([f"format={ONNX.name}: {reason}; choose another format"]) from error
    finally:
        log.setLevel(level)
    program.model.metadata_props.update({key: json.dumps(value) for key, value in taken.card.items()})
    program.save(path, external_data=False)


def _run(path: Path, inputs: Tensor) -> list[Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    return [torch.from_numpy(output) for output in outputs]


ONNX: ExportFormat = ExportFormat(
    "onnx",
    "ONNX file, for onnxruntime and other engines",
    "all that torch.onnx converts",
    _write,
    (".onnx",),
    ("onnx", "onnxscript", "onnxruntime"),
    "pip install 'eztorch-sce[onnx]'",
)
