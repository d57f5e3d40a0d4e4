"""Lightning, set up the one way this package uses it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy

from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.training.callbacks import RunProgress, UnreadableFiles
from eztorch_sce.training.checkpoint import resumable_checkpoint
from eztorch_sce.training.metrics_file import MetricsFile


def fit(
    module: pl.LightningModule, data: TrainingData, config: Any, run_dir: Path, callbacks: list[pl.Callback]
) -> pl.Trainer:
    """Train `module` on `data` and return the trainer.

    Args:
        module: What to train.
        data: On what.
        config: A run-level config with `run`, `data` and `trainer`.
        run_dir: Gets `metrics.csv`, `tensorboard/`, `last.ckpt` and, if need be, `unreadable.csv`.
        callbacks: Further ones.
    """
    settings = config.trainer
    num_steps = settings.max_epochs * (len(data.dataset) // config.data.batch_size)
    every = max(1, min(config.run.log_every_n_steps, num_steps))  # a short run leaves a line, too
    max_unreadable = config.data.max_unreadable if config.data.on_error == "skip" else 0.0
    devices = settings.devices or max(1, torch.cuda.device_count())
    on_gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    # The queue is the same everywhere already, and statistics are synchronized or each device's own: no buffer is sent.
    alone = devices * settings.num_nodes == 1
    strategy = "auto" if alone else DDPStrategy(forward_sync_buffers=False)
    with _without_advice():
        trainer = pl.Trainer(
            accelerator=settings.accelerator,
            devices=devices,
            strategy=strategy,
            num_nodes=settings.num_nodes,
            precision=settings.precision,
            max_epochs=settings.max_epochs,
            accumulate_grad_batches=settings.accumulate,
            sync_batchnorm=on_gpu if settings.sync_batchnorm is None else settings.sync_batchnorm,
            use_distributed_sampler=False,  # ours shards itself, and knows the epoch
            log_every_n_steps=every,
            logger=[MetricsFile(run_dir), TensorBoardLogger(str(run_dir), name="", version="tensorboard")],
            callbacks=[
                RunProgress(every),
                UnreadableFiles(run_dir, len(data.dataset), max_unreadable),
                resumable_checkpoint(run_dir),
                *callbacks,
            ],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data, ckpt_path=run_dir / "last.ckpt" if config.run.resume else None)
    return trainer


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep Lightning's advice off the terminal where what it advises against is meant."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for meant in (
                "Checkpoint directory .* exists and is not empty",  # the run directory holds the settings already
                "You have overridden `on_after_batch_transfer` in `LightningModule`",  # views belong to the device
                ".*does not have many workers",  # a setting of the user
                "The number of training batches .* is smaller than the logging interval",
                ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # Lightning's own call
            ):
                warnings.filterwarnings("ignore", message=meant)
            yield
    finally:
        logger.setLevel(level)
