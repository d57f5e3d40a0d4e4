"""Floating-point precision of networks: the default of a device, autocast, and products that stay exact in float32."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from eztorch_sce.machine import BF16_CAPABILITY

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Values of the settings of precision, as in Lightning."""
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def precision_on(device: torch.device, precision: str | None = None) -> str:
    """Return the precision to use on a device: `precision`, or if it is None bf16-mixed on a GPU that has it."""
    if precision is not None:
        return precision
    has_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= BF16_CAPABILITY
    return "bf16-mixed" if has_bf16 else "32-true"


def autocast_dtype(precision: str | None) -> torch.dtype | None:
    """Return the type that networks compute in under autocast, or None for 32-true."""
    return _AUTOCAST.get(precision or "32-true")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context that computes in a precision; it turns an outer autocast off if the precision is 32-true."""
    dtype = autocast_dtype(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute matrix products of float32 in float32: neither in TF32 nor in an autocast around it.

    A comparison of similarities that differ in the fourth digit depends on it.
    """
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def exact_gradients(result: Tensor, inputs: Sequence[Tensor]) -> None:
    """Compute the gradients from `result` back to `inputs` in float32, and those before the inputs as it is set now.

    The backward pass is in the reverse order of the forward pass: it leaves the loss before it enters the networks.
    """
    precision = torch.get_float32_matmul_precision()
    if precision == "highest" or not result.requires_grad:
        return
    result.register_hook(lambda _: torch.set_float32_matmul_precision("highest"))
    for rows in inputs:
        if rows.requires_grad:
            rows.register_hook(lambda _: torch.set_float32_matmul_precision(precision))
