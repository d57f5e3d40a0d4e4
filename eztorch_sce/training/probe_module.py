"""Linear evaluation on random views as a LightningModule: linear classifiers on a frozen backbone."""

from typing import cast

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from eztorch_sce.evaluation.linear import LinearHeads
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.training.augmentation import BatchAugmentation
from eztorch_sce.training.optimization import has_samples, skipped_step, with_schedule
from eztorch_sce.types import Batch, ViewBatch


class ProbeModule(pl.LightningModule):
    """Train linear heads. The backbone stays frozen and in evaluation mode, whatever the mode of the module.

    Args:
        backbone: The backbone, which is frozen in place.
        heads: One linear classifier per learning rate.
        augmentation: Augmentation of a batch on the device.
        optimizer: A registered optimizer config.
        schedule: Schedule of the learning rates.
        batch_size: Global batch size per optimizer step.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: LinearHeads,
        augmentation: BatchAugmentation,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        batch_size: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.heads, self.augmentation = heads, augmentation
        self.optimizer, self.schedule, self.batch_size = optimizer, schedule, batch_size

    def train(self, mode: bool = True) -> "ProbeModule":
        """Set the mode of the heads; the backbone, with its batch norm statistics, stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, clips: Float[Tensor, "B C T S S"]) -> Float[Tensor, "B heads classes"]:
        """Return the logits of every head for normalized clips."""
        return cast(Tensor, self.heads(self.backbone(clips))).transpose(0, 1)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> ViewBatch:
        """Augment the batch on the device."""
        return cast(ViewBatch, self.augmentation(batch))

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor | None:
        """Return the sum of the heads' losses, or skip a batch without readable samples."""
        if not has_samples(batch, 1, self.device):
            return skipped_step(self)
        with torch.no_grad():
            features = self.backbone(batch.views[0])  # (B, F)
        losses = self.heads.losses(features, batch.label)  # (heads,)
        self.log("loss", losses.detach().min(), batch_size=len(batch.record))
        return losses.sum()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build one optimizer in which each head has its own effective learning rate."""
        return with_schedule(self.trainer, self.heads.optimizer(self.optimizer, self.batch_size), self.schedule)
