"""Supervised training of a classifier as a LightningModule: fine-tuning, or training from scratch."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer

from eztorch_sce.augment.views import Views
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.optim.groups import blocks_in_order, effective_lr, with_rates
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.training.metrics import StepMetrics, log_numbers, metrics_are_due
from eztorch_sce.training.nonfinite import check_logged
from eztorch_sce.training.optimization import has_samples, in_proportion, skipped_step, with_schedule
from eztorch_sce.training.training_module import TrainingModule
from eztorch_sce.types import ViewBatch


class ClassifyModule(TrainingModule):
    """Cross-entropy on one random view of each clip.

    Args:
        classifier: Backbone, dropout and a linear layer.
        augmentation: Augmentation of a batch on the device.
        optimizer: A registered optimizer config.
        schedule: Schedule of the learning rate.
        batch_size: Global batch size per optimizer step.
        layer_decay: Ratio of each block's learning rate to that of the block after it; 1 for a single rate.
        mixup: Parameter of the beta distribution of the weight by which two samples are mixed; 0 for no mixup.
    """

    def __init__(
        self,
        classifier: Classifier,
        augmentation: Views,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        batch_size: int,
        layer_decay: float = 1.0,
        mixup: float = 0.0,
    ) -> None:
        super().__init__()
        self.classifier, self.augmentation = classifier, augmentation
        self.optimizer, self.schedule, self.batch_size = optimizer, schedule, batch_size
        self.layer_decay, self.mixup = layer_decay, mixup
        self.metrics = StepMetrics()

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor | None:
        """Return the loss, or skip a batch with too few readable samples for batch statistics."""
        if not has_samples(batch, 2, self.device):
            return skipped_step(self)
        clips, other_label, weight = self._mix(batch)
        logits = self.classifier(clips)  # (B, classes)
        loss = weight * F.cross_entropy(logits, batch.label) + (1 - weight) * F.cross_entropy(logits, other_label)
        if metrics_are_due(self, batch_idx):
            accuracy = (logits.argmax(dim=1) == batch.label).float().mean()
            self.metrics.keep({"loss": loss, "train_accuracy": accuracy})
        return in_proportion(loss)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Check and log the metrics of the step, if they are due."""
        numbers = self.metrics.read(self, optimizer)
        check_logged(self, numbers)
        log_numbers(self, numbers)

    def _mix(self, batch: ViewBatch) -> tuple[Float[Tensor, "B C T S S"], Int64[Tensor, " B"], float]:
        """Mix each clip with the next one; return the clips, the labels of the next ones, and the weight of their own.

        Source: Zhang et al., ICLR 2018, arXiv:1710.09412.
        """
        clips = batch.views[0]
        if self.mixup == 0:
            return clips, batch.label, 1.0
        weight = float(torch.distributions.Beta(self.mixup, self.mixup).sample())
        return clips.lerp(clips.roll(1, dims=0), 1 - weight), batch.label.roll(1), weight

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimizer at its effective learning rate, decayed block by block toward the input."""
        lr = effective_lr(self.optimizer.lr, self.batch_size)
        blocks = [*blocks_in_order(self.classifier.backbone), self.classifier.linear]
        rates = [lr * self.layer_decay**depth for depth in reversed(range(len(blocks)))]  # depth 0 is the linear layer
        groups = [(block.parameters(), rate) for block, rate in zip(blocks, rates, strict=True)]
        return with_schedule(self.trainer, with_rates(self.optimizer, groups), self.schedule)
