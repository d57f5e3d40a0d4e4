"""What all LightningModules of this package share."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_lightning as pl

from eztorch_sce.augment.views import Views
from eztorch_sce.training.nonfinite import step_unless_skipped
from eztorch_sce.types import Batch, ViewBatch


class TrainingModule(pl.LightningModule):
    """A module whose batches are augmented on the device, and whose steps are skipped if they are not finite.

    Attributes:
        augmentation: Augmentation of a batch on the device.
    """

    augmentation: Views

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> ViewBatch:
        """Augment the batch on the device."""
        return self.augmentation(batch)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Step the optimizer, unless the step is not finite and is skipped, see `StepGuard`."""
        if step_unless_skipped(self, partial(super().optimizer_step, epoch, batch_idx, optimizer), optimizer_closure):
            self.after_optimizer_step()

    def after_optimizer_step(self) -> None:
        """Update what the optimizer does not: nothing here. Called once per step, however many batches it has."""
