"""When a training saves its state, and intermediate weights files for sharing."""

import time
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.utilities.types import STEP_OUTPUT

from eztorch_sce import distributed, signals
from eztorch_sce.data.sources.provenance import Provenance
from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.distributed import rank
from eztorch_sce.errors import Stopped, TrainingError
from eztorch_sce.models.backbones.base import Backbone, BackboneConfig
from eztorch_sce.models.weights import epoch_file, save_weights
from eztorch_sce.shards import whole_on_host
from eztorch_sce.training.checkpoint_writer import CheckpointWriter
from eztorch_sce.training.config import RunConfig
from eztorch_sce.training.state import TrainingState
from eztorch_sce.types import InputSpec, ViewBatch


class TensorFiles(CheckpointIO):
    """Let Lightning save and load checkpoints through our own files.

    Args:
        writer: Writes the files.
        loaded: Content of the checkpoint that the training goes on from; `load_checkpoint` returns it, once.

    Attributes:
        wait: Whether `save_checkpoint` returns when the file is durable, instead of after a copy of the state.
    """

    def __init__(self, writer: CheckpointWriter, loaded: dict[str, Any] | None) -> None:
        self.writer, self.loaded, self.wait = writer, loaded, True

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Copy a state and write it. Lightning calls this in the first process only."""
        self.writer.save(checkpoint, checkpoint["progress"]["step"], self.wait)

    def load_checkpoint(self, path: str | Path, *args: Any, **settings: Any) -> dict[str, Any]:
        """Return the content that was loaded before the training was built, with what Lightning expects."""
        content, self.loaded = self.loaded, None
        assert content is not None
        progress = content["progress"]
        of_lightning = {"epoch": progress["epoch"], "global_step": progress["step"]}
        return content | of_lightning | {"pytorch-lightning_version": version("pytorch-lightning")}

    def remove_checkpoint(self, path: str | Path) -> None:
        """Do nothing: the writer removes the files that it replaces."""


class Checkpoints(pl.Callback):
    """Save the state of a training every few minutes or steps, when a signal asks it to end, and at its end.

    All processes save between the same two steps: time and signals reach them by the exchange of a step. Must be the
    first callback, so that nothing is drawn for a step before its state is saved or restored.

    Args:
        files: Writes the checkpoints.
        state: Collects and restores the state.
        config: How often to save.
        online_every: Epochs between two online evaluations, before which a training saves, or None.
    """

    def __init__(self, files: TensorFiles, state: TrainingState, config: RunConfig, online_every: int | None) -> None:
        self.files, self.state, self.config, self.online_every = files, state, config, online_every
        self.saved_s = time.monotonic()
        self.saved_step = 0
        self.is_due, self.signal = False, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock. The checkpoint that the training goes on from need not be saved again."""
        self.saved_s, self.saved_step = time.monotonic(), trainer.global_step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: ViewBatch, batch_idx: int
    ) -> None:
        """Restore the random generators at the first step, and save before later ones if it is time."""
        self.state.restore_random()
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._save_if_due(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: ViewBatch,
        batch_idx: int,
    ) -> None:
        """Note what the processes have told each other at the start of the step, and look at the clock."""
        exchange = distributed.last_exchange()
        self.is_due = self.is_due or exchange.save
        if exchange.signal:
            signals.take(exchange.signal)
        own = signals.requested() if trainer.world_size == 1 else 0  # of which others learn in the next step
        self.signal = self.signal or exchange.signal or own
        if trainer.is_global_zero:
            self.files.writer.check()
            is_late = time.monotonic() - self.saved_s >= 60 * self.config.save_every_minutes
            if is_late and not self.is_due and not self.files.writer.is_busy:
                distributed.request_save()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save before an evaluation, which may take long, so that a signal in it loses nothing."""
        self.state.restore_random()
        if self.online_every is not None and (trainer.current_epoch + 1) % self.online_every == 0:
            self.is_due = True
        self._save_if_due(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the end of the training, so that more epochs can follow."""
        self.is_due = True
        self._save_if_due(trainer, wait=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Let the checkpoint that is being written become durable.

        A process that trains alone may be stopped by a signal while it waits for a batch, and saves now.
        """
        is_signaled = isinstance(exception, Stopped) and not self.signal  # by a poll, in one process
        has_moved = trainer.global_step > self.saved_step
        if is_signaled and has_moved and trainer.world_size == 1 and _is_between_steps(trainer):
            self._save(trainer, wait=True)
        if trainer.is_global_zero and not isinstance(exception, TrainingError):
            self.files.writer.finish()
        if isinstance(exception, Stopped) and is_signaled:
            exception.saved = self._saved(trainer)

    def _save_if_due(self, trainer: pl.Trainer, wait: bool = False) -> None:
        every = self.config.save_every_n_steps
        is_nth = every is not None and trainer.global_step % every == 0
        has_moved = trainer.global_step > self.saved_step or wait
        if has_moved and (self.is_due or is_nth or self.signal):
            self._save(trainer, wait=wait or self.signal > 0)
        if self.signal:
            raise Stopped(self.signal, self._saved(trainer))

    def _save(self, trainer: pl.Trainer, wait: bool) -> None:
        self.files.wait = wait
        trainer.save_checkpoint(self.files.writer.run_dir)
        self.saved_s, self.saved_step, self.is_due = time.monotonic(), trainer.global_step, False

    def _saved(self, trainer: pl.Trainer) -> str:
        """Return what is saved, in words, or an empty text if nothing is."""
        step = self.files.writer.last_step if trainer.is_global_zero else self.saved_step
        return f"saved at step {step} of {int(trainer.estimated_stepping_batches)}" if step else ""


def _is_between_steps(trainer: pl.Trainer) -> bool:
    """Return whether the training waits for a batch, and has taken all of the last step."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.current
    is_whole = batches.completed % trainer.accumulate_grad_batches == 0
    return batches.ready == batches.completed and is_whole


class SaveBackbone(pl.Callback):
    """Write the backbone every few epochs, to `backbone-epoch-0010.safetensors` and so on, and whenever asked to.

    Args:
        run_dir: Run directory.
        every: Epochs between two files, or None to write only when asked.
        backbone: The backbone in training.
        config: Config of the backbone.
        spec: Input of the backbone.
        splits: The data, which the files remember.
        earlier: Provenance of the weights that the training started from, or None.
    """

    def __init__(
        self,
        run_dir: Path,
        every: int | None,
        backbone: Backbone,
        config: BackboneConfig,
        spec: InputSpec,
        splits: Splits,
        earlier: Provenance | None = None,
    ) -> None:
        self.run_dir, self.every, self.backbone = run_dir, every, backbone
        self.config, self.spec, self.splits, self.earlier = config, spec, splits, earlier

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file of this epoch, if there is one."""
        epoch = trainer.current_epoch + 1
        if self.every and epoch % self.every == 0:
            self.write(epoch_file(epoch))

    def write(self, name: str) -> None:
        """Write a weights file to the run directory, in the first process only. Every process must call this."""
        state = whole_on_host(self.backbone.state_dict())
        if rank() == 0:
            file, classes = self.run_dir / name, self.splits.train.classes
            save_weights(file, self.backbone, self.config, self.spec, None, classes, self.provenance, state)

    @cached_property
    def provenance(self) -> Provenance:
        """The records of the training."""
        return Provenance.of(self.splits, labeled=False, earlier=self.earlier)
