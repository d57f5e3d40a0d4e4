"""Support vector machines and their precision on features with a known result."""

import builtins
from typing import Any

import pytest
import torch
from torch import Tensor

from eztorch_sce.config.compose import compose
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation import svm
from eztorch_sce.evaluation.svm import SvmConfig, interpolated_precision, svm_precision
from eztorch_sce.settings import invalid_settings
from eztorch_sce.types import FeatureBank

COSTS = [0.1, 1.0, 10.0]


def feature_bank(features: Tensor, labels: Tensor) -> FeatureBank:
    return FeatureBank(features, labels, [f"{i}.mp4" for i in range(len(labels))], ["a", "b", "c"])


def clusters(count: int, seed: int, noise: float) -> FeatureBank:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return feature_bank(torch.eye(3, 8)[labels] + noise * torch.randn(count, 8, generator=generator), labels)


def test_separable_classes_are_ranked_perfectly() -> None:
    scores = svm_precision(clusters(60, 0, 0.05), clusters(30, 1, 0.05), COSTS, folds=3, seed=0)
    assert scores.metrics == {"svm_mAP": 1.0}
    assert [(name, row["queries"], row["AP"]) for name, row in scores.by_class.items()] == [
        ("a", 10, 1.0),
        ("b", 10, 1.0),
        ("c", 10, 1.0),
    ]


def test_the_length_of_features_does_not_matter() -> None:
    train, test = clusters(90, 0, 0.6), clusters(31, 1, 0.6)
    longer_train = feature_bank(train.features * torch.linspace(0.1, 9, 90)[:, None], train.labels)
    longer_test = feature_bank(test.features * torch.linspace(0.1, 9, 31)[:, None], test.labels)
    plain = svm_precision(train, test, COSTS, folds=3, seed=0).metrics["svm_mAP"]
    assert 0.5 < plain < 1
    scaled = svm_precision(longer_train, longer_test, COSTS, folds=3, seed=0).metrics["svm_mAP"]
    assert scaled == pytest.approx(plain, abs=1e-3)


def test_the_metric_is_the_mean_over_the_classes() -> None:
    scores = svm_precision(clusters(90, 0, 0.6), clusters(31, 1, 0.6), COSTS, folds=3, seed=0)
    assert scores.metrics["svm_mAP"] == pytest.approx(sum(row["AP"] for row in scores.by_class.values()) / 3)


def test_a_cost_that_learns_nothing_is_not_chosen() -> None:
    train, test = clusters(90, 0, 0.3), clusters(30, 1, 0.3)
    train.features[:, 0] *= 100  # the features that separate b and c are small compared with this one
    by_class = svm_precision(train, test, [1e-7, 10.0], folds=3, seed=0).by_class
    assert by_class["b"]["cost"] == by_class["c"]["cost"] == 10


@pytest.mark.parametrize(
    ("is_class", "area"),
    [
        ([1, 1, 0, 0], 1.0),
        ([0, 0, 1, 1], 1 / 2),  # 1/3 and 2/4: the higher of the two counts for both
        ([1, 0, 0, 1], (1 + 2 / 4) / 2),
        ([0, 1, 1, 0], 2 / 3),  # 1/2 and 2/3
    ],
)
def test_interpolated_precision_by_hand(is_class: list[int], area: float) -> None:
    scores = torch.tensor([0.9, 0.5, 0.1, -0.2])
    order = [2, 0, 3, 1]
    assert interpolated_precision(scores[order], torch.tensor(is_class).bool()[order]) == pytest.approx(area)


def test_a_class_with_too_few_records_is_named() -> None:
    train = clusters(30, 0, 0.1)
    train = feature_bank(train.features[:8], train.labels[:8])
    with pytest.raises(ConfigError, match=r"folds=3 needs at least 3 train records of each class; too few: c \(2\)"):
        svm_precision(train, clusters(30, 1, 0.1), COSTS, folds=3, seed=0)


def test_a_single_class_raises_config_error() -> None:
    train = feature_bank(torch.randn(6, 8), torch.zeros(6, dtype=torch.long))
    with pytest.raises(ConfigError, match="the train split has only one"):
        svm_precision(train, train, COSTS, folds=3, seed=0)


def test_missing_scikit_learn_is_reported_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = builtins.__import__

    def import_without_sklearn(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return import_module(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", import_without_sklearn)
    with pytest.raises(ConfigError, match=r"pip install 'eztorch-sce\[svm\]'"):
        svm_precision(clusters(30, 0, 0.1), clusters(30, 1, 0.1), COSTS, folds=3, seed=0)


def test_missing_scikit_learn_is_reported_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "find_spec", lambda name: None)
    assert invalid_settings(SvmConfig(features="x")) == ["svm needs scikit-learn: pip install 'eztorch-sce[svm]'"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("costs=[]", r"costs=\[\] must hold at least one number greater than 0"),
        ("costs=[1,-2]", r"costs=\[1,-2\] must be numbers greater than 0"),
        ("folds=1", "folds=1 must be at least 2"),
        ("cost=[1]", "did you mean costs?"),
    ],
)
def test_an_invalid_setting_is_explained(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose("svm", ["features=x", override])
