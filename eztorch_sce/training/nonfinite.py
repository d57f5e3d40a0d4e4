"""Steps whose loss or gradients are not finite: found before the optimizer steps, kept to be replayed, and left out."""

import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from eztorch_sce import distributed
from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.data.loading import TrainingLoader
from eztorch_sce.errors import TrainingError
from eztorch_sce.losses.checks import collected
from eztorch_sce.models.queue import Queue
from eztorch_sce.progress import print_above
from eztorch_sce.shards import shard_of
from eztorch_sce.training.config import TrainerConfig
from eztorch_sce.training.metrics import StepMetrics
from eztorch_sce.training.nonfinite_files import KeptBatch, NonFiniteFiles, Problem, replay_hint
from eztorch_sce.training.random_state import random_state, restore_random_state
from eztorch_sce.transfers import to_host
from eztorch_sce.types import ViewBatch

OptimizerStep = Callable[[Callable[[], Any]], None]


class SkippedStep(Exception):
    """A step that the optimizer must not take. It leaves the closure of the optimizer, before anything is updated."""


class StepGuard(pl.Callback):
    """Find a step whose loss or gradients are NaN or infinite before the optimizer takes it, and stop or skip it.

    All processes decide alike: the step is not finite if it is so in one of them. Its state before the forward pass,
    its records and its seeds are kept, see `NonFiniteFiles`.

    A skipped step leaves weights, momentum encoder, optimizer, gradient scaler, queue, batch norm statistics and random
    generators as they were before its forward pass. What moves on is the number of the step, and with it the place in
    the data, the learning rate, the momentum and the ramps, which are functions of this number. An own method must keep
    in buffers what its forward pass changes; parameters that it writes to there are not restored.

    On a CPU every step is checked, which costs a pass over the gradients. On a GPU a check waits for the device. With
    `on_nonfinite=stop`, only the steps that are logged are checked, see `check_logged`; with `skip`, all are. Infinite
    gradients in float16 are the business of the gradient scaler, which skips the step itself and lowers its factor.

    Args:
        files: Where steps are kept.
        settings: Settings of the trainer, resolved for this machine.

    Attributes:
        num_skipped: Number of steps that were skipped, those of an interrupted training included.
    """

    def __init__(self, files: NonFiniteFiles, settings: TrainerConfig) -> None:
        self.files, self.settings = files, settings
        self.skips = settings.on_nonfinite == "skip"
        self.checks_every_step = self.skips or settings.accelerator == "cpu"
        self.num_skipped = 0
        self._before: StateBefore | None = None  # of the step in progress
        self._batches: list[ViewBatch] = []
        self._losses: list[Tensor | None] = []  # of its batches that are complete
        self._words: list[str] = []  # what the loss said of its inputs

    def state_dict(self) -> dict[str, Any]:
        """Return the number of skipped steps, for a checkpoint."""
        return {"num_skipped": self.num_skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the number of skipped steps in a checkpoint."""
        self.num_skipped = state_dict["num_skipped"]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: ViewBatch, batch_idx: int
    ) -> None:
        """Note what the forward passes of a step change, and its batches."""
        if not self.checks_every_step:
            return
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._before = StateBefore(pl_module)
            self._batches, self._losses, self._words = [], [], []
        self._batches.append(batch)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: ViewBatch,
        batch_idx: int,
    ) -> None:
        """Note the loss of a batch, if more batches of the same step follow."""
        self._losses.append(outputs.get("loss") if isinstance(outputs, dict) else None)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within this context, note what the loss says of embeddings that are not finite, instead of raising it.

        All processes then take part in the exchanges of the backward pass, after which they decide together. Without a
        check of every step, errors are raised.
        """
        if not self.checks_every_step:
            yield
            return
        with collected() as errors:
            yield
        self._words += map(str, errors)

    def check(self, module: pl.LightningModule, loss: Tensor | None) -> None:
        """Check a step whose gradients are complete.

        Args:
            module: The module.
            loss: Loss of the last batch of the step; None if it had too few readable samples.

        Raises:
            SkippedStep: If the step is not finite and is skipped.
            TrainingError: In every process, if it is not finite and the training ends.
        """
        if not self.checks_every_step:
            return
        losses, largest = self._numbers(module, loss)
        reason = _reason(losses, largest, self._words)
        if not distributed.any_process(bool(reason)):
            return
        batches = [KeptBatch.of(batch, value) for batch, value in zip(self._batches, losses, strict=False)]
        problem = Problem.together(module.trainer.global_step, module.trainer.current_epoch, reason, batches)
        assert self._before is not None
        self._before.restore(module)
        is_skipped = self.skips and self.num_skipped < self.settings.max_skipped
        self._keep(module.trainer, problem, is_skipped)
        if not is_skipped:
            log_last(module, {"loss": problem.loss})
            raise TrainingError(self._ending(module, problem))
        self.num_skipped += 1
        if isinstance(metrics := getattr(module, "metrics", None), StepMetrics):
            metrics.drop()
        self._say(module, problem)
        raise SkippedStep

    def _numbers(self, module: pl.LightningModule, loss: Tensor | None) -> tuple[list[float | None], float]:
        """Return the loss of each batch of a step and the largest gradient, read in one copy.

        Gradients are not looked at if a gradient scaler does so.
        """
        losses = [*self._losses, loss]
        gradients: list[Tensor] = []
        if getattr(module.trainer.precision_plugin, "scaler", None) is None:
            weights = (parameter for optimizer in module.trainer.optimizers for parameter in _weights(optimizer))
            gradients = [shard_of(weight.grad) for weight in weights if weight.grad is not None]
            gradients = [gradient for gradient in gradients if gradient.numel()]
        largest = [get_total_norm(gradients, norm_type=math.inf)] if gradients else []
        tensors = [each.detach() for each in losses if each is not None]
        numbers = map(float, to_host([*tensors, *largest]))
        return [None if each is None else next(numbers) for each in losses], next(numbers, 0.0)

    def _keep(self, trainer: pl.Trainer, problem: Problem, is_skipped: bool) -> None:
        """Keep the state before the step, which every process has restored."""
        content = trainer._checkpoint_connector.dump_checkpoint()
        loader, num_complete = trainer.train_dataloader, len(self._batches) - 1  # batches of this step
        if isinstance(loader, TrainingLoader):
            content["progress"]["samples"] -= num_complete * loader.samples_per_batch
            content["progress"]["batches"] -= num_complete
        self.files.keep(problem, content, "skip" if is_skipped else "stop")

    def _say(self, module: pl.LightningModule, problem: Problem) -> None:
        """Say that a step is skipped."""
        if module.trainer.is_global_zero:
            so_far = f"{self.num_skipped} of at most {self.settings.max_skipped}"
            print_above(f"note: step {problem.step}: {problem.words}: skipped ({so_far}). {self.files.hint(problem)}")

    def _ending(self, module: pl.LightningModule, problem: Problem) -> str:
        """Return why a training ends."""
        skipped = ""
        if self.skips:
            skipped = f", and as many steps were skipped as trainer.max_skipped={self.settings.max_skipped} allows"
        return f"step {problem.step}: {problem.words}{skipped}. {cure(module)}. {self.files.hint(problem)}"


def nonfinite_files(run_dir: Path, data: TrainingData, settings: TrainerConfig) -> NonFiniteFiles:
    """Return where a training keeps the steps that are not finite."""
    facts: dict[str, Any] = {"seed": data.dataset.seed}
    names = ("accelerator", "devices", "num_nodes", "precision", "accumulate", "sync_batchnorm", "tf32", "compile")
    facts |= {name: getattr(settings, name) for name in names}
    facts["device"] = torch.cuda.get_device_name() if settings.accelerator == "gpu" else platform.machine()
    facts["threads"] = torch.get_num_threads()
    records = data.dataset.manifest.records
    return NonFiniteFiles(run_dir, lambda index: records[index].path, facts)


class StateBefore:
    """What the forward passes of a step change, as it was before the first: buffers and random generators.

    The keys of a `Queue` are replaced, never written to, so that they need no copy.

    Args:
        module: The module in training.
    """

    def __init__(self, module: pl.LightningModule) -> None:
        self.buffers = [
            _Buffer(owner, name, buffer, None if isinstance(owner, Queue) and name == "keys" else buffer.clone())
            for owner in module.modules()
            for name, buffer in owner._buffers.items()
            if buffer is not None
        ]
        self.random = random_state(module.device)

    @torch.no_grad()
    def restore(self, module: pl.LightningModule) -> None:
        """Restore the buffers and the generators, and remove the gradients."""
        for owner, name, buffer, copy in self.buffers:
            if copy is not None:
                buffer.copy_(copy)
            owner._buffers[name] = buffer
        restore_random_state(self.random)
        for parameter in module.parameters():
            parameter.grad = None


class _Buffer(NamedTuple):
    owner: nn.Module
    name: str
    buffer: Tensor
    copy: Tensor | None


def guard_of(module: pl.LightningModule) -> StepGuard | None:
    """Return the guard of the training that a module is in; None if it has none."""
    callbacks = [] if module._trainer is None else module.trainer.callbacks  # type: ignore[attr-defined]
    return next((each for each in callbacks if isinstance(each, StepGuard)), None)


def step_unless_skipped(
    module: pl.LightningModule, optimizer_step: OptimizerStep, closure: Callable[[], Any] | None
) -> bool:
    """Call `optimizer_step` with a closure that checks the step; return whether the step was taken.

    To be called in the `optimizer_step` of a module. Without a `StepGuard`, every step is taken.

    Args:
        module: The module.
        optimizer_step: Function of a closure that steps the optimizer.
        closure: Closure of Lightning, which runs the forward and the backward pass.
    """
    guard = guard_of(module)
    assert closure is not None  # Lightning leaves it out in manual optimization only

    def checked() -> Any:
        loss = closure()
        if guard is not None:
            guard.check(module, loss)
        return loss

    try:
        optimizer_step(checked)
    except SkippedStep:
        return False
    return True


def check_logged(module: pl.LightningModule, numbers: Mapping[str, float | Tensor]) -> None:
    """Check the loss of a step that is logged, unless every step is checked. Every process must call this.

    Args:
        module: The module.
        numbers: The metrics of the step on the host, which are logged if the loss is not finite; empty if none are due.

    Raises:
        TrainingError: In every process, if a loss is not finite.
    """
    guard = guard_of(module)
    if not numbers or (guard is not None and guard.checks_every_step):
        return
    error, loss = None, float(numbers["loss"])
    if not math.isfinite(loss):
        log_last(module, {name: float(value) for name, value in numbers.items()})
        step = module.trainer.global_step
        hint = "" if guard is None else f". {replay_hint(guard.files.run_dir, step)}"
        error = TrainingError(f"step {step}: the loss is {loss}. {cure(module)}{hint}")
    distributed.raise_together(error)


def cure(module: pl.LightningModule) -> str:
    """Return what helps against a training that has diverged."""
    optimizer, schedule = getattr(module, "optimizer", None), getattr(module, "schedule", None)
    lr, warmup = getattr(optimizer, "lr", None), getattr(schedule, "warmup_epochs", None) or 0
    rate = "the learning rate" if lr is None else f"optimizer.lr={lr:g}"
    return (
        f"If training has diverged: lower {rate}, raise schedule.warmup_epochs={warmup:g}, or set "
        "trainer.precision=32-true"
    )


def _reason(losses: Sequence[float | None], largest: float, words: Sequence[str]) -> str:
    """Return what is not finite in this process, or an empty text."""
    wrong = next((loss for loss in losses if loss is not None and not math.isfinite(loss)), None)
    if wrong is not None:
        return words[0] if words else f"the loss is {wrong}"
    return "" if math.isfinite(largest) else f"the loss is finite, but a gradient is {largest}"


def _weights(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def log_last(module: pl.LightningModule, values: dict[str, float]) -> None:
    """Log the numbers of a step that ends the training, which Lightning logs at the end of a step only."""
    for logger in module.trainer.loggers:
        logger.log_metrics(values | {"epoch": module.trainer.current_epoch}, step=module.trainer.global_step)
