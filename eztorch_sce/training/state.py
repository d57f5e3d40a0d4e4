"""The state of a training: everything that decides its next step, saved and restored whole.

Networks with their momentum encoder and queue, the optimizer, the schedule and the gradient scaler come from Lightning;
the rest is collected here: the place in the data, the random generators of every process, the counters, and how many
rows the logs have. Views, clips and the order of the records need no state, since they are functions of (seed, epoch,
record), and ramps are functions of the step.
"""

import time
from typing import Any

import pytorch_lightning as pl
import torch
from torch.optim.lr_scheduler import LambdaLR

from eztorch_sce import distributed
from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.errors import TrainingError
from eztorch_sce.tensor_card import encode
from eztorch_sce.training.callbacks import UnreadableFiles
from eztorch_sce.training.loggers import LogPositions
from eztorch_sce.training.random_state import random_state, restore_random_state

_OF_LIGHTNING = ("loops", "epoch", "global_step", "pytorch-lightning_version")  # follow from the progress
_WARNED = "warned_of_collapse"  # attribute of a module, if it watches its embeddings


class TrainingState(pl.Callback):
    """Add to a checkpoint what Lightning leaves out, and restore it.

    A checkpoint is saved between two optimizer steps, when all rows of the first are logged. The position in the data
    is kept in samples of all processes together, so that another number of processes, accumulated batches or workers
    goes on at the same place.

    Args:
        data: The data in training.
        unreadable: The list of unreadable files.
        logs: The rows that have been logged.
    """

    def __init__(self, data: TrainingData, unreadable: UnreadableFiles, logs: LogPositions) -> None:
        self.data, self.unreadable, self.logs = data, unreadable, logs
        self._random: list[dict[str, Any]] = []  # of each process, to be restored before the next step
        self._metrics: dict[str, float] = {}  # at the checkpoint, from which the training has gone on

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Replace Lightning's counters of batches by the place in the data, and add the rest."""
        for name in _OF_LIGHTNING:
            del checkpoint[name]
        checkpoint["progress"] = _progress(trainer, self.data.train_dataloader().samples_per_batch)
        checkpoint["random"] = distributed.all_objects(random_state(trainer.strategy.root_device))
        checkpoint["metrics"] = {name: float(value) for name, value in trainer.callback_metrics.items()}
        checkpoint["unreadable"] = sorted(self.unreadable.paths)
        checkpoint[_WARNED] = getattr(pl_module, _WARNED, None)
        if trainer.is_global_zero:
            checkpoint["logs"] = self.logs.position()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore what `on_save_checkpoint` added, and give Lightning the counters of this division of a step."""
        progress, loader = checkpoint["progress"], self.data.train_dataloader()
        loader.load_state_dict(progress)
        checkpoint["loops"] = {"fit_loop": _loops(trainer, progress, len(loader), loader.samples_per_batch)}
        self._random = checkpoint["random"]
        self._metrics = checkpoint["metrics"]
        self.unreadable.paths.update(checkpoint["unreadable"])
        if checkpoint[_WARNED] is not None:
            setattr(pl_module, _WARNED, checkpoint[_WARNED])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the learning rates of the next step, which another number of epochs has changed.

        Raises:
            TrainingError: If the state of a callback cannot be saved.
        """
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        try:
            encode({"callbacks": {type(each).__name__: each.state_dict() for each in callbacks}}, "")
        except TypeError as error:
            raise TrainingError(f"{error}. A checkpoint holds tensors and plain values") from None
        for config in trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            if isinstance(scheduler, LambdaLR):
                groups = scheduler.optimizer.param_groups
                for group, base, factor in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
                    group["lr"] = base * factor(scheduler.last_epoch)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the metrics that were not logged again. Lightning forgets those that it has at its start."""
        for name, value in self._metrics.items():
            trainer.callback_metrics.setdefault(name, torch.tensor(value))

    def restore_random(self) -> None:
        """Restore the generators of this process, once. Call it before anything is drawn for the next step."""
        states, self._random = self._random, []
        if states:
            restore_random_state(states[min(distributed.rank(), len(states) - 1)])


def _progress(trainer: pl.Trainer, samples_per_batch: int) -> dict[str, Any]:
    """Return how far the training is; `Progress` in `checkpoint_files` describes the first values.

    `samples` counts those of the current epoch, of all processes, and `batches` the batches of a process in all epochs.
    `has_ended` says that the epoch has no more batches, but what follows an epoch is still to be done.
    """
    loop = trainer.fit_loop.epoch_loop
    epochs: Any = trainer.fit_loop.epoch_progress.current  # typed as a class with fewer counters
    has_ended = epochs.processed > epochs.completed
    is_within = epochs.started > epochs.processed or has_ended
    batches = loop.batch_progress.current.completed if is_within else 0
    return {
        "step": trainer.global_step,
        "total_steps": int(trainer.estimated_stepping_batches),
        "epoch": trainer.current_epoch,
        "epochs": trainer.max_epochs,
        "saved_at": time.time(),
        "samples": batches * samples_per_batch,
        "has_ended": has_ended,
        "rows": loop._batches_that_stepped,
        "batches": loop.batch_progress.total.completed,
    }


def _loops(trainer: pl.Trainer, progress: dict[str, Any], num_batches: int, samples_per_batch: int) -> dict[str, Any]:
    """Return the state of Lightning's loops at a place in the data.

    It distinguishes, by small differences between its counters, the hooks in which its own checkpoints are saved. All
    counters of a batch are equal here: the batches before this place are complete, and the next has not begun.
    """
    in_epoch = num_batches if progress["has_ended"] else progress["samples"] // samples_per_batch
    in_all = progress["batches"]
    has_begun = int(in_epoch > 0)
    epochs = {name: progress["epoch"] + has_begun for name in ("ready", "started")}
    epochs |= {name: progress["epoch"] for name in ("processed", "completed")}
    batches = {name: (in_all, in_epoch) for name in ("ready", "started", "processed", "completed")}
    state = trainer.fit_loop.state_dict()
    state["epoch_progress"] = {"total": epochs, "current": dict(epochs)}
    state["epoch_loop.state_dict"] = {"_batches_that_stepped": progress["rows"]}
    state["epoch_loop.batch_progress"] = {
        "total": {name: total for name, (total, _) in batches.items()},
        "current": {name: current for name, (_, current) in batches.items()},
        "is_last_batch": False,
    }
    steps = {"ready": progress["step"], "completed": progress["step"]}
    optimizer = state["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    optimizer["step"]["total"] = dict(steps)
    optimizer["zero_grad"]["total"] = steps | {"started": progress["step"]}
    state["epoch_loop.scheduler_progress"]["total"] = dict(steps)
    return dict(state)
