"""What a person sees of a run while it goes: a bar or lines, and the files that could not be read."""

import csv
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eztorch_sce.data.loading import TimedLoader
from eztorch_sce.errors import MediaError
from eztorch_sce.progress import console
from eztorch_sce.types import ViewBatch

UNREADABLE = "unreadable.csv"


def num_unreadable(run_dir: Path) -> int:
    """Return how many files a training could not read."""
    file = run_dir / UNREADABLE
    if not file.exists():
        return 0
    with file.open(newline="") as stream:
        return len({row["path"] for row in csv.DictReader(stream)})


class RunProgress(pl.Callback):
    """Show loss, clips/s and the share of time spent waiting for data: a bar in a terminal, otherwise lines.

    Args:
        every: Steps between two updates.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.bar: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start, in a terminal, the bar."""
        if trainer.is_global_zero and console.is_terminal:
            self.bar = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[says]}"),
                console=console,
            )
            total = int(trainer.estimated_stepping_batches) * trainer.accumulate_grad_batches
            self.task = self.bar.add_task("", total=total, epoch="", says="")
            self.bar.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock: what was done between two epochs is no training."""
        self.started, self.waited_s, self.clips = time.perf_counter(), self._waited(trainer), 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: ViewBatch, batch_idx: int
    ) -> None:
        """Count the clips that the networks saw; show every few steps."""
        self.clips += sum(len(view) for view in batch.views) * trainer.world_size
        if not trainer.is_global_zero:
            return
        step = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if step % self.every == 0 or trainer.is_last_batch:
            self._show(trainer, pl_module, step)

    def _show(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> None:
        now, waited_s = time.perf_counter(), self._waited(trainer)
        elapsed_s = max(now - self.started, 1e-9)
        loss = trainer.callback_metrics.get("loss", float("nan"))
        wait_share = (waited_s - self.waited_s) / elapsed_s
        says = f"loss {float(loss):.4f}  {self.clips / elapsed_s:.1f} clips/s  data wait {wait_share:.0%}"
        epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        if self.bar is not None:
            self.bar.update(self.task, completed=step, epoch=epoch, says=says)
        else:
            console.print(f"epoch {epoch}  step {step}  {says}", highlight=False, soft_wrap=True)
        pl_module.log_dict({"clips_per_s": self.clips / elapsed_s, "data_wait": wait_share})
        self.started, self.waited_s, self.clips = now, waited_s, 0

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the bar."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop the bar, so that the error is readable."""
        self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    @staticmethod
    def _waited(trainer: pl.Trainer) -> float:
        loader = trainer.train_dataloader
        return loader.waited_s if isinstance(loader, TimedLoader) else 0.0


class UnreadableFiles(pl.Callback):
    """List the files that could not be read in `unreadable.csv`; stop when there are too many.

    Args:
        run_dir: Where the list goes.
        num_records: Length of the manifest.
        max_share: Share of the records that may be unreadable; 0 stops at the first.
    """

    def __init__(self, run_dir: Path, num_records: int, max_share: float) -> None:
        self.file = run_dir / UNREADABLE
        self.num_records, self.max_share = num_records, max_share
        self.seen: set[str] = set()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: ViewBatch, batch_idx: int
    ) -> None:
        """Look at the failures of the batch.

        Raises:
            MediaError: When more than the allowed share of the records could not be read.
        """
        for failure in batch.failures:
            if failure.path in self.seen:
                continue
            self.seen.add(failure.path)
            self._write(failure.path, failure.reason)
            if len(self.seen) > self.max_share * self.num_records:
                raise MediaError(
                    failure.path,
                    f"{failure.reason}. {len(self.seen)} of {self.num_records} files could not be read, more than "
                    f"data.max_unreadable={self.max_share:g} allows; they are listed in {self.file}. Mend or remove "
                    "them, or allow more",
                )

    def _write(self, path: str, reason: str) -> None:
        new = not self.file.exists()
        with self.file.open("a", newline="") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(["path", "reason"])
            writer.writerow([path, reason])
