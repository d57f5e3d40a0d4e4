"""Adam with decoupled weight decay."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from eztorch_sce.optim.base import LR_HELP
from eztorch_sce.optim.groups import decay_groups
from eztorch_sce.optim.kernels import accept_any_state, fused_on
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, setting, show


@register("optimizer", "adamw")
@dataclass
class AdamWConfig(Settings):
    """Adam with decoupled weight decay, except for norms and biases (Loshchilov and Hutter, arXiv:1711.05101)."""

    lr: float = setting(1e-3, above=0, help=LR_HELP)
    betas: list[float] = setting(
        [0.9, 0.999], at_least=0, below=1, help="Decay rates of the running means of the gradient and its square."
    )
    weight_decay: float = setting(0.05, at_least=0, help="Decoupled weight decay.")

    def conflicts(self, prefix: str) -> list[str]:
        """Return a message unless there are two betas."""
        return [] if len(self.betas) == 2 else [f"{prefix}.betas={show(self.betas)} must be two numbers"]

    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """Return the optimizer of the parameters at the effective learning rate `lr`."""
        groups = decay_groups(parameters, self.weight_decay)
        fused = fused_on(parameter for group in groups for parameter in group["params"])
        return accept_any_state(torch.optim.AdamW(groups, lr, (self.betas[0], self.betas[1]), fused=fused))
