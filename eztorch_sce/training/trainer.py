"""The Lightning trainer, configured identically for all trainings."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import pytorch_lightning as pl
from pytorch_lightning import loggers as pl_loggers
from pytorch_lightning.callbacks import LambdaCallback, ModelCheckpoint

from eztorch_sce import distributed, signals
from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.launch import is_first_process
from eztorch_sce.models.batch_norm import sync_batch_norms
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.progress import print_above
from eztorch_sce.settings import show
from eztorch_sce.training.callbacks import OwnDraws, RunProgress, StopTogether, UnreadableFiles, ViewsOfStart
from eztorch_sce.training.checkpoint import Checkpoints, TensorFiles
from eztorch_sce.training.checkpoint_files import load_newest, step_of
from eztorch_sce.training.checkpoint_writer import CheckpointWriter
from eztorch_sce.training.config import RunConfig, TrainerConfig
from eztorch_sce.training.determinism import Determinism, deterministic
from eztorch_sce.training.device import DeviceCallback, prepared
from eztorch_sce.training.loggers import LogPositions, build_loggers
from eztorch_sce.training.nonfinite import StepGuard, nonfinite_files
from eztorch_sce.training.online import OnlineEvaluation
from eztorch_sce.training.processes import environment_for, signals_left_to_us, strategy_for
from eztorch_sce.training.state import TrainingState

Callback: TypeAlias = pl.Callback
Logger: TypeAlias = pl_loggers.Logger

# Warnings of Lightning about choices that are made on purpose here.
_ADVICE = (
    "You have overridden `on_after_batch_transfer` in `LightningModule`",  # views are augmented on the device
    ".*does not have many workers",  # data.num_workers is up to the user
    "The number of training batches .* is smaller than the logging interval",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # called by Lightning itself
)


class TrainingConfig(Protocol):
    """The settings that `fit` needs: those of `PretrainConfig`, `FinetuneConfig` and `LinearConfig`."""

    run: RunConfig
    trainer: TrainerConfig
    schedule: ScheduleConfig


def fit(
    module: pl.LightningModule,
    data: TrainingData,
    config: TrainingConfig,
    run_dir: Path,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
) -> pl.Trainer:
    """Train `module` on `data` and return the trainer.

    Args:
        module: The module to train.
        data: The data to train on.
        config: A validated config with the number of devices resolved.
        run_dir: Run directory for `metrics.csv`, `tensorboard/`, `checkpoints/` and, if files are unreadable,
            `unreadable.csv`. If it has checkpoints, the training goes on from the newest.
        callbacks: Additional callbacks.
        loggers: Additional loggers.
    """
    settings = config.trainer
    _warn_of_long_warmup(config.schedule, settings.epochs)
    num_steps = settings.epochs * (len(data.dataset) // data.config.samples_per_step)
    log_every = max(1, min(config.run.log_every_n_steps, num_steps))  # short runs log at least once
    distributed.begin_training()
    if settings.sync_batchnorm and settings.world_size != 1:
        sync_batch_norms(module)  # Lightning's own conversion needs GPUs, and makes them wait
    kept = _open_files(run_dir, data, config.run, loggers)
    determinism = Determinism(module) if settings.deterministic else None
    own = [*callbacks] if determinism is None else [*callbacks, determinism]
    every = _callbacks(kept, data, config, own, log_every)
    with signals.saving(kept.files.writer.describe), deterministic(determinism):
        return _run(module, data, settings, kept, every, log_every)


def fit_again(
    module: pl.LightningModule,
    data: TrainingData,
    config: TrainingConfig,
    checkpoint: tuple[Path, dict[str, Any]] | None,
    guard: StepGuard,
) -> None:
    """Take steps of a training again, in this process alone, until the guard raises an exception.

    Nothing is logged or written.

    Args:
        module, data, config: As `fit` takes them.
        checkpoint: File and content of the state before the first of the steps; None starts the training again.
        guard: Guard of the steps.
    """
    file, content = checkpoint or (None, None)
    distributed.begin_training()
    writer = CheckpointWriter(guard.files.run_dir, config.run)
    state = TrainingState(data, UnreadableFiles(guard.files.run_dir, len(data.dataset), 1.0), LogPositions([]))
    kept = _Files(file, TensorFiles(writer, content), state, [], state.unreadable)
    restoring = LambdaCallback(on_train_batch_start=lambda *_: state.restore_random())
    every = [restoring, DeviceCallback(compiled=False, batch=0), OwnDraws(data.dataset.seed), guard, state]
    with deterministic(Determinism(module) if config.trainer.deterministic else None):
        _run(module, data, config.trainer, kept, every, log_every=config.run.log_every_n_steps)


def _run(
    module: pl.LightningModule,
    data: TrainingData,
    settings: TrainerConfig,
    kept: "_Files",
    callbacks: list[Callback],
    log_every: int,
) -> pl.Trainer:
    """Train, from a checkpoint if there is one, and return the trainer."""
    assert settings.devices is not None
    assert settings.num_nodes is not None
    assert settings.precision is not None
    with prepared(module, settings), _without_advice():
        trainer = pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            strategy=strategy_for(settings),
            plugins=[environment_for(settings.devices), kept.files],
            num_nodes=settings.num_nodes,
            precision=settings.precision,  # type: ignore[arg-type]  # a Literal, which OmegaConf does not allow
            max_epochs=settings.epochs,
            accumulate_grad_batches=settings.accumulate,
            use_distributed_sampler=False,  # EpochSampler divides the records among processes itself
            log_every_n_steps=log_every,
            logger=kept.loggers,
            callbacks=callbacks,
            enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in callbacks),  # else it adds its own
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with signals_left_to_us(trainer):
            trainer.fit(module, datamodule=data, ckpt_path=kept.checkpoint)
    return trainer


class _Files(NamedTuple):
    """What a training writes to its run directory.

    Attributes:
        checkpoint: The checkpoint that the training goes on from, or None.
        files, state: Writer and content of the checkpoints.
        loggers: All loggers.
        unreadable: The list of unreadable files.
    """

    checkpoint: Path | None
    files: TensorFiles
    state: TrainingState
    loggers: list[Logger]
    unreadable: UnreadableFiles


def _open_files(run_dir: Path, data: TrainingData, config: RunConfig, others: Sequence[Logger]) -> _Files:
    """Load the newest checkpoint, and let the loggers go on behind it, or start over."""
    checkpoint, content = load_newest(run_dir) or (None, None)
    loggers = [*build_loggers(config.loggers, run_dir), *others]
    if "csv" not in config.loggers and is_first_process():
        print_above(
            f"note: run.loggers={show(config.loggers)} has no csv: without metrics.csv, `watch` and the report show no "
            "curves and no verdict on the training"
        )
    logs = LogPositions(loggers)
    writer = CheckpointWriter(run_dir, config, None if checkpoint is None else step_of(checkpoint))
    if is_first_process():
        logs.rewind(None if content is None else content["logs"])
    max_unreadable = data.config.max_unreadable if data.config.on_error == "skip" else 0.0
    unreadable = UnreadableFiles(run_dir, len(data.dataset), max_unreadable)
    state = TrainingState(data, unreadable, logs)
    return _Files(checkpoint, TensorFiles(writer, content), state, loggers, unreadable)


def _callbacks(
    kept: _Files, data: TrainingData, config: TrainingConfig, others: Sequence[Callback], log_every: int
) -> list[Callback]:
    """Return all callbacks in order: the state is restored first, and saved after the others have added theirs."""
    settings, run_dir = config.trainer, kept.files.writer.run_dir
    batch = data.config.samples_per_step // ((settings.world_size or 1) * settings.accumulate)
    return [
        Checkpoints(kept.files, kept.state, config.run, _epochs_between_evaluations(others)),
        RunProgress(log_every),
        kept.unreadable,
        DeviceCallback(settings.compile, batch),
        ViewsOfStart(run_dir, data.dataset),
        OwnDraws(data.dataset.seed),
        *others,
        StepGuard(nonfinite_files(run_dir, data, settings), settings),
        kept.state,
        StopTogether(),
    ]


def _epochs_between_evaluations(callbacks: Sequence[Callback]) -> int | None:
    """Return after how many epochs a training is evaluated, or None if it is not."""
    return next((each.config.every_n_epochs for each in callbacks if isinstance(each, OnlineEvaluation)), None)


def _warn_of_long_warmup(schedule: ScheduleConfig, epochs: int) -> None:
    """Say if the training ends before the learning rate is reached, as in a short trial of a recipe."""
    if (schedule.warmup_epochs or 0) > epochs and is_first_process():
        warmup = f"schedule.warmup_epochs={show(schedule.warmup_epochs)} is longer than trainer.max_epochs={epochs}"
        print_above(f"note: {warmup}: the learning rate does not reach optimizer.lr")


def check_hooks(callbacks: Sequence[Callback], loggers: Sequence[Logger]) -> None:
    """Check the callbacks and loggers that a caller passes.

    Raises:
        TypeError: If they are not lists of objects of Lightning.
    """
    for argument, values, kind in (("callbacks", callbacks, pl.Callback), ("loggers", loggers, Logger)):
        name = f"{kind.__module__.split('.')[0]}.{kind.__name__}"
        if isinstance(values, kind) or not isinstance(values, Sequence):
            raise TypeError(f"{argument} must be a list of objects of {name}, got {values!r}")
        for value in values:
            if not isinstance(value, kind):
                raise TypeError(f"{argument} must hold objects of {name}, got {value!r}")


@contextmanager
def _without_advice() -> Iterator[None]:
    """Hide Lightning's startup messages and the warnings listed in `_ADVICE`."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _ADVICE:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
