"""Optimizer and schedule of a LightningModule."""

from typing import Any

import pytorch_lightning as pl
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from eztorch_sce.optim.schedules import ScheduleConfig, warmup_cosine


def effective_lr(base_lr: float, batch_size: int) -> float:
    """Return the learning rate for a global batch: the base is for 256 samples."""
    return base_lr * batch_size / 256


def optimizer_and_schedule(
    trainer: pl.Trainer, parameters: list[nn.Parameter], optimizer: Any, schedule: ScheduleConfig, batch_size: int
) -> dict[str, Any]:
    """Return what `configure_optimizers` returns, with a schedule that moves every optimizer step."""
    built = optimizer.build(parameters, effective_lr(optimizer.lr, batch_size))
    num_steps = int(trainer.estimated_stepping_batches)
    steps_per_epoch = num_steps / (trainer.max_epochs or 1)
    warmup_steps = round(schedule.warmup_epochs * steps_per_epoch)
    scheduler = LambdaLR(built, lambda step: warmup_cosine(step, warmup_steps, num_steps))
    return {"optimizer": built, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
