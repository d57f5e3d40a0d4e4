"""Self-supervised pretraining, as Lightning drives it."""

from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn

from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.training.optimization import optimizer_and_schedule
from eztorch_sce.training.views import Views
from eztorch_sce.types import Batch


class PretrainModule(pl.LightningModule):
    """Views, method, optimizer: nothing else. The method knows the networks and the loss.

    Args:
        method: `forward(views) -> StepOutput` and `after_step(progress)`.
        views: The device side of the views.
        optimizer: A registered optimizer config.
        schedule: Of the learning rate.
        batch_size: Global, of one optimizer step.
    """

    def __init__(
        self, method: nn.Module, views: Views, optimizer: Any, schedule: ScheduleConfig, batch_size: int
    ) -> None:
        super().__init__()
        self.method, self.views = method, views
        self.optimizer, self.schedule, self.batch_size = optimizer, schedule, batch_size

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Make the views on the device."""
        return batch._replace(views=self.views(batch))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Return the loss; None skips a batch of which too little could be read for batch statistics."""
        if len(batch.record) < 2:
            return None
        output = self.method(batch.views)
        self.log("loss", output.loss.detach(), batch_size=len(batch.record))
        self.log_dict(output.metrics, batch_size=len(batch.record))
        return output.loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the optimizer, then the momentum encoder: also under accumulation once per step."""
        super().optimizer_step(*args, **kwargs)
        progress = (self.trainer.global_step) / max(1, int(self.trainer.estimated_stepping_batches))
        self.method.after_step(min(1.0, progress))  # type: ignore[operator]

    def configure_optimizers(self) -> Any:
        """Build the optimizer at its effective rate."""
        parameters = list(self.method.parameters())
        return optimizer_and_schedule(self.trainer, parameters, self.optimizer, self.schedule, self.batch_size)
