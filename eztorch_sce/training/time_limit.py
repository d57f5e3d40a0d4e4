"""A training that keeps to a time: measured, reported while it runs, and stopped when the time is up."""

import time
from collections.abc import Callable

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import STEP_OUTPUT

from eztorch_sce.types import ViewBatch

_FIRST_STEPS = 2  # slower than the others: buffers are allocated, worker processes start


class TimeLimit(pl.Callback):
    """Stop a training after a number of steps or seconds, whichever comes first; the weights are kept as they are.

    Args:
        seconds: Seconds after the first step begins.
        max_steps: Steps in this process; None sets no limit.
        min_steps: Steps that are taken even if the time is up.
        beat: Called after every step.

    Attributes:
        was_stopped: Whether the training was stopped before its last epoch ended.
        epochs, total_steps: Complete or begun epochs, and steps, those of an interrupted training included.
    """

    def __init__(
        self, seconds: float, max_steps: int | None = None, min_steps: int = 1, beat: Callable[[], None] = lambda: None
    ) -> None:
        self.seconds, self.max_steps, self.min_steps, self.beat = seconds, max_steps, min_steps, beat
        self.was_stopped, self.epochs, self.total_steps = False, 0, 0
        self._started = 0.0
        self._ends: list[float] = []  # of each step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: ViewBatch,
        batch_idx: int,
    ) -> None:
        """Note the time, and stop if it is up."""
        self._ends.append(time.monotonic())
        self.epochs, self.total_steps = trainer.current_epoch + 1, trainer.global_step
        is_last = trainer.is_last_batch and self.epochs == trainer.max_epochs
        is_late = self._ends[-1] - self._started >= self.seconds and len(self._ends) >= self.min_steps
        is_up = is_late or len(self._ends) == self.max_steps
        if is_up and not is_last:
            self.was_stopped = trainer.should_stop = True
        self.beat()

    @property
    def num_steps(self) -> int:
        """Steps taken."""
        return len(self._ends)

    def step_s(self) -> float:
        """Return the mean seconds of a step, the wait for its data included, without the first ones."""
        ends = self._ends[_FIRST_STEPS - 1 :] if len(self._ends) > _FIRST_STEPS else [self._started, *self._ends]
        return (ends[-1] - ends[0]) / max(1, len(ends) - 1)
