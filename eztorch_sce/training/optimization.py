"""Helpers of all LightningModules: learning rate schedules, and batches that are too small to train on."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from eztorch_sce.distributed import exchange, last_exchange, rank, world_size
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.shards import shard_of
from eztorch_sce.types import ViewBatch


def with_schedule(trainer: pl.Trainer, optimizer: Optimizer, schedule: ScheduleConfig) -> OptimizerLRSchedulerConfig:
    """Return an optimizer and its schedule, updated every optimizer step, as `configure_optimizers` returns them."""
    num_steps, max_epochs = int(trainer.estimated_stepping_batches), trainer.max_epochs or 1
    scheduler = LambdaLR(optimizer, lambda step: schedule.factor(step, num_steps, max_epochs))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def has_samples(batch: ViewBatch, minimum: int, device: torch.device) -> bool:
    """Return whether the batch of every process has at least `minimum` readable samples.

    The result is the same in all processes, so either all of them take the step or none does. Every process must call
    this at the start of every step: it is the only exchange between their hosts in a step, see `distributed.exchange`.

    Args:
        batch: The batch of this process.
        minimum: Samples that the step needs.
        device: Device of this process, which is not waited for.
    """
    return min(exchange(len(batch.record), batch.failures).rows) >= minimum


def in_proportion(loss: Tensor) -> Tensor:
    """Return the mean over a batch, such that its mean over the processes is that over all samples of their batches.

    The batches differ in size if files of some could not be read.
    """
    rows = last_exchange().rows
    if not rows or min(rows) == max(rows):
        return loss
    return loss * (rows[rank()] * len(rows) / sum(rows))


def skipped_step(module: pl.LightningModule) -> Tensor | None:
    """Return the value of `training_step` for a batch that is skipped.

    A single process returns None, which Lightning skips. Several processes always exchange gradients, so they return a
    loss whose gradients are zero.
    """
    if world_size() == 1:
        return None
    return 0 * torch.stack([shard_of(p).sum() for p in module.parameters() if p.requires_grad]).sum()
