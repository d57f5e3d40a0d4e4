"""Few-shot classification on features with a known result."""

import pytest
import torch
from torch import Tensor

from eztorch_sce.config.compose import compose
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.few_shot import few_shot_accuracy
from eztorch_sce.types import FeatureBank


def feature_bank(features: Tensor, labels: Tensor) -> FeatureBank:
    classes = [f"class {label}" for label in range(10)]
    return FeatureBank(features, labels, [f"{i}.mp4" for i in range(len(labels))], classes)


def clusters(count: int, seed: int, noise: float) -> FeatureBank:
    """Return ten classes, with features of random length."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    features = torch.eye(10, 16)[labels] + noise * torch.randn(count, 16, generator=generator)
    lengths = torch.empty(count, 1).uniform_(0.1, 10, generator=generator)
    return feature_bank(features * lengths, labels)


def accuracy(train: FeatureBank, test: FeatureBank, shots: int = 5, ways: int = 5, seed: int = 0) -> dict[str, float]:
    return few_shot_accuracy(train, test, ways, shots, queries=15, episodes=200, seed=seed)


def test_separable_classes_are_recognized_whatever_the_length_of_features() -> None:
    assert accuracy(clusters(100, 0, 0.02), clusters(60, 1, 0.02)) == {"few_shot_top1": 1.0, "few_shot_ci95": 0.0}


def test_noise_gives_chance_within_the_confidence_interval() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(1000) % 10
    train, test = (feature_bank(torch.randn(1000, 16, generator=generator), labels) for _ in range(2))
    for ways in (2, 5):
        metrics = accuracy(train, test, ways=ways)
        assert abs(metrics["few_shot_top1"] - 1 / ways) < 3 * metrics["few_shot_ci95"]
        assert 0.002 < metrics["few_shot_ci95"] < 0.03


def test_more_shots_give_a_higher_accuracy() -> None:
    train, test = clusters(300, 0, 0.5), clusters(300, 1, 0.5)
    few, many = accuracy(train, test, shots=1), accuracy(train, test, shots=20)
    assert many["few_shot_top1"] > few["few_shot_top1"] + 2 * few["few_shot_ci95"]


def test_the_seed_determines_the_episodes() -> None:
    train, test = clusters(300, 0, 0.5), clusters(300, 1, 0.5)
    first = accuracy(train, test, shots=1)
    assert first == accuracy(train, test, shots=1)
    assert first != accuracy(train, test, shots=1, seed=1)


def test_the_centroid_is_the_mean_of_directions() -> None:
    """A long feature does not outweigh a short one: the centroid of class 0 lies between both of its records."""
    train = feature_bank(
        torch.tensor([[100.0, 0.0], [0.0, 1.0], [-1.0, 0.1], [-1.0, -0.1]]), torch.tensor([0, 0, 1, 1])
    )
    test = feature_bank(torch.tensor([[-0.3, 1.0], [-1.0, 0.0]]), torch.tensor([0, 1]))
    assert few_shot_accuracy(train, test, 2, 2, 15, 2, seed=0)["few_shot_top1"] == 1


def test_classes_with_too_few_records_are_not_drawn() -> None:
    train, test = clusters(100, 0, 0.02), clusters(60, 1, 0.02)
    test = feature_bank(test.features[test.labels < 5], test.labels[test.labels < 5])
    assert accuracy(train, test)["few_shot_top1"] == 1
    with pytest.raises(ConfigError, match=r"ways=6 is more than the 5 classes with 5 train records \(shots=5\)"):
        accuracy(train, test, ways=6)
    with pytest.raises(ConfigError, match="ways=5 is more than the 0 classes with 11 train records"):
        accuracy(train, test, shots=11)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ways=1", "ways=1 must be at least 2"),
        ("shots=0", "shots=0 must be at least 1"),
        ("queries=0", "queries=0 must be at least 1"),
        ("episodes=1", "episodes=1 must be at least 2"),
        ("shot=5", "did you mean shots?"),
    ],
)
def test_an_invalid_setting_is_explained(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose("few-shot", ["features=x", override])
