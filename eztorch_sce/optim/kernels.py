"""Fused kernels of torch's optimizers, and states that fit them whatever device and version saved them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def fused_on(parameters: Iterable[Tensor]) -> bool | None:
    """Return the `fused` argument of torch's optimizers.

    True if all parameters are on a GPU, where one kernel then takes the step, and skips it itself if a gradient is not
    finite, so a `GradScaler` need not wait. None, torch's default, otherwise.
    """
    return True if all(each.is_cuda and each.is_floating_point() for each in parameters) else None


def accept_any_state(optimizer: Optimizer) -> Optimizer:
    """Let an optimizer load states that were saved on other devices, and return it.

    A state keeps the choice of kernels and the memory format of the tensors that it was saved with. Fused kernels need
    their own choice, and the memory format of the parameters.
    """
    optimizer.register_load_state_dict_pre_hook(_choose_kernels)
    optimizer.register_load_state_dict_post_hook(_match_memory_format)
    return optimizer


def start_velocity_at_zero(optimizer: torch.optim.SGD) -> torch.optim.SGD:
    """Let the velocity of fused SGD begin at zero, which gives the same steps, and return the optimizer.

    Otherwise torch allocates it in the first step, and if a `GradScaler` skips that step, leaves it uninitialized.
    """
    if optimizer.defaults["fused"]:
        optimizer.register_step_pre_hook(_add_velocities)
    return optimizer


def _add_velocities(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else []:
            if optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _choose_kernels(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    if "fused" not in optimizer.defaults:
        return state
    own = {name: optimizer.defaults[name] for name in ("fused", "foreach")}
    return state | {"param_groups": [group | own for group in state["param_groups"]]}


def _match_memory_format(optimizer: Optimizer) -> None:
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
