"""Tests of ramps: their values, the settings they accept, and the attributes they change."""

import pytest
from torch import nn

from eztorch_sce.errors import ConfigError
from eztorch_sce.losses.sce import SCEConfig, SCELoss
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.optim.ramp import MovingSetting, Ramp, ramp_conflicts
from eztorch_sce.settings import invalid_settings


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_a_ramp_goes_from_start_to_end_and_stays_there(shape: str) -> None:
    ramp = Ramp("loss.positive_weight", start=1.0, over=0.5, shape=shape)
    assert [ramp.at(progress, end=0.2) for progress in (0, 0.25, 0.5, 1)] == pytest.approx([1, 0.6, 0.2, 0.2])


def test_a_ramp_changes_an_attribute_of_the_loss_and_ends_at_its_configured_value() -> None:
    loss = SCELoss(positive_weight=0.5)
    moving = MovingSetting(Ramp("loss.positive_weight", start=1.0, over=0.5, shape="linear"), {"loss": loss})
    for progress, value in ((0, 1.0), (0.25, 0.75), (0.8, 0.5)):
        moving.move(progress)
        assert loss.positive_weight == value


def test_a_ramp_of_a_missing_attribute_names_the_module() -> None:
    with pytest.raises(ConfigError, match=r"loss\.margin cannot be ramped, because Identity has no attribute margin"):
        MovingSetting(Ramp("loss.margin", start=1.0), {"loss": nn.Identity()})


@pytest.mark.parametrize(
    ("ramp", "message"),
    [
        (
            Ramp("loss.target_temperature", -0.1),
            "ramps.0.start=-0.1 must be greater than 0, like loss.target_temperature",
        ),
        (Ramp("loss.positive_weight", 1.5), "ramps.0.start=1.5 must be between 0 and 1, like loss.positive_weight"),
        (
            Ramp("method.momentum", None),
            "ramps.0.start=null must be a number: the value of method.momentum at the first step",
        ),
        (
            Ramp("method.momentums", 0.9),
            "ramps.0.setting=method.momentums must be one of loss.temperature, loss.target_temperature, "
            "loss.positive_weight, method.momentum; did you mean method.momentum?",
        ),
        (
            Ramp("", 0.9),
            "ramps.0.setting= must be one of loss.temperature, loss.target_temperature, "
            "loss.positive_weight, method.momentum",
        ),
    ],
)
def test_conflicts_name_the_ramp_and_the_cure(ramp: Ramp, message: str) -> None:
    configs = {"loss": SCEConfig(), "method": MomentumContrastConfig()}
    assert ramp_conflicts([ramp], configs, "ramps") == [message]


def test_a_ramp_checks_its_own_settings() -> None:
    assert invalid_settings(Ramp("loss.temperature", 1.0, over=0, shape="square"), "ramps.0") == [
        "ramps.0.over=0 must be greater than 0 and at most 1",
        "ramps.0.shape=square must be one of linear, cosine",
    ]
