"""Memory formats inside of networks on the fake GPU: which convolutions and feature maps are not channels last."""

from collections import Counter
from typing import Any

import torch
from fake_gpu import _place
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def is_channels_last(tensor: Tensor) -> bool:
    """Return whether images or clips have the strides of channels last; some shapes have those of both formats."""
    return tensor.is_contiguous(memory_format=FORMATS[tensor.ndim])


class Formats(TorchDispatchMode):
    """Count tensors that are not channels last, by the line that makes them; to be entered within `fake_gpu`.

    A convolution by cuDNN returns channels last if its input or its weights are. A CPU build of torch has no cuDNN, and
    other rules, so the results of convolutions are brought into the format here.

    Attributes:
        num_convolutions: Number of convolutions.
        lost: Inputs and weights of convolutions, and outputs of any operator, in another format.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_convolutions = 0
        self.lost: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is aten.convolution.default:
            self.num_convolutions += 1
            for name, tensor in zip(("input", "weight"), args[:2], strict=True):
                if not is_channels_last(tensor):
                    self.lost[f"{name} of a convolution {tuple(tensor.shape)} at {_place()}"] += 1
            return result.contiguous(memory_format=FORMATS[result.ndim])
        is_map = isinstance(result, Tensor) and result.ndim in FORMATS and result.shape[-1] != 3  # not pixels (..., C)
        if is_map and result.is_cuda and not is_channels_last(result):
            self.lost[f"output of {func} {tuple(result.shape)} at {_place()}"] += 1
        return result
