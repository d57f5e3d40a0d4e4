"""Metrics of training steps, read back from the device once every few steps."""

from collections.abc import Mapping

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from eztorch_sce.shards import total_norm
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
    every = int(trainer.log_every_n_steps)  # type: ignore[attr-defined]
    return ends_step(trainer, batch_idx) and every > 0 and (trainer.global_step + 1) % every == 0


def ends_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Return whether a batch is the last one of an optimizer step."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch


def log_numbers(module: pl.LightningModule, numbers: Mapping[str, float | Tensor]) -> None:
    """Log numbers of the CPU. They stay there: Lightning would copy a plain number to the device, and wait for it."""
    values = {name: torch.tensor(float(value), dtype=torch.get_default_dtype()) for name, value in numbers.items()}
    module.log_dict(values)


def forget_step(trainer: pl.Trainer) -> None:
    """Leave the metrics of an earlier step out of the row of this one, in which Lightning repeats them otherwise.

    They are not logged in a step that is skipped.
    """
    if trainer._results is not None:
        trainer._results.reset(fx="on_before_optimizer_step")


class StepMetrics:
    """Metrics of a step, kept on the device until its gradients are there, and read with their norm in one copy."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def keep(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors of the forward pass until `read`."""
        self._tensors = {name: tensor.detach() for name, tensor in tensors.items()}

    def drop(self) -> None:
        """Forget the tensors that were kept, those of a step that is not taken."""
        self._tensors = {}

    def read(self, module: pl.LightningModule, optimizer: Optimizer) -> dict[str, Tensor]:
        """Return the tensors that were kept, and the norm of the gradients as `grad_norm`, on the CPU.

        Empty if the metrics of this step are not logged. Call it in `on_before_optimizer_step`.
        """
        if not self._tensors:
            return {}
        tensors = self._tensors | {"grad_norm": _gradient_norm(module, optimizer)}
        self._tensors = {}
        return dict(zip(tensors, to_host(list(tensors.values())), strict=True))


@torch.no_grad()
def _gradient_norm(module: pl.LightningModule, optimizer: Optimizer) -> Tensor:
    """Return the L2 norm of all gradients of a step, before clipping and without the factor of a `GradScaler`."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    norm = total_norm([weight.grad for weight in weights if weight.grad is not None])
    scaler = getattr(module.trainer.precision_plugin, "scaler", None)
    if scaler is not None and getattr(
        optimizer, "_step_supports_amp_scaling", False
    ):  # its kernel takes the factor off
        norm = norm / scaler._get_scale_async()  # stays on the device, unlike `get_scale`
    return norm
