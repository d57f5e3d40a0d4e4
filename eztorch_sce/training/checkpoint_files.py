"""Checkpoint files of a run directory: their names, the newest intact one, and how far the training was."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from eztorch_sce import distributed, tensor_file
from eztorch_sce.errors import ConfigError, DamagedFileError, counted
from eztorch_sce.launch import is_first_process
from eztorch_sce.progress import print_above

CHECKPOINTS = "checkpoints"  # in the run directory
_NAME = re.compile(r"step-(?P<step>\d+)\.safetensors")


class Progress(NamedTuple):
    """How far a training was when a checkpoint was saved.

    Attributes:
        step: Optimizer steps taken.
        total_steps: Optimizer steps of the whole training.
        epoch: Complete epochs.
        epochs: Epochs of the whole training.
        saved_at: Time of saving, in seconds since 1970.
    """

    step: int
    total_steps: int
    epoch: int
    epochs: int
    saved_at: float


def checkpoint_file(run_dir: Path, step: int) -> Path:
    """Return the path of the checkpoint that was saved before a step."""
    return run_dir / CHECKPOINTS / f"step-{step:010d}.safetensors"


def checkpoint_files(run_dir: Path) -> list[Path]:
    """Return the checkpoints of a run, the newest first."""
    folder = run_dir / CHECKPOINTS
    files = folder.iterdir() if folder.is_dir() else []
    return sorted((file for file in files if _NAME.fullmatch(file.name)), key=step_of, reverse=True)


def step_of(file: Path) -> int:
    """Return the number of steps that had been taken when a checkpoint was saved."""
    match = _NAME.fullmatch(file.name)
    assert match is not None
    return int(match["step"])


def progress_of(run_dir: Path) -> Progress | None:
    """Return how far a run is, from its newest checkpoint with an intact header; None if it has none."""
    for file in checkpoint_files(run_dir):
        try:
            saved = tensor_file.read_plain(file)["progress"]
        except (DamagedFileError, OSError):
            continue
        return Progress(*(saved[name] for name in Progress._fields))
    return None


def load_newest(run_dir: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest intact checkpoint of a run and its content; None if it has no checkpoints.

    Every process must call this. The first names each damaged checkpoint, and all read the one before it.

    Raises:
        ConfigError: If there are checkpoints, but all are damaged.
    """
    name, content, error = "", dict[str, Any](), None
    if distributed.rank() == 0:
        try:
            name, content = _newest_intact(run_dir)
        except ConfigError as problem:
            error = problem
    distributed.raise_together(error)
    name = distributed.from_first(name)
    if not name:
        return None
    file = run_dir / CHECKPOINTS / name
    return file, content or tensor_file.read(file)


def _newest_intact(run_dir: Path) -> tuple[str, dict[str, Any]]:
    files, problems = checkpoint_files(run_dir), []
    for file in files:
        try:
            content = tensor_file.read(file)
        except (DamagedFileError, OSError) as error:
            problems.append(str(error))
            continue
        if is_first_process():
            for problem in problems:
                print_above(f"note: {problem}; the checkpoint before it is used: {file.name}")
        return file.name, content
    if files:
        cure = f"start a new run in another directory, or remove {files[0].parent} to start this one again"
        damaged = f"{counted(len(files), 'checkpoint')} cannot be read ({'; '.join(problems)})"
        raise ConfigError([f"run.dir={run_dir}: {damaged}: {cure}"])
    return "", {}
