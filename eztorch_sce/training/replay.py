"""A step of a training, taken again under watch."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn

from eztorch_sce.training.config import TrainerConfig
from eztorch_sce.training.layer_watch import LayerWatch
from eztorch_sce.training.nonfinite import StepGuard
from eztorch_sce.training.nonfinite_files import NonFiniteFiles, Problem, digest_of
from eztorch_sce.training.pretrain_module import PretrainModule
from eztorch_sce.types import ViewBatch


class Replayed(Exception):
    """The step has been taken again, which ends the training that it belongs to."""


@dataclass
class WatchedBatch:
    """A batch of the step.

    Attributes:
        batch: The batch.
        views: Digest of its views, see `digest_of`.
        watch: The numbers of its layers.
        loss: Its loss; None until the step is complete, or if it had too few readable samples.
    """

    batch: ViewBatch
    views: str
    watch: LayerWatch
    loss: float | None = None


class ReplayGuard(StepGuard):
    """Take the steps of a training again up to one, and watch the layers in that one.

    Steps that the training has skipped are skipped again. It ends with `Replayed` after the backward pass of the step,
    or of an earlier one that is not finite.

    Args:
        files: Where the training keeps steps, to which nothing is written.
        settings: Settings of the trainer.
        step: Number of the step.
        advance: Called after each step before it.

    Attributes:
        batches: The batches of the step, once it has been taken.
        epoch: Its epoch.
        earlier: An earlier step that is not finite, which ended the training; None if there is none.
    """

    def __init__(
        self, files: NonFiniteFiles, settings: TrainerConfig, step: int, advance: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(files, replace(settings))
        self.checks_every_step = True
        self.step, self.advance = step, advance
        self.batches: list[WatchedBatch] = []
        self.epoch = 0
        self.earlier: int | None = None
        self._watching = ExitStack()

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint, that of the guard of a training."""
        return StepGuard.__qualname__

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: ViewBatch, batch_idx: int
    ) -> None:
        """Begin to watch, if this is the step."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if trainer.global_step != self.step:
            return
        watch = LayerWatch(watched(pl_module))
        watch.begin(batch.views)
        self._watching.close()
        self._watching.enter_context(watch.watching())
        self.batches.append(WatchedBatch(batch, digest_of(batch), watch))
        self.epoch = trainer.current_epoch

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Note the loss, from which the gradients come."""
        if self.batches:
            self.batches[-1].watch.loss(loss)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Count a step before the one that is replayed."""
        super().on_train_batch_end(trainer, *args, **kwargs)
        if not self.batches and not trainer.fit_loop._should_accumulate():
            self.advance()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop watching."""
        self._watching.close()

    def check(self, module: pl.LightningModule, loss: Tensor | None) -> None:
        """End after the step, or at an earlier one that is not finite and that the training did not skip.

        Raises:
            Replayed: If the training ends here.
            SkippedStep: If the training has skipped the step.
        """
        step, (losses, largest) = module.trainer.global_step, self._numbers(module, loss)
        if step == self.step:
            for watched_batch, value in zip(self.batches, losses, strict=False):
                watched_batch.loss = value
            self.batches[-1].watch.end()
            raise Replayed
        if self.skips:
            super().check(module, loss)
        elif not all(math.isfinite(number) for number in (*losses, largest) if number is not None):
            self.earlier = step
            raise Replayed

    def _keep(self, trainer: pl.Trainer, problem: Problem, is_skipped: bool) -> None:
        """Keep nothing: the training did."""

    def _say(self, module: pl.LightningModule, problem: Problem) -> None:
        """Say nothing: the training did."""


def watched(module: pl.LightningModule) -> nn.Module:
    """Return the part of a module whose layers are watched: its method, if it is a pretraining."""
    part: Any = module.method if isinstance(module, PretrainModule) else module
    assert isinstance(part, nn.Module)
    return part
