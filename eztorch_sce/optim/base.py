"""The contract of optimizer configs."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from torch import nn
from torch.optim import Optimizer

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
