"""Tests of steps that are not finite in one of two processes, and of deterministic training in both."""

import csv
import itertools
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from image_files import write_noise
from process_groups import run_in_process_groups
from torch import Tensor

from eztorch_sce import api, distributed
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import TrainingError
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.replaying import replay
from eztorch_sce.training.nonfinite_files import facts_of

pytestmark = pytest.mark.xdist_group("nonfinite processes")  # the fixture takes long: once, in one worker

Results = list[dict[str, Any]]


class LossOfOne:
    """A loss that is NaN in some steps of the second process only."""

    def __init__(self, steps: set[int]) -> None:
        self.steps, self.step = steps, -1

    def __call__(self, query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        loss = (query - key).square().sum(dim=1).mean()
        return loss * float("nan") if self.step in self.steps and distributed.rank() == 1 else loss


class Steps(pl.Callback):
    """Tell a loss the number of the step, and keep the state at the start of each."""

    def __init__(self, loss: LossOfOne) -> None:
        self.loss, self.states = loss, list[dict[str, Tensor]]()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        self.loss.step = trainer.global_step
        self.states.append({name: value.clone() for name, value in pl_module.state_dict().items()})


def config(folder: Path, name: str, **trainer: Any) -> PretrainConfig:
    config = PretrainConfig(
        data=DataConfig(root=str(folder / "images"), batch_size=4, num_workers=0),
        views=[ViewConfig(size=16, flip=0.5), ViewConfig(size=16)],
        backbone=SmallR2Plus1DConfig(width=4, num_blocks=1),
        method=MomentumContrastConfig(ProjectorConfig(hidden_dim=8, output_dim=8), queue_size=32),
    )
    config.run.dir, config.run.log_every_n_steps = str(folder / name), 1
    config.trainer.max_epochs, config.trainer.accelerator = 2, "cpu"
    for setting, value in trainer.items():
        setattr(config.trainer, setting, value)
    return config


def run_process(rank: int, world_size: int) -> dict[str, Any]:
    """Train in a process of a group of two."""
    folder = Path()
    skipping = []
    for name in ("first", "second"):
        skipping.append(Steps(LossOfOne({1, 2})))
        skip = config(folder, name, on_nonfinite="skip", deterministic=True)
        api.pretrain(skip, loss=skipping[-1].loss, callbacks=[skipping[-1]])
    stopped = Steps(LossOfOne({3}))
    try:
        api.pretrain(config(folder, "stop"), loss=stopped.loss, callbacks=[stopped])
    except TrainingError as error:
        message = str(error)
    return {"states": [each.states for each in skipping], "message": message, "num_stopped": len(stopped.states)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    write_noise((folder / f"images/{number}.png" for number in range(16)), size=20)
    return folder


@pytest.fixture(scope="module")
def processes(folder: Path) -> Results:
    """Return what both processes have seen."""
    return run_in_process_groups(__file__, folder, (2,))[2]


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_both_processes_skip_a_step_that_is_not_finite_in_one(processes: Results) -> None:
    for process in processes:
        states = process["states"][0]
        assert [equal(*pair) for pair in itertools.pairwise(states)] == [False, True, True, *4 * [False]]
    shared = [{name: x for name, x in each["states"][0][-1].items() if "running" not in name} for each in processes]
    assert equal(*shared)


def test_both_processes_stop_with_the_same_words(processes: Results, folder: Path) -> None:
    assert processes[0]["message"] == processes[1]["message"]
    assert "step 3: the loss is nan in process 1. If training has diverged" in processes[0]["message"]
    assert [process["num_stopped"] for process in processes] == [4, 4]
    facts = facts_of(folder / "stop", 3)
    assert facts is not None
    assert facts["world_size"] == 2
    records = [process[0]["records"] for process in facts["processes"]]
    assert len({*records[0], *records[1]}) == 4


def test_one_process_replays_the_global_batch(processes: Results, folder: Path) -> None:
    found = replay(folder / "stop", data_root=str(folder / "images"), loss=LossOfOne(set()))
    facts = facts_of(folder / "stop", 3)
    assert facts is not None
    paths = {path for process in facts["processes"] for path in process[0]["paths"]}
    assert {record.path for record in found.records} == paths
    assert any("2 processes" in note for note in found.notes)


def test_deterministic_runs_of_two_processes_are_equal(processes: Results, folder: Path) -> None:
    assert all(equal(first[-1], second[-1]) for first, second in (process["states"] for process in processes))
    rows = []
    for name in ("first", "second"):
        with (folder / name / "metrics.csv").open() as file:
            rows.append([row["loss"] for row in csv.DictReader(file)])
    assert rows[0] == rows[1]
    assert len(rows[0]) == 8
