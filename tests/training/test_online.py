"""Tests of the evaluation during pretraining."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

from eztorch_sce import api
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError, TrainingError
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.models.weights import load_weights


def images(folder: Path, sub_folders: str) -> Path:
    generator = torch.Generator().manual_seed(0)
    for number in range(16):
        pixels = torch.randint(0, 256, (40, 40, 3), dtype=torch.uint8, generator=generator)
        file = folder / (sub_folders[number % len(sub_folders)] if sub_folders else "") / f"image-{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(file)
    return folder


def config_of(root: Path, run_dir: Path, every: int | None) -> PretrainConfig:
    config = PretrainConfig(
        data=DataConfig(root=str(root), batch_size=8, num_workers=0),
        views=[ViewConfig(size=32, flip=0.5), ViewConfig(size=32, flip=0.5)],
        backbone=SmallR2Plus1DConfig(width=4, num_blocks=1),
        method=MomentumContrastConfig(ProjectorConfig(hidden_dim=16, output_dim=8), queue_size=32),
    )
    config.run.dir, config.trainer.max_epochs, config.trainer.accelerator = str(run_dir), 4, "cpu"
    config.online.every_n_epochs = every
    return config


def test_online_evaluation_does_not_change_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = images(tmp_path / "images", "ab")
    baseline = api.pretrain(config_of(root, tmp_path / "baseline", None))
    evaluated = api.pretrain(config_of(root, tmp_path / "evaluated", 2))
    first, second = (load_weights(str(tmp_path / name)).state for name in ("baseline", "evaluated"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert evaluated.metrics["loss"] == baseline.metrics["loss"]
    assert {"online_knn_top1", "online_linear_top1", "online_s"} <= evaluated.metrics.keys()
    assert evaluated.metrics["online_s"] > 0
    printed = [line for line in capsys.readouterr().err.splitlines() if "online evaluation" in line]
    assert [line.split("  ")[0] for line in printed] == ["epoch 2/4", "epoch 4/4"]
    assert f"kNN {evaluated.metrics['online_knn_top1']:.3f}" in printed[1]
    assert f"({evaluated.chance['online_knn_top1']})" in printed[1]
    assert (evaluated.chance["online_linear_top1"].level, evaluated.chance["online_linear_top1"].records) == (0.5, 4)
    lines = (tmp_path / "evaluated/metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("online_knn_top1")
    assert sum(bool(line.split(",")[column]) for line in lines[1:] if len(line.split(",")) > column) == 2


def test_unlabeled_pretraining_data_require_labeled_data_for_online_evaluation(tmp_path: Path) -> None:
    root = images(tmp_path / "unlabeled", "")
    config = config_of(root, tmp_path / "run", 4)
    with pytest.raises(ConfigError, match=r"online\.root"):
        api.pretrain(config)
    assert not (tmp_path / "run").exists()
    config.online.root = str(images(tmp_path / "labeled", "ab"))
    report = api.pretrain(config)
    assert 0 <= report.metrics["online_knn_top1"] <= 1
    assert "labeled" in report.protocol["online"]["data"]


@dataclass
class NanOutsideTrainingConfig(SmallR2Plus1DConfig):
    """A backbone that returns NaN in evaluation mode, as one with broken batch norm statistics does."""

    def build(self) -> Backbone:
        backbone = super().build()
        backbone.register_forward_hook(lambda module, inputs, output: output if module.training else output * torch.nan)
        return backbone


def test_a_backbone_whose_features_are_nan_ends_the_pretraining_in_words(tmp_path: Path) -> None:
    config = config_of(images(tmp_path / "images", "ab"), tmp_path / "run", 1)
    config.backbone = NanOutsideTrainingConfig(width=4, num_blocks=1)
    with pytest.raises(TrainingError, match=r"epoch 1: the online evaluation.*NaN or infinite features.*\.png"):
        api.pretrain(config)
