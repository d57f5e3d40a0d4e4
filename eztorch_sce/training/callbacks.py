"""Callbacks of every training: progress on stderr, and the list of unreadable files."""

import csv
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import STEP_OUTPUT
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from eztorch_sce import distributed
from eztorch_sce.augment.views import Views
from eztorch_sce.data.dataset import TrainingClips
from eztorch_sce.data.loading import TimedLoader
from eztorch_sce.data.view_samples import VIEWS_FILE, num_records_shown, record_views, write_views
from eztorch_sce.errors import MediaError
from eztorch_sce.files import open_text
from eztorch_sce.host_memory import resident_bytes
from eztorch_sce.progress import Clock, console, print_above
from eztorch_sce.seeding import seed_for
from eztorch_sce.training.metrics import ends_step, forget_step, log_numbers
from eztorch_sce.training.nonfinite import guard_of
from eztorch_sce.types import ViewBatch
from eztorch_sce.waiting import announced

UNREADABLE = "unreadable.csv"


def unreadable_paths(run_dir: Path) -> set[str]:
    """Return the files that a training could not read."""
    file = run_dir / UNREADABLE
    if not file.exists():
        return set()
    with open_text(file) as stream:
        return {row["path"] for row in csv.DictReader(stream)}


class RunProgress(pl.Callback):
    """Show and log the loss, the learning rate, views/s, the fraction of time spent on data, and the time left.

    A view is an image or a clip that a network sees: two views each of 100 records per second are 200 views/s. Shown as
    a progress bar in a terminal, and as lines elsewhere. A line predicts the time of the whole training. The memory is
    logged only.

    Args:
        every: Optimizer steps between two updates.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.bar: Progress | None = None
        self.beginning = ExitStack()  # until the first update
        self.task = TaskID(0)
        self.clock = Clock(0)
        self.started, self.waited_s, self.num_views = 0.0, 0.0, 0  # since the last update
        self.rates: list[float] = []  # learning rate of each parameter group in the current step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and, in a terminal, the bar."""
        self._restart(trainer)
        total = int(trainer.estimated_stepping_batches)
        self.clock = Clock(total, done=trainer.global_step)
        if trainer.is_global_zero and console.is_terminal:
            self.bar = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[status]}"),
                console=console,
            )
            self.task = self.bar.add_task("", total=total, epoch=_epoch(trainer), status="first steps")
            self.bar.start()
        else:
            self.beginning.enter_context(announced("training: first steps"))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restart the clock, so that evaluation and checkpoints between epochs do not count as training time."""
        self._restart(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: ViewBatch, batch_idx: int
    ) -> None:
        """Note the learning rates before the schedule moves them to those of the next step."""
        forget_step(trainer)
        self.rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: ViewBatch,
        batch_idx: int,
    ) -> None:
        """Count the views of all processes; update every few steps and at the end of an epoch."""
        self.num_views += sum(len(view) for view in batch.views) * trainer.world_size
        if not trainer.is_global_zero or not ends_step(trainer, batch_idx):
            return
        step = trainer.global_step
        epochs = "epoch" if trainer.max_epochs == 1 else "epochs"
        self.clock.announce(step, "training", f"{trainer.max_epochs} {epochs}")
        if self.bar is not None:
            self.bar.update(self.task, completed=step)
        if step % self.every == 0 or trainer.is_last_batch:
            self._update(trainer, pl_module, step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the bar."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop the bar so that it does not overwrite the error."""
        self._stop()

    def _update(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> None:
        self.beginning.close()
        elapsed_s = max(time.perf_counter() - self.started, 1e-9)
        loss = float(trainer.callback_metrics.get("loss", float("nan")))
        views_per_s = self.num_views / elapsed_s
        wait_fraction = (_waited_s(trainer) - self.waited_s) / elapsed_s
        status = f"loss {loss:.4f}  lr {max(self.rates):.3g}  {views_per_s:.1f} views/s  data wait {wait_fraction:.0%}"
        if self.bar is not None:
            self.bar.update(self.task, completed=step, epoch=_epoch(trainer), status=status)
        else:
            print_above(
                "  ".join(filter(None, [f"epoch {_epoch(trainer)}", f"step {step}", status, self.clock.left()]))
            )
        numbers = {"views_per_s": views_per_s, "data_wait": wait_fraction} | named_rates(self.rates)
        guard = guard_of(pl_module)
        if guard is not None and guard.num_skipped:
            numbers["skipped_steps"] = guard.num_skipped
        log_numbers(pl_module, numbers | _memory(pl_module.device))
        self._restart(trainer)

    def _restart(self, trainer: pl.Trainer) -> None:
        self.started, self.waited_s, self.num_views = time.perf_counter(), _waited_s(trainer), 0

    def _stop(self) -> None:
        self.beginning.close()
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _epoch(trainer: pl.Trainer) -> str:
    return f"{trainer.current_epoch + 1}/{trainer.max_epochs}"


def named_rates(rates: Sequence[float]) -> dict[str, float]:
    """Return learning rates by the names under which they are logged: `lr`, or one for each group if they differ.

    Args:
        rates: Learning rate of each parameter group.

    >>> named_rates([0.1, 0.1]), named_rates([0.05, 0.05, 0.1])
    ({'lr': 0.1}, {'lr_0': 0.05, 'lr_1': 0.1})
    """
    distinct = list(dict.fromkeys(rates))
    if len(distinct) == 1:
        return {"lr": distinct[0]}
    return {f"lr_{number}": rate for number, rate in enumerate(distinct)}


def _memory(device: torch.device) -> dict[str, float]:
    """Return the memory of the host that this process and its workers use, and the most that its GPU used, in GiB."""
    resident = resident_bytes()
    memory = {} if resident is None else {"host_memory_gib": resident / 2**30}
    if device.type == "cuda":
        memory["gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return memory


def _waited_s(trainer: pl.Trainer) -> float:
    """Return the seconds that the training loop has waited for its loader so far."""
    loader = trainer.train_dataloader
    return loader.waited_s if isinstance(loader, TimedLoader) else 0.0


class UnreadableFiles(pl.Callback):
    """List the unreadable files of all processes in `unreadable.csv`, and stop the training if there are too many.

    Args:
        run_dir: Run directory. A list in it, of a run that goes on, is continued.
        num_records: Number of training records.
        max_fraction: Fraction of the records that may be unreadable; 0 stops at the first.

    Attributes:
        paths: The files that could not be read.
    """

    def __init__(self, run_dir: Path, num_records: int, max_fraction: float) -> None:
        self.file = run_dir / UNREADABLE
        self.num_records, self.max_fraction = num_records, max_fraction
        self.listed, self.paths = unreadable_paths(run_dir), set[str]()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: ViewBatch,
        batch_idx: int,
    ) -> None:
        """List the files that could not be read in the batches of this step.

        Raises:
            MediaError: In every process, if more than the allowed fraction of the records could not be read.
        """
        for failure in distributed.last_exchange().failures:
            if failure.path in self.paths:
                continue
            self.paths.add(failure.path)
            if trainer.is_global_zero and failure.path not in self.listed:
                self._append(failure.path, failure.reason)
            if len(self.paths) > self.max_fraction * self.num_records:
                raise MediaError(
                    failure.path,
                    f"{failure.reason}. {len(self.paths)} of {self.num_records} records could not be read, more than "
                    f"data.max_unreadable={self.max_fraction:g} allows. They are listed in {self.file}: repair or "
                    "remove them, or raise data.max_unreadable",
                )

    def _append(self, path: str, reason: str) -> None:
        is_new = not self.file.exists()
        with open_text(self.file, "a") as stream:
            writer = csv.writer(stream)
            if is_new:
                writer.writerow(["path", "reason"])
            writer.writerow([path, reason])


class ViewsOfStart(pl.Callback):
    """Write the views of a few records of the first batch to the run directory, once: `views.json` and its pictures.

    They are copied from the batch that the network sees, so nothing is read or drawn for them.

    Args:
        run_dir: Run directory.
        dataset: The dataset that is trained on.
    """

    def __init__(self, run_dir: Path, dataset: TrainingClips) -> None:
        self.run_dir, self.dataset = run_dir, dataset
        self.is_done = (run_dir / VIEWS_FILE).exists()  # of the run that is resumed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: ViewBatch, batch_idx: int
    ) -> None:
        """Write the views, if a record of the batch could be read."""
        augmentation = pl_module.augmentation
        if self.is_done or not trainer.is_global_zero or not len(batch.record):
            return
        self.is_done = True
        assert isinstance(augmentation, Views)
        count = num_records_shown(len(batch.views))
        epochs = torch.full_like(batch.record, trainer.current_epoch)
        shown = record_views(self.dataset, augmentation, batch, epochs, count)
        spec = self.dataset.spec
        write_views(self.run_dir, shown, spec.clip_s if spec.frame_stride is None else None)


class OwnDraws(pl.Callback):
    """Let each process draw its own dropout masks and mixup weights, from the seed, the step and its rank.

    All processes have the same generators when the network is built, so that they start from the same weights. Seeds of
    single steps make what is drawn independent of how many batches the loader's workers have begun, and of whether the
    training was interrupted.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: ViewBatch, batch_idx: int
    ) -> None:
        """Seed the generators of a batch."""
        step = trainer.fit_loop.epoch_loop.total_batch_idx
        seed = seed_for(self.seed, trainer.current_epoch, step, trainer.global_rank, "training step")
        torch.manual_seed(seed)


class StopTogether(pl.Callback):
    """Stop all processes at the same step if `trainer.should_stop` is set in one of them. Must be the last callback."""

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: ViewBatch,
        batch_idx: int,
    ) -> None:
        """Stop if a process had asked for it before this step, and pass on what this one asks."""
        if trainer.world_size > 1:
            if trainer.should_stop:
                distributed.request_stop()
            trainer.should_stop = distributed.last_exchange().stop

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at the end of an epoch if a process asks for it: there may be no further step."""
        if trainer.world_size > 1:
            trainer.should_stop = any(distributed.all_objects(trainer.should_stop or distributed.stop_requested()))
