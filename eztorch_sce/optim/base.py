"""The contract of optimizer configs."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.optim import Optimizer

from eztorch_sce.registry import is_own, wrong_result

LR_HELP = "Learning rate for a batch of 256; scaled linearly with the global batch."


@runtime_checkable
class OptimizerConfig(Protocol):
    """A config dataclass that builds an optimizer; `@register("optimizer", name)` makes it a choice.

    Attributes:
        lr: Learning rate for a batch of 256.
    """

    lr: float

    def build(self, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """Return the optimizer of the parameters at the effective learning rate `lr`."""
        ...


def check_optimizer(config: object) -> None:
    """Check that the optimizer of a user builds one, on a single parameter.

    Raises:
        ConfigError: If it does not return an optimizer.
    """
    if isinstance(config, OptimizerConfig) and not is_own(type(config)):
        optimizer: object = config.build([nn.Parameter(torch.zeros(2, 2))], config.lr)
        if not isinstance(optimizer, Optimizer):
            raise wrong_result(config, "build", optimizer, "a torch.optim.Optimizer of the parameters")
