"""Tests of `backbone=timm`: any network for images of timm, with the input that its weights take."""

import sys
from typing import Any

import pytest
import torch

from eztorch_sce.augment.statistics import STATISTICS
from eztorch_sce.errors import ConfigError
from eztorch_sce.models.backbones.resnet2d import ResNet18Config
from eztorch_sce.models.backbones.timm_models import TimmConfig
from eztorch_sce.settings import invalid_settings


@pytest.mark.parametrize("model", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext", "test_mambaout"])
def test_features_have_the_announced_width(model: str) -> None:
    backbone = TimmConfig(model).build().eval()
    assert not backbone.takes_clips
    with torch.no_grad():
        assert backbone(torch.zeros(2, 3, 64, 64)).shape == (2, backbone.num_features)
        maps = backbone.feature_maps(torch.zeros(2, 3, 64, 64))
    assert list(maps) == list(backbone.stage_names)


def test_the_input_is_that_of_the_published_weights() -> None:
    spec = TimmConfig("test_vit").input_spec()
    assert (spec.num_frames, spec.size) == (1, 160)
    assert STATISTICS[spec.stats] == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert TimmConfig("test_vit", {"img_size": 64}).input_spec().size == 64
    assert TimmConfig("resnet50.tv_in1k").input_spec().size == 224
    assert TimmConfig("resnet50.tv_in1k").input_spec().stats == "image"


def test_a_transformer_takes_views_of_any_size() -> None:
    backbone = TimmConfig("test_vit").build().eval()
    fixed = TimmConfig("test_vit", {"img_size": 160}).build().eval()
    fixed.load_state_dict(backbone.state_dict())
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        assert backbone(torch.zeros(2, 3, 96, 96)).shape == (2, backbone.num_features)
        torch.testing.assert_close(backbone(images), fixed(images))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            "convnext_tinny",
            {},
            r"backbone.model=convnext_tinny is not a network of timm .*; did you mean convnext_tiny\?",
        ),
        ("test_resnet", {"depth": 3}, r"timm does not build backbone.model=test_resnet and backbone.options=.*depth"),
    ],
)
def test_a_network_that_timm_does_not_have_is_refused(model: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TimmConfig(model, options).build()


def test_without_timm_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"backbone=timm needs the package timm: pip install 'eztorch-sce\[timm\]'"):
        TimmConfig().build()


def test_a_resnet_pads_its_first_convolution_in_one_way() -> None:
    assert invalid_settings(ResNet18Config(padding=2, tf_padding=True), "backbone") == [
        "backbone.tf_padding=true and backbone.padding=2 both pad the first convolution: leave out one"
    ]
    assert invalid_settings(ResNet18Config(small_input=True, padding=2, tf_padding=True), "backbone") == []
