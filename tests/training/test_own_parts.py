"""Tests of pretraining with methods and losses of a user, of which only the contract is assumed."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn

from eztorch_sce import api
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.in_python import recipe
from eztorch_sce.config.schema import PlanConfig, PretrainConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError, TrainingError
from eztorch_sce.losses.infonce import InfoNCEConfig
from eztorch_sce.losses.sce import SCELoss
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.methods.simclr import SimCLRConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.optim.ramp import Ramp
from eztorch_sce.training.checkpoint_files import load_newest
from eztorch_sce.types import StepOutput

HEAD = ProjectorConfig(hidden_dim=16, output_dim=8)


class Agreement(nn.Module):
    """A method with its own loss, and nothing but the contract."""

    def __init__(self, backbone: Any, weight: float) -> None:
        super().__init__()
        self.backbone, self.weight = backbone, weight
        self.projector = nn.Linear(backbone.num_features, 4)
        self.weights: list[float] = []

    def forward(self, views: list[Tensor]) -> StepOutput:
        first, *others = [self.projector(self.backbone(view)) for view in views]
        self.weights.append(self.weight)
        spread = first.std(dim=0).mean()
        loss = F.mse_loss(first, torch.stack(others).mean(dim=0)) - self.weight * spread
        return StepOutput(loss, {"spread_of_rows": spread.detach()}, first.detach())

    def after_step(self, progress: float) -> None: ...


@dataclass
class AgreementConfig:
    weight: float = 0.5
    has_own_loss = True

    def build(self, backbone: Any, loss: None) -> Agreement:
        assert loss is None
        return Agreement(backbone, self.weight)


class Scaled(nn.Module):
    """A loss with a parameter and a setting, which takes embeddings that are not normalized."""

    takes_unit_vectors = False

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.margin, self.margins = nn.Parameter(torch.ones(())), 0.5, list[float]()

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        self.margins.append(self.margin)
        self.norms = query.detach().norm(dim=1)
        return self.scale * (query - key).square().sum(dim=1).mean() + self.scale.square() + self.margin


def config(images: Path, **settings: Any) -> PretrainConfig:
    config = PretrainConfig(
        data=DataConfig(root=str(images), batch_size=4, num_workers=0),
        views=[ViewConfig(size=32), ViewConfig(size=32)],
        backbone=SmallR2Plus1DConfig(width=4, num_blocks=1),
        **settings,
    )
    config.run.dir, config.run.log_every_n_steps = str(images.parent / "run"), 1
    config.trainer.max_epochs, config.trainer.accelerator = 1, "cpu"
    return config


def checkpoint(config: PretrainConfig) -> dict[str, Tensor]:
    _, content = load_newest(Path(str(config.run.dir))) or (None, {})
    state: dict[str, Tensor] = content["state_dict"]
    return state


@pytest.mark.filterwarnings("ignore:step 4. collapsing")  # of images in two colors
def test_a_method_with_its_own_loss_trains_and_resumes_with_a_ramp_of_its_setting(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: list[float] = []
    monkeypatch.setattr(Agreement, "after_step", lambda self, _: weights.append(self.weight))
    own = config(images, method=AgreementConfig(weight=0.2), ramps=[Ramp("method.weight", 1.0, over=1, shape="linear")])
    report = api.pretrain(own)
    assert report.metrics["spread_of_rows"] > 0
    assert weights == pytest.approx([1.0, 0.6, 0.2])
    assert OmegaConf.load(f"{own.run.dir}/config.yaml").loss is None
    assert json.loads(Path(f"{own.run.dir}/report.json").read_text())["protocol"]["training"]["loss"] is None
    own.trainer.max_epochs = 2
    api.pretrain(own)
    assert weights[3:] == pytest.approx([0.52, 0.36, 0.2])  # steps 3 to 5 of 6


def test_a_method_with_its_own_loss_is_planned(images: Path) -> None:
    views = [ViewConfig(size=32), ViewConfig(size=32)]
    plan = api.plan(
        PlanConfig(
            data=DataConfig(num_frames=1, batch_size=8),
            views=views,
            backbone=SmallR2Plus1DConfig(width=4),
            method=AgreementConfig(),
            device="cpu",
        )
    )
    assert plan.parameters["projector"] == 4 * (32 + 1)
    assert plan.flops["networks"].backward > plan.flops["networks"].forward > 0
    assert plan.title.startswith("r2plus1d_small, AgreementConfig; views")


@pytest.mark.parametrize("loss", [InfoNCEConfig(), SCELoss()])
def test_a_loss_set_beside_a_method_with_its_own_is_an_error(loss: Any, images: Path) -> None:
    own = config(images, method=AgreementConfig())
    with pytest.raises(ConfigError, match=r"has no effect: method=AgreementConfig has its own loss; leave loss out"):
        api.pretrain(own, loss=loss)
    assert not Path(str(own.run.dir)).exists()


def test_a_method_that_replaces_that_of_a_config_replaces_its_loss_too(images: Path) -> None:
    own = config(images, method=SimCLRConfig(HEAD), loss=InfoNCEConfig())
    method = Agreement(SmallR2Plus1DConfig(width=4, num_blocks=1).build(), weight=0.5)
    api.pretrain(own, method=method)
    assert OmegaConf.load(f"{own.run.dir}/config.yaml").loss is None
    changed = recipe("cifar10_moco_v2", method=AgreementConfig())
    assert changed.loss is None


def test_what_a_method_lacks_is_named_before_the_run_directory_is_opened(images: Path) -> None:
    own = config(images)
    incomplete: Any = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"method=Linear: Linear has no after_step.*; it has no backbone"):
        api.pretrain(own, method=incomplete)
    assert not Path(str(own.run.dir)).exists()


@pytest.mark.parametrize("method", [SimCLRConfig(HEAD), MomentumContrastConfig(HEAD)])
@pytest.mark.parametrize("wrap", [lambda loss: loss, functools.partial])
def test_a_loss_with_a_parameter_is_trained_and_saved(method: Any, wrap: Any, images: Path) -> None:
    loss = Scaled()
    own = config(images, method=method)
    own.optimizer = "adamw"
    if wrap is not functools.partial:
        own.ramps = [Ramp("loss.margin", start=0.9, shape="linear")]
    api.pretrain(own, loss=wrap(loss))
    assert loss.scale.item() != 1
    assert loss.scale in [value for name, value in checkpoint(own).items() if name.endswith("scale")]
    assert not torch.allclose(loss.norms, torch.ones(len(loss.norms)), atol=0.1)
    assert loss.margins[0] == (0.9 if own.ramps else 0.5)
    assert not any("queue" in name for name in checkpoint(own))  # the loss takes no negatives


def test_a_setting_that_the_module_keeps_in_a_parameter_cannot_be_ramped(images: Path) -> None:
    @dataclass
    class ScaledConfig:
        scale: float = 1.0

        def build(self) -> Scaled:
            return Scaled()

    own = config(images, loss=ScaledConfig(), ramps=[Ramp("loss.scale", start=2.0)])
    with pytest.raises(ConfigError, match=r"loss\.scale cannot be ramped, because Scaled\.scale is a Parameter"):
        api.pretrain(own)


def test_a_loss_that_is_not_a_scalar_or_has_no_gradient_stops_at_the_first_step(images: Path) -> None:
    own = config(images, method=SimCLRConfig(HEAD))
    with pytest.raises(ConfigError, match=r"<lambda> returned a tensor \(4,\); it must return a scalar"):
        api.pretrain(own, loss=lambda query, key: (query * key).sum(dim=1))
    own.run.dir = f"{own.run.dir}-2"
    with pytest.raises(TrainingError, match=r"step 0: SimCLR\.forward: loss has no gradient"):
        api.pretrain(own, loss=lambda query, key: (query * key).mean().detach())
