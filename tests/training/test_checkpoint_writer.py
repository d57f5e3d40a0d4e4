"""Tests of the checkpoint files: what is kept, what a failed write leaves, and what is read when files are damaged."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from eztorch_sce import tensor_file
from eztorch_sce.errors import ConfigError, TrainingError
from eztorch_sce.training.checkpoint_files import checkpoint_files, load_newest, progress_of, step_of
from eztorch_sce.training.checkpoint_writer import CheckpointWriter
from eztorch_sce.training.config import RunConfig


def content(step: int) -> dict[str, Any]:
    progress = {"step": step, "total_steps": 100, "epoch": step // 10, "epochs": 10, "saved_at": 0.0}
    return {"progress": progress, "weights": torch.full((1000,), float(step)), "steps": [torch.tensor(step)]}


def steps(run_dir: Path) -> list[int]:
    return [step_of(file) for file in checkpoint_files(run_dir)]


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """Let writes of this process fail once a file is larger. (Python ignores the signal that comes with the error.)"""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def writer(tmp_path: Path) -> CheckpointWriter:
    writer = CheckpointWriter(tmp_path, RunConfig())
    for step in (10, 20, 30):
        writer.save(content(step), step, wait=True)
    return writer


def test_the_newest_checkpoints_are_kept(writer: CheckpointWriter) -> None:
    assert steps(writer.run_dir) == [30, 20]
    assert progress_of(writer.run_dir) == (30, 100, 3, 10, 0.0)
    assert [path.name for path in writer.run_dir.rglob("*") if "partial" in path.name] == []


def test_a_checkpoint_holds_the_state_at_the_call(tmp_path: Path) -> None:
    writer, state = CheckpointWriter(tmp_path, RunConfig()), content(1)
    writer.save(state, 1, wait=False)
    state["weights"].zero_()
    state["steps"].append(torch.tensor(7))
    writer.finish()
    writer.save(content(2), 2, wait=False)
    writer.finish()
    first = tensor_file.read(checkpoint_files(tmp_path)[1])
    assert first["weights"].unique().tolist() == [1]
    assert len(first["steps"]) == 1


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    damage: str, writer: CheckpointWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = checkpoint_files(writer.run_dir)[0]
    data = bytearray(newest.read_bytes())
    if damage == "flipped":
        data[-100] ^= 4
    newest.write_bytes(data[: {"truncated": len(data) // 2, "empty": 0}.get(damage, len(data))])
    if damage == "missing":
        newest.unlink()
    loaded = load_newest(writer.run_dir)
    assert loaded is not None
    assert loaded[1]["weights"].unique().tolist() == [20]
    assert (newest.name in capsys.readouterr().err) == (damage != "missing")


def test_a_run_without_an_intact_checkpoint_does_not_start_again(writer: CheckpointWriter) -> None:
    for file in checkpoint_files(writer.run_dir):
        file.write_bytes(b"")
    with pytest.raises(ConfigError, match="2 checkpoints cannot be read"):
        load_newest(writer.run_dir)
    assert load_newest(writer.run_dir / "elsewhere") is None


def test_a_full_disk_leaves_the_checkpoints_and_says_so(writer: CheckpointWriter) -> None:
    with full_disk(2000), pytest.raises(TrainingError, match=r"that of step 30 stays.*run.on_save_error=continue"):
        writer.save(content(40), 40, wait=True)
    assert steps(writer.run_dir) == [30, 20]
    assert [path.name for path in writer.run_dir.rglob("*") if "partial" in path.name] == []
    writer.save(content(50), 50, wait=True)
    assert steps(writer.run_dir) == [50, 30]


def test_training_goes_on_without_saving_if_asked(writer: CheckpointWriter, capsys: pytest.CaptureFixture[str]) -> None:
    writer.config = RunConfig(on_save_error="continue")
    with full_disk(2000):
        writer.save(content(40), 40, wait=True)
    assert "that of step 30 stays; training goes on" in capsys.readouterr().err.replace("\n", " ")
    assert steps(writer.run_dir) == [30, 20]


def test_a_later_damaged_checkpoint_does_not_push_out_those_that_are_used(writer: CheckpointWriter) -> None:
    checkpoint_files(writer.run_dir)[0].write_bytes(b"damaged")
    again = CheckpointWriter(writer.run_dir, RunConfig())
    again.save(content(25), 25, wait=True)
    assert steps(writer.run_dir) == [30, 25, 20]
