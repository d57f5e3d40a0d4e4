"""Stochastic gradient descent with momentum."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from eztorch_sce.optim.base import LR_HELP
from eztorch_sce.optim.kernels import accept_any_state, fused_on, start_velocity_at_zero
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, setting
from eztorch_sce.shards import is_sharded


@register("optimizer", "sgd")
@dataclass
class SGDConfig(Settings):
    """Stochastic gradient descent with momentum. Weight decay applies to all parameters."""

    lr: float = setting(0.06, above=0, help=LR_HELP)
    momentum: float = setting(0.9, at_least=0, below=1, help="Momentum of the velocity.")
    weight_decay: float = setting(5e-4, at_least=0, help="L2 penalty added to the gradient.")
    nesterov: bool = setting(False, help="Use Nesterov momentum.")

    def conflicts(self, prefix: str) -> list[str]:
        """Return a message if Nesterov momentum is set without momentum."""
        if self.nesterov and self.momentum == 0:
            return [f"{prefix}.nesterov=true needs {prefix}.momentum greater than 0"]
        return []

    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """Return the optimizer of the parameters at the effective learning rate `lr`."""
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        sharded = any(map(is_sharded, trainable))  # torch's fused SGD does not take sharded tensors
        optimizer = torch.optim.SGD(
            trainable,
            lr,
            self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            foreach=True if sharded else None,
            fused=None if sharded else fused_on(trainable),
        )
        return accept_any_state(start_velocity_at_zero(optimizer))
