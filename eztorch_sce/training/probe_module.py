"""Linear evaluation on random views as a LightningModule: linear classifiers on a frozen backbone."""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from eztorch_sce.augment.views import Views
from eztorch_sce.evaluation.linear import LinearHeads
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.optim.groups import with_rates
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.training.metrics import StepMetrics, log_numbers, metrics_are_due
from eztorch_sce.training.nonfinite import check_logged
from eztorch_sce.training.optimization import has_samples, in_proportion, skipped_step, with_schedule
from eztorch_sce.training.training_module import TrainingModule
from eztorch_sce.transfers import to_device
from eztorch_sce.types import ViewBatch


class ValidationHeads(nn.Module):
    """Heads that train beside those of a probe, without the held-out records, to choose its learning rate on these.

    Args:
        heads: Heads of the probe, whose initial weights are copied.
        held_out: Whether each record of the train split is held out.
    """

    def __init__(self, heads: LinearHeads, held_out: Bool[Tensor, " N"]) -> None:
        super().__init__()
        self.heads = copy.deepcopy(heads)
        self.held_out = held_out  # on the host, like the records of a batch

    def losses(
        self, features: Float[Tensor, "B F"], labels: Int64[Tensor, " B"], records: Int64[Tensor, " B"]
    ) -> Float[Tensor, " heads"]:
        """Return the mean cross entropy of each head over the records that are not held out; 0 if there are none."""
        kept = ~self.held_out[records]  # (B,), on the host
        each = torch.stack([F.cross_entropy(logits, labels, reduction="none") for logits in self.heads(features)])
        return (each * to_device(kept, each.device)).sum(dim=1) / kept.sum().clamp_min(1)


class ProbeModule(TrainingModule):
    """Train linear heads. The backbone stays frozen and in evaluation mode, whatever the mode of the module.

    Args:
        backbone: The backbone, which is frozen in place.
        heads: One linear classifier per learning rate.
        augmentation: Augmentation of a batch on the device.
        optimizer: A registered optimizer config.
        schedule: Schedule of the learning rates.
        batch_size: Global batch size per optimizer step.
        validation: Heads that choose the learning rate, trained in the same steps; None if there is no such choice.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: LinearHeads,
        augmentation: Views,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        batch_size: int,
        validation: ValidationHeads | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.heads, self.validation, self.augmentation = heads, validation, augmentation
        self.optimizer, self.schedule, self.batch_size = optimizer, schedule, batch_size
        self.metrics = StepMetrics()

    def train(self, mode: bool = True) -> "ProbeModule":
        """Set the mode of the heads; the backbone, with its batch norm statistics, stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, clips: Float[Tensor, "B C T S S"]) -> Float[Tensor, "B heads classes"]:
        """Return the logits of every head for normalized clips."""
        return cast(Tensor, self.heads(self.backbone(clips))).transpose(0, 1)

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor | None:
        """Return the sum of the heads' losses, or skip a batch without readable samples."""
        if not has_samples(batch, 1, self.device):
            return skipped_step(self)
        with torch.no_grad():
            features = self.backbone(batch.views[0])  # (B, F)
        losses = self.heads.losses(features, batch.label)  # (heads,)
        if metrics_are_due(self, batch_idx):
            self.metrics.keep({"loss": losses})
        if self.validation is None:
            return in_proportion(losses.sum())
        return in_proportion(losses.sum()) + self.validation.losses(features, batch.label, batch.record).sum()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Check and log the metrics of the step, if they are due."""
        numbers = self.metrics.read(self, optimizer)
        if numbers:
            numbers["loss"] = numbers["loss"].min()  # of the best head
        check_logged(self, numbers)
        log_numbers(self, numbers)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build one optimizer in which each head has its own effective learning rate."""
        rates = self.heads.rates(self.batch_size)
        if self.validation is not None:
            rates += self.validation.heads.rates(self.batch_size)
        return with_schedule(self.trainer, with_rates(self.optimizer, rates), self.schedule)
