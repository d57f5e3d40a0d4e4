"""Tests of steps that are not finite: found before the optimizer steps, then skipped or stopped at, and kept."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from eztorch_sce import api
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import TrainingError
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.training.nonfinite_files import facts_of, kept_steps


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for number in range(16):
        pixels = torch.randint(0, 256, (20, 20, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return folder


def config(images: Path, run_dir: Path, **trainer: Any) -> PretrainConfig:
    """Return a training of 3 epochs of 4 steps on 4 images each."""
    config = PretrainConfig(
        data=DataConfig(root=str(images), batch_size=4, num_workers=0),
        views=[ViewConfig(size=16, flip=0.5), ViewConfig(size=16)],
        backbone=SmallR2Plus1DConfig(width=4, num_blocks=1),
        method=MomentumContrastConfig(ProjectorConfig(hidden_dim=8, output_dim=8), queue_size=32),
        optimizer=SGDConfig(lr=0.05),
    )
    config.run.dir, config.run.log_every_n_steps = str(run_dir), 1
    config.trainer.max_epochs, config.trainer.accelerator = 3, "cpu"
    for name, value in trainer.items():
        setattr(config.trainer, name, value)
    return config


class DividingLoss:
    """A loss that divides by zero in some steps, in its value or only in its gradient."""

    def __init__(self, steps: set[int], only_gradient: bool = False) -> None:
        self.steps, self.only_gradient, self.step = steps, only_gradient, -1

    def __call__(self, query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        loss = (query - key).square().sum(dim=1).mean()
        if self.step not in self.steps:
            return loss
        zero = (query * 0).sum()
        return loss + zero.abs().sqrt() if self.only_gradient else loss / zero.detach()


class Steps(pl.Callback):
    """Tell a loss the number of the step, and keep what the trainings holds at the start of each."""

    def __init__(self, loss: DividingLoss) -> None:
        self.loss = loss
        self.states: list[dict[str, Tensor]] = []
        self.momenta: list[list[Tensor]] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        self.loss.step = trainer.global_step
        self.states.append({name: value.clone() for name, value in pl_module.state_dict().items()})
        states = trainer.optimizers[0].state.values()
        self.momenta.append([state["momentum_buffer"].clone() for state in states])
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def train(config: PretrainConfig, loss: DividingLoss) -> Steps:
    steps = Steps(loss)
    api.pretrain(config, loss=loss, callbacks=[steps])
    return steps


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, bool]:
    return {name: torch.equal(value, second[name]) for name, value in first.items()}


@pytest.mark.parametrize("only_gradient", [False, True])
def test_a_skipped_step_changes_nothing_but_the_number_of_the_step(
    only_gradient: bool, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = DividingLoss({5}, only_gradient)
    steps = train(config(images, tmp_path / "run", on_nonfinite="skip", max_epochs=2), loss)
    assert equal(steps.states[5], steps.states[6]) == dict.fromkeys(steps.states[5], True)
    assert all(torch.equal(a, b) for a, b in zip(steps.momenta[5], steps.momenta[6], strict=True))
    assert steps.rates[5] > steps.rates[6]
    changed = [name for name, same in equal(steps.states[6], steps.states[7]).items() if not same]
    assert {"method.queue.keys", "method.queue.position"} <= set(changed)
    assert any("running_mean" in name for name in changed)
    assert "step 5: the loss is" in (printed := capsys.readouterr().err)
    assert f"skipped (1 of at most 10). Find where it came from: eztorch-sce replay {tmp_path / 'run'}" in printed
    facts = facts_of(tmp_path / "run", 5)
    assert facts is not None
    assert (facts["step"], facts["epoch"], facts["action"], facts["world_size"]) == (5, 1, "skip", 1)
    assert facts["loss"] == ("inf" if not only_gradient else pytest.approx(facts["loss"]))
    (batch,) = facts["processes"][0]
    assert batch["paths"] == [str(images / Path(path).name) for path in batch["paths"]]
    assert len(batch["records"]) == 4


def test_accumulated_batches_are_skipped_together(images: Path, tmp_path: Path) -> None:
    loss = DividingLoss({1})
    steps = train(config(images, tmp_path / "run", on_nonfinite="skip", accumulate=2, max_epochs=1), loss)
    assert equal(steps.states[2], steps.states[4]) == dict.fromkeys(steps.states[2], True)  # two batches in each step
    facts = facts_of(tmp_path / "run", 1)
    assert facts is not None
    assert [len(batch["records"]) for batch in facts["processes"][0]] == [2, 2]


def test_training_stops_when_more_steps_are_not_finite_than_may_be_skipped(images: Path, tmp_path: Path) -> None:
    loss = DividingLoss({1, 2, 4, 6, 9})
    settings = config(images, tmp_path / "run", on_nonfinite="skip", max_skipped=4)
    settings.run.log_every_n_steps = 1
    with pytest.raises(TrainingError, match=r"step 9: the loss is inf, and .*max_skipped=4 allows.*step=9"):
        train(settings, loss)
    assert kept_steps(tmp_path / "run") == [1, 6, 9]  # the first and the latest
    with (tmp_path / "run/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(10))
    assert [int(row["step"]) for row in rows if not row["loss"]] == [1, 2, 4, 6]
    assert [row["skipped_steps"] for row in rows] == ["", "1.0", "2.0", "2.0", "3.0", "3.0", "4.0", "4.0", "4.0", ""]


def test_by_default_training_stops_before_the_optimizer_steps(images: Path, tmp_path: Path) -> None:
    settings = config(images, tmp_path / "run")
    settings.run.log_every_n_steps = 100
    loss = DividingLoss({6})
    steps = Steps(loss)
    with pytest.raises(TrainingError, match=r"step 6: the loss is inf. If training has diverged: lower optimizer.lr"):
        api.pretrain(settings, loss=loss, callbacks=[steps])
    assert len(steps.states) == 7
    with (tmp_path / "run/metrics.csv").open() as file:
        assert [(row["step"], row["loss"]) for row in csv.DictReader(file)][-1] == ("6", "inf")
    assert json.loads((tmp_path / "run/nonfinite/step-0000000006/step.json").read_text())["action"] == "stop"
