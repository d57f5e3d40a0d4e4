"""Supervised training of a classifier: fine-tuning, or from scratch."""

from typing import Any

import pytorch_lightning as pl
import torch.nn.functional as F
from torch import Tensor

from eztorch_sce.models.classifier import Classifier
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.training.optimization import optimizer_and_schedule
from eztorch_sce.training.views import Views
from eztorch_sce.types import Batch


class ClassifyModule(pl.LightningModule):
    """Cross entropy on one random view of each clip.

    Args:
        classifier: Backbone, dropout and a linear layer.
        views: The device side of the view.
        optimizer: A registered optimizer config.
        schedule: Of the learning rate.
        batch_size: Global, of one optimizer step.
    """

    def __init__(
        self, classifier: Classifier, views: Views, optimizer: Any, schedule: ScheduleConfig, batch_size: int
    ) -> None:
        super().__init__()
        self.classifier, self.views = classifier, views
        self.optimizer, self.schedule, self.batch_size = optimizer, schedule, batch_size

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Make the view on the device."""
        return batch._replace(views=self.views(batch))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Return the loss; None skips a batch of which too little could be read for batch statistics."""
        if len(batch.record) < 2:
            return None
        logits = self.classifier(batch.views[0])  # (B, classes)
        loss = F.cross_entropy(logits, batch.label)
        accuracy = (logits.argmax(dim=1) == batch.label).float().mean()
        self.log_dict({"loss": loss.detach(), "train_accuracy": accuracy}, batch_size=len(batch.record))
        return loss

    def configure_optimizers(self) -> Any:
        """Build the optimizer at its effective rate."""
        parameters = list(self.classifier.parameters())
        return optimizer_and_schedule(self.trainer, parameters, self.optimizer, self.schedule, self.batch_size)
