"""Support vector machines and their precision on features whose answer is known."""

import builtins
from typing import Any

import pytest
import torch
from torch import Tensor

from eztorch_sce.config.compose import compose
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.svm import interpolated_precision, svm_precision
from eztorch_sce.types import FeatureBank

COSTS = [0.1, 1.0, 10.0]


def bank(features: Tensor, labels: Tensor) -> FeatureBank:
    return FeatureBank(features, labels, [f"{i}.mp4" for i in range(len(labels))], ["a", "b", "c"])


def clusters(count: int, seed: int, noise: float) -> FeatureBank:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return bank(torch.eye(3, 8)[labels] + noise * torch.randn(count, 8, generator=generator), labels)


def test_separable_classes_are_ranked_without_fault() -> None:
    scores = svm_precision(clusters(60, 0, 0.05), clusters(30, 1, 0.05), COSTS, folds=3, seed=0)
    assert scores.metrics == {"svm_mAP": 1.0}
    assert [(name, own["queries"], own["AP"]) for name, own in scores.by_class.items()] == [
        ("a", 10, 1.0),
        ("b", 10, 1.0),
        ("c", 10, 1.0),
    ]


def test_the_scale_of_a_record_is_nothing_and_the_mean_is_that_of_the_classes() -> None:
    train, test = clusters(90, 0, 0.6), clusters(31, 1, 0.6)
    plain = svm_precision(train, test, COSTS, folds=3, seed=0)
    scaled = (bank(b.features * torch.linspace(0.1, 9, len(b.labels))[:, None], b.labels) for b in (train, test))
    assert svm_precision(*scaled, COSTS, folds=3, seed=0).metrics["svm_mAP"] == pytest.approx(
        plain.metrics["svm_mAP"], abs=1e-3
    )
    assert plain.metrics["svm_mAP"] == pytest.approx(sum(own["AP"] for own in plain.by_class.values()) / 3)
    assert 0.5 < plain.metrics["svm_mAP"] < 1


def test_a_cost_that_learns_nothing_is_not_chosen() -> None:
    train, test = clusters(90, 0, 0.3), clusters(30, 1, 0.3)
    train.features[:, 0] *= 100  # what separates is small beside it
    by_class = svm_precision(train, test, [1e-7, 10.0], folds=3, seed=0).by_class
    assert by_class["b"]["cost"] == by_class["c"]["cost"] == 10


@pytest.mark.parametrize(
    ("wanted", "area"),
    [
        ([1, 1, 0, 0], 1.0),
        ([0, 0, 1, 1], 1 / 2),  # 1/3 and 2/4: the higher of the two counts for both
        ([1, 0, 0, 1], (1 + 2 / 4) / 2),
        ([0, 1, 1, 0], 2 / 3),  # 1/2 and 2/3
    ],
)
def test_precision_by_hand(wanted: list[int], area: float) -> None:
    scores = torch.tensor([0.9, 0.5, 0.1, -0.2])
    shuffled = [2, 0, 3, 1]
    assert interpolated_precision(scores[shuffled], torch.tensor(wanted).bool()[shuffled]) == pytest.approx(area)


def test_a_class_with_too_few_records_is_named() -> None:
    train = clusters(30, 0, 0.1)
    train = bank(train.features[:8], train.labels[:8])
    with pytest.raises(ConfigError, match=r"folds=3 needs .* too few: c \(2\)"):
        svm_precision(train, clusters(30, 1, 0.1), COSTS, folds=3, seed=0)


def test_what_is_missing_is_said_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_sklearn(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    with pytest.raises(ConfigError, match=r"pip install 'eztorch-sce\[svm\]'"):
        svm_precision(clusters(30, 0, 0.1), clusters(30, 1, 0.1), COSTS, folds=3, seed=0)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("costs=[]", r"costs=\[\] must hold at least one number greater than 0"),
        ("costs=[1,-2]", r"costs=\[1,-2\] must be numbers greater than 0"),
        ("folds=1", "folds=1 must be at least 2"),
        ("cost=[1]", "did you mean costs?"),
    ],
)
def test_a_wrong_setting_is_answered_in_words(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compose("svm", ["features=x", override])
