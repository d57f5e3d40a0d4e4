"""Optimizer and schedule of a LightningModule."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from eztorch_sce.distributed import fewest, world_size
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.types import ViewBatch


def effective_lr(base_lr: float, batch_size: int) -> float:
    """Return the learning rate for a global batch: the base is for 256 samples."""
    return base_lr * batch_size / 256


def scheduled(trainer: pl.Trainer, optimizer: Optimizer, schedule: ScheduleConfig) -> dict[str, Any]:
    """Return what `configure_optimizers` returns, with a schedule that moves every optimizer step."""
    num_steps, max_epochs = int(trainer.estimated_stepping_batches), trainer.max_epochs or 1
    scheduler = LambdaLR(optimizer, lambda step: schedule.factor(step, num_steps, max_epochs))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def has_samples(batch: ViewBatch, least: int, device: torch.device) -> bool:
    """Tell whether this process and every other has that many samples that could be read: all do a step, or none."""
    return fewest(len(batch.record), device) >= least


def no_step(module: pl.LightningModule) -> Tensor | None:
    """Return what a training step returns for a batch that is left out.

    Alone that is None, which skips it. Several processes exchange their gradients whatever happens, so there it is a
    loss that has none.
    """
    if world_size() == 1:
        return None
    return 0 * torch.stack([p.sum() for p in module.parameters() if p.requires_grad]).sum()
