"""LARS: layer-wise adaptive rates for large batches."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from eztorch_sce.optim.groups import decay_groups
from eztorch_sce.registry import register


class LARS(Optimizer):
    """SGD with momentum whose step on each tensor follows the ratio of its norm to its gradient's.

    Tensors with one dimension (norms and biases) are neither decayed nor adapted.

    Source: You et al., 2017, arXiv:1708.03888.

    Args:
        params: Parameters or groups; a group with more than one dimension per tensor is adapted.
        lr: Learning rate, >= 0.
        momentum: Of the velocity, in [0, 1).
        weight_decay: Added to the gradient before the ratio is taken.
        trust_coefficient: Scale of the adapted rate.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure`, where given, computes the loss again."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient, decay = parameter.grad, group["weight_decay"]
                state = self.state[parameter]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(parameter)
                velocity = state["velocity"].mul_(group["momentum"])
                if parameter.ndim > 1:
                    # The norm of gradient + decay * parameter, and that sum times the ratio, without a copy of either.
                    norm, along = parameter.norm(), torch.dot(gradient.reshape(-1), parameter.reshape(-1))
                    squared = gradient.norm().square() + 2 * decay * along + (decay * norm).square()
                    update_norm = squared.clamp_min(0).sqrt()
                    ratio = group["trust_coefficient"] * norm / update_norm
                    # A tensor at zero, or without gradient, takes a plain step.
                    ratio = torch.where((norm > 0) & (update_norm > 0), ratio, torch.ones_like(ratio))
                    velocity.addcmul_(gradient, ratio).addcmul_(parameter, ratio, value=decay)
                else:
                    velocity.add_(gradient)
                parameter.add_(velocity, alpha=-group["lr"])
        return loss


@register("optimizer", "lars")
@dataclass
class LARSConfig:
    """Settings of `LARS`; `lr` is for a batch of 256 and scales with the global batch."""

    lr: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 1e-6
    trust_coefficient: float = 1e-3

    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> LARS:
        """Return the optimizer at the effective learning rate `lr`."""
        groups = decay_groups(parameters, self.weight_decay)
        return LARS(groups, lr, self.momentum, self.weight_decay, self.trust_coefficient)
