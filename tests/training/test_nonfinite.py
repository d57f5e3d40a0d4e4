"""Tests of steps that are not finite: found before the optimizer steps, then skipped or stopped at, and kept."""

import csv
import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from image_files import write_noise
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from eztorch_sce import api
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import TrainingError
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.training.config import TrainerConfig
from eztorch_sce.training.nonfinite import StepGuard, step_unless_skipped
from eztorch_sce.training.nonfinite_files import NonFiniteFiles, facts_of, kept_steps
from eztorch_sce.types import ViewBatch


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_noise((folder / f"{number}.png" for number in range(16)), size=20)
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


class Scaled(pl.LightningModule):
    """A weight that is trained in float16 by a gradient scaler, with a loss that is NaN in one step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.layer.weight, 0.5)
        self.scales: list[float] = []
        self.weights: list[float] = []

    def training_step(self, batch: ViewBatch, batch_idx: int) -> Tensor:
        self.scales.append(self.trainer.precision_plugin.scaler.get_scale())  # type: ignore[attr-defined]
        self.weights.append(self.layer.weight.item())
        loss: Tensor = self.layer(batch.views[0]).square().mean()
        return loss * float("nan") if batch_idx == 8 else loss

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        step_unless_skipped(self, partial(super().optimizer_step, epoch, batch_idx, optimizer), optimizer_closure)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on a trainer of one's own
def test_steps_that_a_gradient_scaler_skips_do_not_count(tmp_path: Path) -> None:
    settings = TrainerConfig(accelerator="cpu", on_nonfinite="skip")
    guard = StepGuard(NonFiniteFiles(tmp_path, str, {}), settings)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        plugins=[MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**14))],
        callbacks=[guard],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Scaled()
    batch = ViewBatch([torch.full((2, 1), 8.0)], torch.zeros(2), torch.arange(2), [])
    trainer.fit(module, DataLoader([batch] * 11, batch_size=None))  # type: ignore[arg-type]
    is_halved = [second == first / 2 for first, second in itertools.pairwise(module.scales)]
    is_same = [first == second for first, second in itertools.pairwise(module.weights)]
    assert 3 <= is_halved.count(True) <= 6
    assert is_same == [is_halved[step] or step == 8 for step in range(10)]  # the loss of step 8 is NaN
    assert (guard.num_skipped, kept_steps(tmp_path)) == (1, [8])
