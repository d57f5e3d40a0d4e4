"""Optimizer and schedule of a LightningModule."""

from typing import Any

import pytorch_lightning as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from eztorch_sce.optim.schedules import ScheduleConfig


def effective_lr(base_lr: float, batch_size: int) -> float:
    """Return the learning rate for a global batch: the base is for 256 samples."""
    return base_lr * batch_size / 256


def scheduled(trainer: pl.Trainer, optimizer: Optimizer, schedule: ScheduleConfig) -> dict[str, Any]:
    """Return what `configure_optimizers` returns, with a schedule that moves every optimizer step."""
    num_steps, max_epochs = int(trainer.estimated_stepping_batches), trainer.max_epochs or 1
    scheduler = LambdaLR(optimizer, lambda step: schedule.factor(step, num_steps, max_epochs))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
