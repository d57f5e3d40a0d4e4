"""Stochastic gradient descent with momentum."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from eztorch_sce.registry import register


@register("optimizer", "sgd")
@dataclass
class SGDConfig:
    """Settings of torch's SGD; `lr` is for a batch of 256 and scales with the global batch. All tensors decay."""

    lr: float = 0.06
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False

    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """Return the optimizer at the effective learning rate `lr`."""
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        return torch.optim.SGD(learning, lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov)
