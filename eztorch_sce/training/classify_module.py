"""Supervised training of a classifier: fine-tuning, or from scratch."""

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from eztorch_sce.models.classifier import Classifier
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.optim.groups import blocks_in_order, with_rates
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.training.augmentation import BatchAugmentation
from eztorch_sce.training.optimization import effective_lr, has_samples, no_step, scheduled
from eztorch_sce.types import Batch, ViewBatch


class ClassifyModule(pl.LightningModule):
    """Cross entropy on one random view of each clip.

    Args:
        classifier: Backbone, dropout and a linear layer.
        views: The device side of the view.
        optimizer: A registered optimizer config.
        schedule: Of the learning rate.
        batch_size: Global, of one optimizer step.
        layer_decay: Of the learning rate from each block to the one before it; 1 is the same for all.
        mixup: Parameter of the beta distribution that pairs of samples are mixed by; 0 is off.
    """

    def __init__(
        self,
        classifier: Classifier,
        views: BatchAugmentation,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        batch_size: int,
        layer_decay: float = 1.0,
        mixup: float = 0.0,
    ) -> None:
        super().__init__()
        self.classifier, self.views = classifier, views
        self.optimizer, self.schedule, self.batch_size = optimizer, schedule, batch_size
        self.layer_decay, self.mixup = layer_decay, mixup

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> ViewBatch:
        """Make the view on the device."""
        augmented: ViewBatch = self.views(batch)
        return augmented

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor | None:
        """Return the loss; a batch of which too little could be read for batch statistics is left out."""
        if not has_samples(batch, 2, self.device):
            return no_step(self)
        clips, others, share = self._mixed(batch)
        logits = self.classifier(clips)  # (B, classes)
        loss = share * F.cross_entropy(logits, batch.label) + (1 - share) * F.cross_entropy(logits, others)
        accuracy = (logits.argmax(dim=1) == batch.label).float().mean()
        self.log_dict({"loss": loss.detach(), "train_accuracy": accuracy}, batch_size=len(batch.record))
        return loss

    def _mixed(self, batch: ViewBatch) -> tuple[Tensor, Tensor, float]:
        """Return clips mixed with their neighbors, the labels of those, and the share of the clips themselves.

        Source: Zhang et al., ICLR 2018, arXiv:1710.09412.
        """
        clips = batch.views[0]
        if self.mixup == 0:
            return clips, batch.label, 1.0
        share = float(torch.distributions.Beta(self.mixup, self.mixup).sample())
        return clips.lerp(clips.roll(1, dims=0), 1 - share), batch.label.roll(1), share

    def configure_optimizers(self) -> Any:
        """Build the optimizer at its effective rate, lower in the first blocks where there is a layer decay."""
        lr = effective_lr(self.optimizer.lr, self.batch_size)
        blocks = [*blocks_in_order(self.classifier.backbone), self.classifier.linear]
        rates = [lr * self.layer_decay**depth for depth in reversed(range(len(blocks)))]  # depth 0 is the classifier
        parts = [(block.parameters(), rate) for block, rate in zip(blocks, rates, strict=True)]
        return scheduled(self.trainer, with_rates(self.optimizer, parts), self.schedule)
