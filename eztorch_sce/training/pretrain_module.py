"""Self-supervised pretraining, as Lightning drives it."""

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from eztorch_sce.errors import TrainingError
from eztorch_sce.evaluation.diagnostics import embedding_diagnostics, verdict
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.training.augmentation import BatchAugmentation
from eztorch_sce.training.optimization import effective_lr, has_samples, no_step, scheduled
from eztorch_sce.types import Batch, ViewBatch


class CollapseWarning(UserWarning):
    """The embeddings are losing their spread."""


class PretrainModule(pl.LightningModule):
    """Views, method, optimizer: nothing else. The method knows the networks and the loss.

    Args:
        method: `forward(views) -> StepOutput` and `after_step(progress)`.
        views: The device side of the views.
        optimizer: A registered optimizer config.
        schedule: Of the learning rate.
        batch_size: Global, of one optimizer step.
    """

    def __init__(
        self,
        method: nn.Module,
        views: BatchAugmentation,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        batch_size: int,
    ) -> None:
        super().__init__()
        self.method, self.views = method, views
        self.optimizer, self.schedule, self.batch_size = optimizer, schedule, batch_size
        self.warned = False

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> ViewBatch:
        """Make the views on the device."""
        augmented: ViewBatch = self.views(batch)
        return augmented

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor | None:
        """Return the loss; a batch of which too little could be read for batch statistics is left out."""
        if not has_samples(batch, 2, self.device):
            return no_step(self)
        self.method.loss.set_progress(self._progress())  # type: ignore[union-attr, operator]
        try:
            output = self.method(batch.views)
        except ValueError as error:  # the loss says what it cannot take
            raise TrainingError(f"step {self.trainer.global_step}: {error}. {self._cure()}") from error
        metrics = output.metrics | {"loss": output.loss.detach()}
        if (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            metrics |= embedding_diagnostics(output.embeddings)
            self._look_at(metrics)
        self.log_dict(metrics, batch_size=len(batch.record))
        return output.loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step the optimizer, then the momentum encoder: also under accumulation once per step."""
        super().optimizer_step(*args, **kwargs)
        self.method.after_step(self._progress())  # type: ignore[operator]

    def _progress(self) -> float:
        """Return where the current optimizer step is: 0 is the first, 1 the last."""
        return min(1.0, self.trainer.global_step / max(1, int(self.trainer.estimated_stepping_batches) - 1))

    def _look_at(self, metrics: dict[str, Tensor]) -> None:
        """Stop at a loss that is no number; warn, once, of embeddings that collapse."""
        seen = {name: float(value) for name, value in metrics.items()}
        if not math.isfinite(seen["loss"]):
            raise TrainingError(f"step {self.trainer.global_step}: the loss is {seen['loss']}. {self._cure()}")
        untrained = self.trainer.current_epoch == 0  # a network as initialized may say anything
        if not untrained and not self.warned and (words := verdict(seen)):
            self.warned = True
            rank_zero_warn(f"step {self.trainer.global_step}: {words}", category=CollapseWarning)

    def _cure(self) -> str:
        return (
            f"If it has diverged: lower optimizer.lr={self.optimizer.lr:g}, raise schedule.warmup_epochs="
            f"{self.schedule.warmup_epochs:g}, or set trainer.precision=32-true"
        )

    def configure_optimizers(self) -> Any:
        """Build the optimizer at its effective rate."""
        lr = effective_lr(self.optimizer.lr, self.batch_size)
        return scheduled(self.trainer, self.optimizer.build(self.method.parameters(), lr), self.schedule)
