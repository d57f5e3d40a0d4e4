"""Tests of weights files: the normalization of the input, in numbers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from eztorch_sce.augment.policies import views
from eztorch_sce.augment.statistics import STATISTICS, register_statistics
from eztorch_sce.augment.view import View
from eztorch_sce.errors import ConfigError
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.weights import load_weights, save_weights
from eztorch_sce.types import InputSpec


@pytest.fixture
def microscopy() -> Iterator[str]:
    register_statistics("microscopy", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    yield "microscopy"
    STATISTICS.pop("microscopy", None)


def save(path: Path, stats: str) -> Path:
    config = SmallR2Plus1DConfig(width=1, num_blocks=1)
    save_weights(path, config.build(), config, InputSpec(stats=stats), None, [])
    return path


def test_weights_hold_the_normalization_in_numbers(tmp_path: Path) -> None:
    content = torch.load(save(tmp_path / "w.pt", "image"), weights_only=True)
    assert content["normalization"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert torch.load(save(tmp_path / "w.pt", "clip"), weights_only=True)["normalization"] is None


def test_weights_bring_the_statistics_of_their_owner(tmp_path: Path, microscopy: str) -> None:
    file = save(tmp_path / "w.pt", microscopy)
    numbers = STATISTICS.pop(microscopy)  # another process
    assert load_weights(str(file)).spec.stats == microscopy
    assert STATISTICS[microscopy] == numbers == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_weights_of_earlier_versions_load(tmp_path: Path) -> None:
    file = save(tmp_path / "w.pt", "video")
    content = torch.load(file, weights_only=True)
    del content["normalization"]
    torch.save(content, file)
    assert load_weights(str(file)).spec.stats == "video"


def test_own_statistics_normalize_a_view(microscopy: str) -> None:
    view = View(views("motion", size=4, input="rgb", stats=microscopy)[0])
    pixels = view(torch.zeros(1, 3, 1, 4, 4))[0, :, 0, 0, 0]
    torch.testing.assert_close(pixels, torch.tensor([-0.25, -0.4, -0.5]))


def test_statistics_that_cannot_be_are_an_error() -> None:
    with pytest.raises(ConfigError) as error:
        register_statistics("image", mean=[0.5, 0.5], std=[58.4, 57.1, 57.4])
    assert error.value.problems == [
        "the statistics image are published: "
        "choose another name than image, video, cifar10, cifar100, difference, clip",
        "mean=[0.5, 0.5] must be three numbers: red, green and blue",
        "std=[58.4, 57.1, 57.4] must be between 0 and 1, as the pixels are: divide it by 255",
    ]
    with pytest.raises(ConfigError, match=r"stats=microscopi must be one of image, video"):
        views("motion", stats="microscopi")
