"""Linear evaluation with random views: linear classifiers on a frozen backbone, as Lightning drives them."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from eztorch_sce.evaluation.linear import LinearHeads
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.training.augmentation import BatchAugmentation
from eztorch_sce.training.optimization import has_samples, no_step, scheduled
from eztorch_sce.types import Batch, ViewBatch


class ProbeModule(pl.LightningModule):
    """The heads learn; the backbone, its batch statistics included, stays as it is in every mode of the module.

    Args:
        backbone: Frozen here.
        heads: One classifier per learning rate.
        views: The device side of the view.
        optimizer: A registered optimizer config.
        schedule: Of the learning rates.
        batch_size: Global, of one optimizer step.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: LinearHeads,
        views: BatchAugmentation,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        batch_size: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.heads, self.views = heads, views
        self.optimizer, self.schedule, self.batch_size = optimizer, schedule, batch_size

    def train(self, mode: bool = True) -> "ProbeModule":
        """Put the heads in training or evaluation mode; the backbone is always in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits (B, heads, C) of normalized clips (B, C, T, H, W)."""
        logits: Tensor = self.heads(self.backbone(clips))
        return logits.transpose(0, 1)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> ViewBatch:
        """Make the view on the device."""
        augmented: ViewBatch = self.views(batch)
        return augmented

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor | None:
        """Return the sum of the heads' losses; a batch of which nothing could be read is left out."""
        if not has_samples(batch, 1, self.device):
            return no_step(self)
        with torch.no_grad():
            features = self.backbone(batch.views[0])  # (B, F)
        losses = self.heads.losses(features, batch.label)
        self.log("loss", losses.detach().min(), batch_size=len(batch.record))
        return losses.sum()

    def configure_optimizers(self) -> Any:
        """Build one optimizer in which each head has its own effective rate."""
        return scheduled(self.trainer, self.heads.optimizer(self.optimizer, self.batch_size), self.schedule)
