"""Self-supervised pretraining as a LightningModule."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer

from eztorch_sce.augment.views import Views
from eztorch_sce.distributed import rows_known
from eztorch_sce.errors import TrainingError
from eztorch_sce.evaluation.diagnostics import EmbeddingStatistics, diagnostics_of
from eztorch_sce.evaluation.health import verdict
from eztorch_sce.losses.checks import NotFiniteError
from eztorch_sce.losses.pairs import Loss
from eztorch_sce.methods.base import Method, problems_with_output
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.optim.groups import effective_lr
from eztorch_sce.optim.ramp import MovingSetting, Ramp
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.training.metrics import EMBEDDINGS, StepMetrics, log_numbers, metrics_are_due
from eztorch_sce.training.nonfinite import check_logged, cure, guard_of, log_last
from eztorch_sce.training.optimization import has_samples, in_proportion, skipped_step, with_schedule
from eztorch_sce.training.training_module import TrainingModule
from eztorch_sce.types import StepOutput, ViewBatch


class CollapseWarning(UserWarning):
    """The embeddings are collapsing."""


class PretrainModule(TrainingModule):
    """Drive a method: augment the batch, take the step, then update the momentum encoder.

    Args:
        method: A self-supervised method, which contains the networks and the loss.
        augmentation: Augmentation of a batch on the device.
        optimizer: A registered optimizer config.
        schedule: Schedule of the learning rate.
        batch_size: Global batch size per optimizer step.
        ramps: Settings of the method or its loss that change during training.
        loss: The loss whose settings may be ramped; None if the method has its own.
    """

    def __init__(
        self,
        method: Method,
        augmentation: Views,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        batch_size: int,
        ramps: Sequence[Ramp] = (),
        loss: Loss | None = None,
    ) -> None:
        super().__init__()
        self.method, self.augmentation = method, augmentation
        self.optimizer, self.schedule, self.batch_size = optimizer, schedule, batch_size
        self.moving_settings = [MovingSetting(ramp, {"loss": loss, "method": method}) for ramp in ramps]
        self.warned_of_collapse = False
        self.metrics = StepMetrics()

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor | None:
        """Return the loss, or skip a batch with too few readable samples for batch statistics."""
        if not has_samples(batch, 2, self.device):
            return skipped_step(self)
        for moving in self.moving_settings:
            moving.move(self._progress())
        is_due = metrics_are_due(self, batch_idx)
        if hasattr(self.method, "with_metrics"):
            self.method.with_metrics = is_due
        output = self._forward(batch)
        if is_due:
            with rows_known():
                self.metrics.keep(output.metrics | {"loss": output.loss}, output.embeddings)
        return in_proportion(output.loss)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Check and log the metrics of the step, if they are due."""
        if tensors := self.metrics.read(self, optimizer):
            numbers = _with_diagnostics(tensors)
            if hasattr(self.method, "momentum_at"):
                numbers["momentum"] = self.method.momentum_at(self._progress())
            check_logged(self, numbers)
            self._warn_of_collapse(numbers)
            log_numbers(self, numbers)

    def after_optimizer_step(self) -> None:
        """Update the momentum encoder."""
        self.method.after_step(self._progress())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimizer at its effective learning rate."""
        lr = effective_lr(self.optimizer.lr, self.batch_size)
        return with_schedule(self.trainer, self.optimizer.build(self.method.parameters(), lr), self.schedule)

    def _forward(self, batch: ViewBatch) -> StepOutput:
        guard = guard_of(self)
        try:
            with rows_known(), nullcontext() if guard is None else guard.listening():
                output = self.method(batch.views)
        except NotFiniteError as error:
            log_last(self, {"loss": math.nan})
            raise TrainingError(f"step {self.trainer.global_step}: {error}. {cure(self)}") from error
        if problems := problems_with_output(output, self.method):
            raise TrainingError(f"step {self.trainer.global_step}: {'; '.join(problems)}")
        return output

    def _progress(self) -> float:
        """Return the progress of training at the current optimizer step, from 0 at the first to 1 at the last."""
        return min(1.0, self.trainer.global_step / max(1, int(self.trainer.estimated_stepping_batches) - 1))

    def _warn_of_collapse(self, values: dict[str, float]) -> None:
        """Warn once if the embeddings collapse."""
        if self.warned_of_collapse or self.trainer.current_epoch == 0:  # too early to judge
            return
        if (words := verdict(values, self.batch_size)) is not None:
            self.warned_of_collapse = True
            rank_zero_warn(f"step {self.trainer.global_step}: {words}", category=CollapseWarning)


def _with_diagnostics(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Return scalars as numbers, with the diagnostics of the embeddings in the place of their statistics."""
    statistics = {
        name.removeprefix(EMBEDDINGS): tensor for name, tensor in tensors.items() if name.startswith(EMBEDDINGS)
    }
    scalars = {name: tensor for name, tensor in tensors.items() if not name.startswith(EMBEDDINGS)}
    return {name: float(value) for name, value in (scalars | diagnostics_of(EmbeddingStatistics(**statistics))).items()}
