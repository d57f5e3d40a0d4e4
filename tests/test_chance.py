"""Tests of chance levels: against rankings and guesses drawn at random."""

import numpy as np
import pytest
import torch

from eztorch_sce.chance import Chance, chance_levels
from eztorch_sce.evaluation.retrieval import retrieval
from eztorch_sce.types import FeatureBank

TRAIN, TEST = [0] * 6 + [1] * 3 + [2] * 1, [0] * 2 + [1] * 4 + [2] * 2


def test_chance_of_retrieval_is_the_mean_of_random_rankings() -> None:
    generator = torch.Generator().manual_seed(0)
    totals: dict[str, float] = {}
    for _ in range(300):
        bank, queries = (
            FeatureBank(
                torch.randn(len(labels), 8, generator=generator), torch.tensor(labels), [""] * len(labels), list("abc")
            )
            for labels in (TRAIN, TEST)
        )
        metrics = retrieval(bank, queries, ranks=(1, 5)).metrics
        totals = {name: totals.get(name, 0) + value / 300 for name, value in metrics.items()}
    levels = chance_levels(totals, TRAIN, TEST, num_classes=3)
    assert levels.keys() == totals.keys()
    for name, chance in levels.items():
        assert chance.level == pytest.approx(totals[name], abs=0.03)
        assert chance.records == 8
    assert levels["R@1"].level == pytest.approx((2 * 0.6 + 4 * 0.3 + 2 * 0.1) / 8)


def test_chance_of_an_accuracy_is_one_of_the_classes_and_names_a_larger_class() -> None:
    levels = chance_levels(["knn_top1_centered", "knn_top5", "linear_train_top1"], TRAIN, TEST, num_classes=3)
    assert levels["knn_top1_centered"] == Chance(1 / 3, 8, largest_class=0.5)
    assert levels["knn_top5"] == Chance(1.0, 8)
    assert levels["linear_train_top1"] == Chance(1 / 3, 10, largest_class=0.6, split="train")
    balanced = chance_levels(["test_top1", "linear_top1@0.1"], TRAIN, [0, 1, 2], num_classes=3)
    assert list(balanced.values()) == [Chance(1 / 3, 3)] * 2


def test_chance_of_few_shot_tasks_depends_on_their_classes() -> None:
    names = ["few_shot_top1", "few_shot_ci95"]
    assert chance_levels(names, TRAIN, TEST, num_classes=3, ways=2) == {"few_shot_top1": Chance(0.5, 8)}


def test_chance_of_a_class_without_train_records_is_zero() -> None:
    levels = chance_levels(["R@1", "mAP"], [0, 0], [1, 1], num_classes=2)
    assert [chance.level for chance in levels.values()] == [0, 0]
    assert np.isfinite(chance_levels(["mAP", "R@5"], [0], [0], num_classes=1)["mAP"].level)


def test_the_chance_of_svm_is_the_mean_precision_of_random_scores() -> None:
    level = chance_levels(["svm_mAP"], TRAIN, [0] * 100 + [1] * 100, num_classes=3)["svm_mAP"].level
    assert level == pytest.approx(0.5, abs=0.02)
