"""Few-shot classification on features whose answer is known."""

import pytest
import torch
from torch import Tensor

from eztorch_sce.config.compose import compose
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.few_shot import few_shot_accuracy
from eztorch_sce.types import FeatureBank


def bank(features: Tensor, labels: Tensor) -> FeatureBank:
    classes = [f"class {label}" for label in range(10)]
    return FeatureBank(features, labels, [f"{i}.mp4" for i in range(len(labels))], classes)


def clusters(count: int, seed: int, noise: float) -> FeatureBank:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    features = torch.eye(10, 16)[labels] + noise * torch.randn(count, 16, generator=generator)
    lengths = torch.empty(count, 1).uniform_(0.1, 10, generator=generator)
    return bank(features * lengths, labels)


def accuracy(train: FeatureBank, test: FeatureBank, shots: int = 5, ways: int = 5, seed: int = 0) -> dict[str, float]:
    return few_shot_accuracy(train, test, ways, shots, queries=15, episodes=200, seed=seed)


def test_separable_classes_are_told_apart_whatever_the_lengths() -> None:
    assert accuracy(clusters(100, 0, 0.02), clusters(60, 1, 0.02)) == {"few_shot_top1": 1.0, "few_shot_ci95": 0.0}


def test_noise_is_chance_within_its_interval() -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = (bank(torch.randn(1000, 16, generator=generator), torch.arange(1000) % 10) for _ in range(2))
    for ways in (2, 5):
        metrics = accuracy(train, test, ways=ways)
        assert abs(metrics["few_shot_top1"] - 1 / ways) < 3 * metrics["few_shot_ci95"]
        assert 0.002 < metrics["few_shot_ci95"] < 0.03


def test_more_shots_are_better_and_the_seed_decides() -> None:
    train, test = clusters(300, 0, 0.5), clusters(300, 1, 0.5)
    few, many = accuracy(train, test, shots=1), accuracy(train, test, shots=20)
    assert many["few_shot_top1"] > few["few_shot_top1"] + 2 * few["few_shot_ci95"]
    assert few == accuracy(train, test, shots=1)
    assert few != accuracy(train, test, shots=1, seed=1)


def test_the_mean_of_directions_is_the_centroid() -> None:
    """A long record does not outweigh a short one: the centroid of class 0 lies between both of its records."""
    train = bank(torch.tensor([[100.0, 0.0], [0.0, 1.0], [-1.0, 0.1], [-1.0, -0.1]]), torch.tensor([0, 0, 1, 1]))
    test = bank(torch.tensor([[-0.3, 1.0], [-1.0, 0.0]]), torch.tensor([0, 1]))
    assert few_shot_accuracy(train, test, 2, 2, 15, 2, seed=0)["few_shot_top1"] == 1


def test_a_class_with_too_few_records_is_not_drawn() -> None:
    train, test = clusters(100, 0, 0.02), clusters(60, 1, 0.02)
    test = bank(test.features[test.labels < 5], test.labels[test.labels < 5])
    assert accuracy(train, test)["few_shot_top1"] == 1
    with pytest.raises(ConfigError, match=r"ways=6 is more than the 5 classes with 5 train records \(shots=5\)"):
        accuracy(train, test, ways=6)
    with pytest.raises(ConfigError, match="ways=5 is more than the 0 classes with 11 train records"):
        accuracy(train, test, shots=11)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ways=1", "ways=1 must be at least 2"),
        ("shots=0", "shots=0 must be at least 1"),
        ("queries=0", "queries=0 must be at least 1"),
        ("episodes=1", "episodes=1 must be at least 2"),
        ("shot=5", "did you mean shots?"),
    ],
)
def test_a_wrong_setting_is_answered_in_words(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compose("few-shot", ["features=x", override])
