"""Taking of a network's tensors: by their names in a file, in our shapes, and with numbers that a network can have."""

import torch
from torch import Tensor

from eztorch_sce.interop import accounting
from eztorch_sce.interop.accounting import TensorRow
from eztorch_sce.interop.inflation import FLAT, inflated
from eztorch_sce.interop.layouts import COUNTER, Network, shapes_of, width_of
from eztorch_sce.interop.recognition import Found

_PRECISIONS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class Taker:
    """Takes networks of one kind from a file.

    Args:
        found: What was recognized.
        network: The network of ours, which is another one than was found if it is inflated.
        channels: Order of the channels that their network takes, "rgb" or "bgr".
        inflate: The way of inflation, or None.
    """

    def __init__(self, found: Found, network: Network, channels: str, inflate: str | None) -> None:
        self.found, self.is_bgr, self.inflate = found, channels == "bgr", inflate
        self.shapes, self.num_features = shapes_of(network), width_of(network)
        flat = None if network == found.network else FLAT[network.backbone]
        self.theirs = {name: found.layout.theirs(name if flat is None else flat.name(name)) for name in self.shapes}

    def network(self, prefix: str) -> tuple[dict[str, Tensor], list[TensorRow]]:
        """Return the state dict of the network whose names in the file begin with `prefix`, and its account.

        Tensors that are missing or do not fit are left out of the state dict.
        """
        state: dict[str, Tensor] = {}
        rows: list[TensorRow] = []
        for ours, shape in self.shapes.items():
            names = [prefix + name for name in self.found.layout.names(self.theirs[ours])]
            present = [name for name in names if name in self.found.container.tensors]
            tensor, row = self._tensor((present or names)[0], ours, shape)
            rows += [row, *(self._twin_row(present[0], twin) for twin in present[1:])]
            if tensor is not None:
                state[ours] = tensor
        return state, rows

    def _twin_row(self, theirs: str, twin: str) -> TensorRow:
        """Return what becomes of the second name of a tensor, which must hold the same."""
        first, second = self.found.container.tensors[theirs], self.found.container.tensors[twin]
        if first.shape == second.shape and bool((first == second).all()):
            return TensorRow(twin, "", accounting.IGNORED, "second name of a layer, with the same numbers")
        return TensorRow(twin, "", accounting.MISFIT, f"differs from {theirs}, which is the same layer")

    def _tensor(self, theirs: str, ours: str, shape: torch.Size) -> tuple[Tensor | None, TensorRow]:
        tensor = self.found.container.tensors.get(theirs)
        if ours.endswith(COUNTER):
            return _counter(tensor, theirs, ours)
        if tensor is None:
            return None, TensorRow("", ours, accounting.MISSING, f"{theirs} is not in the file")
        renamed = accounting.MATCHED if theirs == ours else accounting.RENAMED
        row = TensorRow(theirs, ours, renamed)
        if tensor.shape != shape:
            was, wanted = tuple(tensor.shape), tuple(shape)
            video = None if self.inflate is None else inflated(tensor, shape, self.inflate)
            if video is None:
                note = f"has the shape {was} instead of {wanted}"
                return None, row._replace(status=accounting.MISFIT, note=note)
            tensor, row = video, row._replace(status=accounting.INFLATED, note=f"{was} to {wanted}")
        if fault := fault_of(tensor, ours):
            return None, row._replace(status=accounting.MISFIT, note=fault)
        if self.is_bgr and self.theirs[ours] == self.found.layout.anchor:
            tensor, row = tensor.flip(1), row._replace(status=accounting.CHANGED, note="from BGR to RGB")
        return in_float32(tensor), row


def fault_of(tensor: Tensor, name: str) -> str:
    """Return why the numbers of a tensor cannot be those of a network, as a predicate; "" if they can."""
    if tensor.dtype not in _PRECISIONS:
        kind = str(tensor.dtype).removeprefix("torch.")
        quantized = "" if tensor.is_complex() else ", as of a quantized network,"
        return f"holds {kind} numbers{quantized} instead of floating-point ones"
    if not bool(tensor.isfinite().all()):
        return "holds numbers that are NaN or infinite"
    if name.endswith("running_var") and bool((tensor < 0).any()):
        return "holds negative variances"
    return ""


def in_float32(tensor: Tensor) -> Tensor:
    """Return numbers in the precision of our networks."""
    return tensor.float() if tensor.is_floating_point() else tensor


def _counter(tensor: Tensor | None, theirs: str, ours: str) -> tuple[Tensor, TensorRow]:
    """Return the counter of a batch norm: no output depends on it."""
    if tensor is None or tensor.numel() != 1:
        row = TensorRow("" if tensor is None else theirs, ours, accounting.CHANGED, "set to 0")
        return torch.zeros((), dtype=torch.long), row
    status = accounting.MATCHED if theirs == ours else accounting.RENAMED
    return tensor.reshape(()).long(), TensorRow(theirs, ours, status)
