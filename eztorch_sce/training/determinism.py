"""Deterministic training: algorithms that give the same bits in every run, and a list of the operations without one."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from eztorch_sce.errors import normalized

_WORKSPACE = (
    "CUBLAS_WORKSPACE_CONFIG"  # read when CUDA starts; without it, cuBLAS may choose another algorithm each time
)
_FIXED_WORKSPACE = ":4096:8"  # that of NVIDIA's documentation: 24 MB
_LACKS = " does not have a deterministic implementation"  # in torch's warnings, after the name of the operation
_OF_CUBLAS = "Deterministic behavior was enabled"  # begins torch's warning of matrix products without the workspace
CURE = "use another operation in its place, or expect runs to differ in the last digits of what follows it"


class Determinism(pl.Callback):
    """Name the operations of a training that have no deterministic implementation, and the layers that call them.

    torch warns of such an operation when it runs. A warning in a forward pass is attributed to the layer whose code is
    running; in a backward pass, to the layers of that name.

    Args:
        module: The module in training.

    Attributes:
        operations: Names of the layers, or none if it is not known, by the name of the operation.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.operations: dict[str, list[str]] = {}
        self.workspace_is_late = torch.cuda.is_initialized() and _WORKSPACE not in os.environ

    def state_dict(self) -> dict[str, Any]:
        """Return the operations found so far, for a checkpoint."""
        return {"operations": self.operations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the operations in a checkpoint."""
        self.operations = dict(state_dict["operations"])

    def note(self, warning: str, frame: FrameType | None) -> bool:
        """Note the operation that a warning of torch names; return whether it names one.

        Args:
            warning: Text of the warning.
            frame: The running code.
        """
        operation, lacks, _ = warning.partition(_LACKS)
        if not lacks and not warning.startswith(_OF_CUBLAS):
            return False
        operation = operation if lacks else "matrix products of cuBLAS"
        layer = self._layer_of(frame)
        layers = self._layers_named(operation) if layer is None else [layer]
        known = self.operations.setdefault(operation, [])
        known += [name for name in layers if name not in known]
        return True

    def card(self) -> dict[str, Any]:
        """Return what the report says of the determinism of the training."""
        card: dict[str, Any] = {
            "deterministic": not self.operations,
            "threads": torch.get_num_threads(),
            "operations": [{"operation": name, "layers": layers} for name, layers in self.operations.items()],
        }
        if self.operations:
            card["cure"] = CURE
        if self.workspace_is_late:
            card["note"] = (
                f"CUDA had started before the training: set {_WORKSPACE}={_FIXED_WORKSPACE} before Python starts"
            )
        return card

    def _layer_of(self, frame: FrameType | None) -> str | None:
        """Return the name of the layer whose code is running, if any."""
        names: dict[int, str] = {id(layer): name for name, layer in self.module.named_modules() if name}
        while frame is not None:
            if (name := names.get(id(frame.f_locals.get("self")))) is not None:
                return name
            frame = frame.f_back
        return None

    def _layers_named(self, operation: str) -> list[str]:
        """Return the names of the layers whose class is named as an operation, such as MaxPool3d."""
        word = normalized(operation)
        layers = self.module.named_modules()
        return [name for name, layer in layers if name and word.startswith(normalized(type(layer).__name__))]


@contextmanager
def deterministic(found: Determinism | None) -> Iterator[None]:
    """Use deterministic algorithms where there are some, while the context lasts, and note the other operations.

    Args:
        found: Receives the operations; None changes nothing.
    """
    if found is None:
        yield
        return
    os.environ.setdefault(_WORKSPACE, _FIXED_WORKSPACE)
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn_before = cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with _warnings_noted(found):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = cudnn_before


@contextmanager
def _warnings_noted(found: Determinism) -> Iterator[None]:
    """Pass the warnings of torch on to `found`, and show all others as before."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def note_or_show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            if not found.note(str(message), sys._getframe(1)):
                show(message, *args, **kwargs)

        warnings.showwarning = note_or_show
        for text in (f".*{_LACKS}", _OF_CUBLAS):
            warnings.filterwarnings("always", message=text)
        yield


def determinism_of(trainer: pl.Trainer) -> dict[str, Any]:
    """Return what the report says of the determinism of a training; empty if it was not asked for."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((each.card() for each in callbacks if isinstance(each, Determinism)), {})
