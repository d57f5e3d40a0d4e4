"""Helpers of all LightningModules: learning rate schedules, and batches that are too small to train on."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from eztorch_sce.distributed import all_have, world_size
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.types import ViewBatch


def with_schedule(trainer: pl.Trainer, optimizer: Optimizer, schedule: ScheduleConfig) -> OptimizerLRSchedulerConfig:
    """Return an optimizer and its schedule, updated every optimizer step, as `configure_optimizers` returns them."""
    num_steps, max_epochs = int(trainer.estimated_stepping_batches), trainer.max_epochs or 1
    scheduler = LambdaLR(optimizer, lambda step: schedule.factor(step, num_steps, max_epochs))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def has_samples(batch: ViewBatch, minimum: int, device: torch.device) -> bool:
    """Return whether the batch of every process has at least `minimum` readable samples.

    The result is the same in all processes, so either all of them take the step or none does.

    Raises:
        MediaError: If too many files of another process cannot be read.
    """
    return all_have(len(batch.record), minimum, device)


def skipped_step(module: pl.LightningModule) -> Tensor | None:
    """Return the value of `training_step` for a batch that is skipped.

    A single process returns None, which Lightning skips. Several processes always exchange gradients, so they return a
    loss whose gradients are zero.
    """
    if world_size() == 1:
        return None
    return 0 * torch.stack([p.sum() for p in module.parameters() if p.requires_grad]).sum()
