"""Tests of the evaluation of a backbone in your own loop."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from eztorch_sce.augment.policies import views
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.loading import training_loader
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.features import extract_features, extract_splits
from eztorch_sce.evaluation.knn import knn_accuracy
from eztorch_sce.models.backbones.base import as_backbone
from eztorch_sce.types import InputSpec

SPEC = InputSpec(size=8, stats="cifar10")
COLORS = {"blue": (0, 0, 200), "red": (200, 0, 0)}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for name, color in COLORS.items():
        (root / name).mkdir()
        for number in range(5):
            pixels = np.clip(generator.normal(color, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return DataConfig(root=str(root), batch_size=4, num_workers=0)


def mean_color() -> nn.Sequential:
    """Return a network for images whose mode matters."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.9))


def test_features_and_accuracy_take_two_calls(images: DataConfig) -> None:
    train, test = extract_splits(mean_color(), images, SPEC)
    assert (len(train.features), len(test.features)) == (8, 2)
    assert knn_accuracy(train, test)["knn_top1"] == 1.0


def test_the_test_split_is_what_the_loader_leaves_out(images: DataConfig) -> None:
    loader = training_loader(images, views("cifar", size=8), seed=3)
    train, test = extract_splits(mean_color(), images, loader.spec, seed=3)
    trained_on = [loader.manifest.records.path(index) for index in range(8)]
    assert train.paths == trained_on
    assert not set(trained_on) & set(test.paths)


def test_every_record_has_features(images: DataConfig) -> None:
    bank = extract_features(mean_color(), images, SPEC)
    assert bank.features.shape == (10, 3)
    assert bank.classes == list(COLORS)


def test_the_protocol_names_a_precision_other_than_float32(images: DataConfig) -> None:
    network = nn.Sequential(mean_color(), nn.Linear(3, 4))
    exact, rounded = (
        extract_features(network, images, SPEC),
        extract_features(network, images, SPEC, precision="bf16-mixed"),
    )
    assert "precision" not in exact.protocol
    assert rounded.protocol["precision"] == "bf16-mixed"
    assert rounded.features.dtype == torch.float32
    assert not torch.equal(rounded.features, exact.features)
    torch.testing.assert_close(rounded.features, exact.features, rtol=0.02, atol=0.02)
    with pytest.raises(ConfigError, match="precision='half' must be None or one of 32-true, bf16-mixed, 16-mixed"):
        extract_features(network, images, SPEC, precision="half")


def test_the_mode_of_the_network_is_restored(images: DataConfig) -> None:
    network = mean_color()
    network[1].eval()
    first = extract_features(network, images, SPEC)
    assert [module.training for module in network.modules()] == [True, True, False, True]
    assert torch.equal(first.features, extract_features(network, images, SPEC).features)  # without dropout


def test_unlabeled_data_have_no_splits_to_evaluate(images: DataConfig) -> None:
    data = DataConfig(root=f"{images.root}/red", num_workers=0)
    assert len(extract_features(mean_color(), data, SPEC).features) == 5
    with pytest.raises(ConfigError, match="has no labels: put the files in one subfolder per class"):
        extract_splits(mean_color(), data, SPEC)
    with pytest.raises(ConfigError, match=r"views.num_crops=2 must be 1 \(center\) or 3"):
        extract_features(mean_color(), data, SPEC, num_crops=2)


def test_a_loaded_backbone_knows_its_input(images: DataConfig) -> None:
    backbone = as_backbone(mean_color(), num_frames=1, size=8)
    with pytest.raises(ConfigError, match=r"input of the backbone is not known, .*: give spec=loader.spec"):
        extract_features(backbone, images)
    backbone.input_spec = SPEC  # as load_backbone does
    assert extract_features(backbone, images).protocol["input"]["size"] == 8
