"""Tests of PretrainModule: momentum updates, logging, and stopping on a non-finite loss."""

import csv
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from image_files import write_noise
from PIL import Image
from torch import Tensor, nn

from eztorch_sce import api
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import TrainingError
from eztorch_sce.losses.sce import SCEConfig, SCELoss
from eztorch_sce.methods.momentum_contrast import MomentumContrast, MomentumContrastConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.models.momentum import MomentumEncoder
from eztorch_sce.optim.ramp import Ramp
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.training.pretrain_module import CollapseWarning
from eztorch_sce.types import StepOutput


@pytest.fixture
def config(tmp_path: Path) -> PretrainConfig:
    write_noise((tmp_path / f"images/{number}.png" for number in range(16)), size=40)
    config = PretrainConfig(
        data=DataConfig(root=str(tmp_path / "images"), batch_size=8, num_workers=0),
        views=[ViewConfig(size=32), ViewConfig(size=32)],
        backbone=SmallR2Plus1DConfig(width=4, num_blocks=1, norm=False),
        method=MomentumContrastConfig(ProjectorConfig(hidden_dim=16, output_dim=8), queue_size=32),
    )
    config.run.dir = str(tmp_path / "run")
    config.run.log_every_n_steps = 1
    config.trainer.max_epochs, config.trainer.accelerator = 3, "cpu"
    return config


def rows(config: PretrainConfig) -> list[dict[str, str]]:
    with (Path(str(config.run.dir)) / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_momentum_encoder_is_updated_once_per_optimizer_step(
    accumulate: int, config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates: list[float] = []
    original = MomentumContrast.after_step

    def counted(self: MomentumContrast, progress: float) -> None:
        updates.append(progress)
        original(self, progress)

    monkeypatch.setattr(MomentumContrast, "after_step", counted)
    config.trainer.accumulate = accumulate
    api.pretrain(config)
    assert updates == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])  # 3 epochs of 2 steps of 8 samples


def test_a_long_training_is_announced_with_its_predicted_time(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = itertools.count()  # every look at the clock finds it a second later
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    api.pretrain(config)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines if "for 3 epochs" in line] == ["training"]
    steps = [line for line in lines if line.startswith("epoch")]
    assert [" left" in line for line in steps] == [True] * 5 + [False]


def test_embedding_and_target_statistics_are_logged(config: PretrainConfig) -> None:
    api.pretrain(config)
    logged: dict[str, Any] = {}
    for row in rows(config):
        logged |= {name: float(value) for name, value in row.items() if value}
    assert 0 < logged["spread"] < 2
    assert 1 <= logged["effective_rank"] <= 7
    assert logged["uniformity"] < 0
    assert 1 <= logged["target_neighbors"] <= 32
    assert 0 < logged["positive_mass"] < 1
    assert 0 <= logged["alignment"] <= 4
    assert logged["queue_age"] == 2  # 32 keys, 16 per step


def test_a_row_holds_the_numbers_of_its_optimizer_step(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    momenta: list[float] = []
    original = MomentumEncoder.update

    def recorded(self: MomentumEncoder, online: nn.Module, momentum: float) -> None:
        momenta.append(momentum)
        original(self, online, momentum)

    monkeypatch.setattr(MomentumEncoder, "update", recorded)
    config.trainer.accumulate = 2
    report = api.pretrain(config)
    assert [int(row["step"]) for row in rows(config)] == [0, 1, 2, 3, 4, 5]  # 3 epochs of 2 steps of 8 samples
    assert [int(row["epoch"]) for row in rows(config)] == [0, 0, 1, 1, 2, 2]
    assert [float(row["momentum"]) for row in rows(config)] == pytest.approx(momenta)
    assert len(set(momenta)) == 6
    for name in ("loss", "grad_norm", "lr", "views_per_s", "data_wait", "spread"):
        assert all(row[name] for row in rows(config)), name
    if sys.platform == "linux":
        assert 0.05 < report.metrics["host_memory_gib"] < 64


def test_diagnostics_are_computed_at_the_logged_steps(config: PretrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    forwards: list[None] = []
    original = MomentumContrast.forward

    def counted(self: MomentumContrast, views: list[Tensor]) -> StepOutput:
        forwards.append(None)
        return original(self, views)

    monkeypatch.setattr(MomentumContrast, "forward", counted)
    function = "eztorch_sce.training.pretrain_module.diagnostics_of"
    monkeypatch.setattr(function, lambda _: {"num_forwards": torch.tensor(float(len(forwards)))})
    config.run.log_every_n_steps = 3
    api.pretrain(config)
    logged = [(row["step"], float(row["num_forwards"])) for row in rows(config) if row.get("num_forwards")]
    assert logged == [("2", 3), ("5", 6)]


def test_ramps_change_settings_of_loss_and_method_and_resume(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    temperatures: list[float] = []
    momenta: list[float] = []
    original = MomentumContrast.forward

    def recorded(self: MomentumContrast, views: list[Tensor]) -> StepOutput:
        assert isinstance(self.loss, SCELoss)
        temperatures.append(self.loss.target_temperature)
        momenta.append(self.momentum)
        return original(self, views)

    monkeypatch.setattr(MomentumContrast, "forward", recorded)
    config.loss = SCEConfig(target_temperature=0.05)
    config.method.momentum = 0.9
    config.ramps = [
        Ramp("loss.target_temperature", 0.1, over=0.5, shape="linear"),
        Ramp("method.momentum", 0.5, over=1, shape="linear"),
    ]
    api.pretrain(config)
    assert temperatures == pytest.approx([0.1, 0.08, 0.06, 0.05, 0.05, 0.05])
    assert momenta == pytest.approx([0.5, 0.58, 0.66, 0.74, 0.82, 0.9])
    temperatures.clear()
    config.trainer.max_epochs = 4
    api.pretrain(config)
    assert temperatures == pytest.approx([0.05, 0.05])


def test_a_diverging_training_stops_and_names_the_cure(config: PretrainConfig) -> None:
    config.optimizer, config.schedule.warmup_epochs = SGDConfig(lr=1e30), 0
    with pytest.raises(TrainingError, match=r"step \d+: .*lower optimizer.lr=1e\+30"):
        api.pretrain(config)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_collapse_raises_a_warning(precision: str, config: PretrainConfig) -> None:
    """Without norms, identical images have the same embedding."""
    for image in Path(str(config.data.root)).iterdir():
        Image.new("RGB", (40, 40), (9, 9, 9)).save(image)
    config.method.projector = ProjectorConfig(hidden_dim=16, num_hidden=0, output_dim=8, output_norm=False)
    config.trainer.precision = precision
    with pytest.warns(CollapseWarning, match="nearly coincide"):
        api.pretrain(config)
