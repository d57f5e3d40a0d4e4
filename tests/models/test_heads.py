"""Tests of the projector, the predictor and the linear classifier."""

import pytest
import torch
from torch import nn

from eztorch_sce.models.heads import PredictorConfig, ProjectorConfig
from eztorch_sce.settings import invalid_settings


def test_hidden_layers_are_twice_as_wide_as_the_features_by_default() -> None:
    projector = ProjectorConfig(num_hidden=2, output_dim=5).build(num_features=8)
    widths = [layer.weight.shape for layer in projector if isinstance(layer, nn.Linear)]
    assert widths == [(16, 8), (16, 16), (5, 16)]
    assert projector(torch.randn(4, 8)).shape == (4, 5)


def test_a_projector_without_hidden_layers_is_linear() -> None:
    (layer,) = ProjectorConfig(num_hidden=0, output_dim=5, output_norm=False).build(num_features=8)
    assert isinstance(layer, nn.Linear)


def test_the_predictor_has_no_biases() -> None:
    predictor = PredictorConfig(hidden_dim=6).build(num_features=8, dim=5)
    linear = [layer for layer in predictor if isinstance(layer, nn.Linear)]
    assert [layer.bias for layer in linear] == [None, None]
    assert predictor(torch.randn(4, 5)).shape == (4, 5)


@pytest.mark.parametrize("config", [ProjectorConfig(hidden_dim=0), PredictorConfig(hidden_dim=0)])
def test_a_hidden_dim_of_zero_is_reported_in_one_message(config: ProjectorConfig | PredictorConfig) -> None:
    assert invalid_settings(config, "method.projector") == ["method.projector.hidden_dim=0 must be at least 1"]
