"""LARS: layer-wise adaptive rates for large batches."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from eztorch_sce.optim.base import LR_HELP
from eztorch_sce.optim.groups import decay_groups
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, setting


class LARS(Optimizer):
    """SGD with momentum that scales the step of each tensor by the ratio of its norm to the norm of its gradient.

    Tensors with one dimension (norms and biases) get neither weight decay nor adaptation.

    Source: You et al., 2017, arXiv:1708.03888.

    Args:
        params: Parameters or parameter groups.
        lr: Effective learning rate, >= 0.
        momentum: Momentum of the velocity, in [0, 1).
        weight_decay: L2 penalty, added to the gradient before the ratio is taken.
        trust_coefficient: Scale of the adapted rate.
    """

    def __init__(
        self,
        params: ParamsT,
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
        """Take one step and return the loss of `closure`, or None without a closure."""
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
                    # Norm of (gradient + decay * parameter) without materializing the sum.
                    norm, dot = parameter.norm(), torch.dot(gradient.reshape(-1), parameter.reshape(-1))
                    squared = gradient.norm().square() + 2 * decay * dot + (decay * norm).square()
                    update_norm = squared.clamp_min(0).sqrt()
                    ratio = group["trust_coefficient"] * norm / update_norm
                    # No adaptation if the tensor or its update is zero.
                    ratio = torch.where((norm > 0) & (update_norm > 0), ratio, torch.ones_like(ratio))
                    velocity.addcmul_(gradient, ratio).addcmul_(parameter, ratio, value=decay)
                else:
                    velocity.add_(gradient)
                parameter.add_(velocity, alpha=-group["lr"])
        return loss


@register("optimizer", "lars")
@dataclass
class LARSConfig(Settings):
    """Layer-wise adaptive rates for large batches (You et al., arXiv:1708.03888)."""

    lr: float = setting(0.3, above=0, help=LR_HELP)
    momentum: float = setting(0.9, at_least=0, below=1, help="Momentum of the velocity.")
    weight_decay: float = setting(
        1e-6, at_least=0, help="L2 penalty added to the gradient, except for norms and biases."
    )
    trust_coefficient: float = setting(1e-3, above=0, help="Scale of the adapted rate of each layer.")

    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> LARS:
        """Return the optimizer of the parameters at the effective learning rate `lr`."""
        groups = decay_groups(parameters, self.weight_decay)
        return LARS(groups, lr, self.momentum, self.weight_decay, self.trust_coefficient)
