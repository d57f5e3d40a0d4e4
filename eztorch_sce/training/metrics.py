"""Metrics of training steps, read back from the device once every few steps."""

from collections.abc import Mapping

import pytorch_lightning as pl
import torch
from torch import Tensor

from eztorch_sce.transfers import to_host


def metrics_are_due(module: pl.LightningModule, batch_idx: int) -> bool:
    """Return whether the metrics of a batch are logged.

    They are at every `log_every_n_steps`-th optimizer step, after the last of its batches, and at the end of an epoch,
    whose last loss callbacks and checkpoints read. In other steps, the host does not wait for the device. A module
    without a trainer logs nothing.
    """
    if module._trainer is None:
        return False
    trainer = module.trainer
    if trainer.is_last_batch:
        return True
    ends_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
    every = int(trainer.log_every_n_steps)  # type: ignore[attr-defined]
    return ends_step and every > 0 and (trainer.global_step + 1) % every == 0


def log_numbers(module: pl.LightningModule, numbers: Mapping[str, float], batch_size: int | None = None) -> None:
    """Log numbers. They stay on the host: Lightning would copy a plain number to the device, and wait for it."""
    values = {name: torch.tensor(value, dtype=torch.get_default_dtype()) for name, value in numbers.items()}
    module.log_dict(values, batch_size=batch_size)


def read_metrics(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Return scalars of a device as numbers, after one copy."""
    return {name: float(value) for name, value in zip(metrics, to_host(list(metrics.values())), strict=True)}
