"""Metrics of training steps, read back from the device once every few steps."""

from collections.abc import Mapping

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from eztorch_sce import distributed
from eztorch_sce.evaluation.diagnostics import embedding_statistics
from eztorch_sce.shards import total_norm
from eztorch_sce.transfers import to_device, to_host

EMBEDDINGS = "embeddings: "  # prefix of their statistics, which no metric has


def metrics_are_due(module: pl.LightningModule, batch_idx: int) -> bool:
    """Return whether the metrics of the step that a batch belongs to are logged.

    They are at every `log_every_n_steps`-th optimizer step, and at the end of an epoch, whose last loss callbacks and
    checkpoints read. In other steps, the host does not wait for the device. A module without a trainer logs nothing.
    """
    if module._trainer is None:
        return False
    trainer = module.trainer
    if trainer.is_last_batch or batch_idx + trainer.accumulate_grad_batches >= trainer.num_training_batches:
        return True
    every = int(trainer.log_every_n_steps)  # type: ignore[attr-defined]
    return every > 0 and (trainer.global_step + 1) % every == 0


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
    """Metrics of a step, kept on the device until its gradients are there, and read with their norm in one copy.

    They are means over the samples of all processes and all batches of the step, however it is divided.
    """

    def __init__(self) -> None:
        self._batches: list[dict[str, Tensor]] = []
        self._embeddings: list[Tensor] = []

    def keep(self, means: Mapping[str, Tensor], embeddings: Tensor | None = None) -> None:
        """Keep tensors of the forward pass of a batch until `read`. Every process must call this.

        Args:
            means: Means over the batch of this process.
            embeddings: Embeddings (B, D) of the batch of this process, or None.
        """
        rows = distributed.last_exchange().rows
        weight = rows[distributed.rank()] / sum(rows) if len(rows) > 1 else 1.0
        self._batches.append({name: mean.detach() * weight for name, mean in means.items()})
        if embeddings is not None:
            self._embeddings.append(distributed.gather_with_offset(embeddings.detach())[0])

    def drop(self) -> None:
        """Forget the tensors that were kept, those of a step that is not taken."""
        self._batches, self._embeddings = [], []

    def read(self, module: pl.LightningModule, optimizer: Optimizer) -> dict[str, Tensor]:
        """Return the means over the step, and the norm of the gradients as `grad_norm`, on the CPU.

        Statistics of the embeddings have names that begin with `EMBEDDINGS`. Empty if the metrics of this step are not
        logged. Call it in `on_before_optimizer_step`, in every process.
        """
        if not self._batches:
            return {}
        means = {name: torch.stack([each[name] for each in self._batches]).mean(dim=0) for name in self._batches[0]}
        tensors = _summed(means, module.device)
        tensors["grad_norm"] = _gradient_norm(module, optimizer)
        if self._embeddings:
            statistics = embedding_statistics(torch.cat(self._embeddings))._asdict()
            tensors |= {EMBEDDINGS + name: tensor for name, tensor in statistics.items()}
        self.drop()
        return dict(zip(tensors, to_host(list(tensors.values())), strict=True))


def _summed(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the sums of floating-point tensors over all processes, from one exchange."""
    if distributed.world_size() == 1:
        return tensors
    flat = torch.cat([to_device(tensor.reshape(-1), device) for tensor in tensors.values()])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts, strict=True)}


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
