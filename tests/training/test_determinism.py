"""Tests of deterministic training: equal runs, and the operations that are named as not deterministic."""

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from image_files import write_noise
from torch import Tensor, nn

from eztorch_sce import api
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.models.weights import load_weights
from eztorch_sce.report.run_files import open_runs
from eztorch_sce.report.sections.environment import environment
from eztorch_sce.training.determinism import Determinism, deterministic


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_noise((folder / f"{number}.png" for number in range(16)), size=20)
    return folder


def config(images: Path, run_dir: Path, is_deterministic: bool, workers: int = 0) -> PretrainConfig:
    config = PretrainConfig(
        data=DataConfig(root=str(images), batch_size=4, num_workers=workers),
        views=[ViewConfig(size=16, flip=0.5, brightness=0.3), ViewConfig(size=16)],
        backbone=SmallR2Plus1DConfig(width=4, num_blocks=1),
        method=MomentumContrastConfig(ProjectorConfig(hidden_dim=8, output_dim=8), queue_size=32),
    )
    config.run.dir, config.run.log_every_n_steps = str(run_dir), 1
    config.trainer.max_epochs, config.trainer.accelerator = 2, "cpu"
    config.trainer.deterministic = is_deterministic
    return config


def outcome(config: PretrainConfig) -> tuple[list[str], dict[str, bytes]]:
    """Return the losses that a run has logged, and the bytes of its weights."""
    api.pretrain(config)
    run_dir = Path(str(config.run.dir))
    with (run_dir / "metrics.csv").open() as file:
        losses = [row["loss"] for row in csv.DictReader(file)]
    return losses, {name: value.numpy().tobytes() for name, value in load_weights(str(run_dir)).state.items()}


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_runs_are_equal_with_any_number_of_workers(images: Path, tmp_path: Path) -> None:
    kinds = [(True, 0), (True, 3), (False, 0)]
    runs = [outcome(config(images, tmp_path / str(number), *kind)) for number, kind in enumerate(kinds)]
    assert len(runs[0][0]) == 8
    assert all(run == runs[0] for run in runs[1:])
    assert not torch.are_deterministic_algorithms_enabled()


class Putting(nn.Module):
    """A layer with an operation that has no deterministic form."""

    def forward(self, features: Tensor) -> Tensor:
        return features + torch.zeros(4).put_(torch.tensor([0, 1]), torch.ones(2))


class Network(Backbone):
    def __init__(self) -> None:
        super().__init__("putting", num_features=4)
        self.stem, self.last = nn.Conv3d(3, 4, (1, 3, 3)), Putting()

    def features(self, clips: Tensor) -> Tensor:
        features: Tensor = self.last(self.stem(clips).mean(dim=(2, 3, 4)))
        return features


def test_the_report_and_its_page_name_operations_that_are_not_deterministic(images: Path, tmp_path: Path) -> None:
    api.pretrain(config(images, tmp_path / "run", True), backbone=Network())
    card = json.loads((tmp_path / "run/report.json").read_text())["determinism"]
    assert not card["deterministic"]
    (operation,) = card["operations"]
    assert operation["operation"] == "put_"
    assert sorted(operation["layers"]) == [
        "method.momentum_encoder.encoder.backbone.last",
        "method.online.backbone.last",
    ]
    section = environment(open_runs([str(tmp_path / "run")])[0], None)
    assert section is not None
    facts = {fact["name"]: fact["text"] for fact in section.data["runs"][0]["facts"]}
    assert facts["determinism"].startswith("not deterministic: put_ in ")


def test_an_operation_of_a_backward_pass_is_attributed_to_the_layers_of_its_name() -> None:
    layers = nn.Sequential(nn.Conv3d(1, 1, 1), nn.MaxPool3d(2), nn.AvgPool3d(2))
    found = Determinism(layers)
    text = " does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms"
    assert found.note(f"max_pool3d_with_indices_backward_cuda{text}", None)
    assert not found.note("lr_scheduler.step() was called", None)
    assert found.operations == {"max_pool3d_with_indices_backward_cuda": ["1"]}


def test_other_warnings_are_shown_as_before() -> None:
    with deterministic(Determinism(nn.Linear(1, 1))), pytest.warns(UserWarning, match="unrelated"):
        warnings.warn("unrelated", stacklevel=1)


def test_a_search_for_the_fastest_algorithm_is_refused(images: Path, tmp_path: Path) -> None:
    settings: Any = config(images, tmp_path / "run", True)
    settings.trainer.benchmark = True
    with pytest.raises(ConfigError, match=r"trainer.benchmark=true may choose other algorithms.*benchmark=null"):
        api.pretrain(settings)
