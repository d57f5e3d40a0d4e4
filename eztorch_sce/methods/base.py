"""Contract of self-supervised methods."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from eztorch_sce.losses.pairs import Loss
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.types import StepOutput


@runtime_checkable
class Method(Protocol):
    """A module that trains a backbone from views of the same samples.

    Attributes:
        loss: The loss of pairs of views.
        backbone: The backbone to keep after training.
    """

    loss: Loss

    @property
    def backbone(self) -> Backbone:
        """The backbone to keep after training."""

    def __call__(self, views: list[Float[Tensor, "B C _ _ _"]]) -> StepOutput:
        """Return the loss of one batch from normalized views (B, C, T, S, S), global views first."""

    def after_step(self, progress: float) -> None:
        """Update queue and momentum encoder, if any, after an optimizer step, at `progress` in [0, 1] of training."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Return all parameters, trained or not."""
