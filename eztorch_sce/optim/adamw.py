"""Adam with decoupled weight decay."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from eztorch_sce.optim.groups import decay_groups
from eztorch_sce.registry import register


@register("optimizer", "adamw")
@dataclass
class AdamWConfig:
    """Settings of torch's AdamW; `lr` is for a batch of 256 and scales with the global batch. Norms do not decay."""

    lr: float = 1e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.05

    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """Return the optimizer at the effective learning rate `lr`."""
        return torch.optim.AdamW(decay_groups(parameters, self.weight_decay), lr, (self.betas[0], self.betas[1]))
