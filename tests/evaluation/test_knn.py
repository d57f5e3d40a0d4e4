"""k nearest neighbors compared with a loop, on banks smaller than k, and with centering."""

import math

import pytest
import torch
from torch import Tensor

from eztorch_sce.evaluation.knn import KnnConfig, knn_accuracy
from eztorch_sce.evaluation.search import CPU
from eztorch_sce.types import FeatureBank


def feature_bank(features: Tensor, labels: Tensor) -> FeatureBank:
    return FeatureBank(features, labels, [f"{i}.mp4" for i in range(len(labels))], ["a", "b", "c"])


def clusters(count: int, seed: int, noise: float = 0.1) -> FeatureBank:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return feature_bank(torch.eye(3, 8)[labels] + noise * torch.randn(count, 8, generator=generator), labels)


def cosine(x: list[float], y: list[float]) -> float:
    product = math.fsum(a * b for a, b in zip(x, y, strict=True))
    return product / math.sqrt(math.fsum(a * a for a in x) * math.fsum(b * b for b in y))


def less_mean(rows: list[list[float]]) -> list[list[float]]:
    means = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
    return [[x - mean for x, mean in zip(row, means, strict=True)] for row in rows]


def slow_knn(train: FeatureBank, test: FeatureBank, k: int, temperature: float, centered: bool) -> float:
    """Return the top-1 accuracy in Python floats."""
    rows, queries = train.features.tolist(), test.features.tolist()
    if centered:
        rows, queries = less_mean(rows), less_mean(queries)
    num_correct = 0
    for query, label in zip(queries, test.labels.tolist(), strict=True):
        cosines = [cosine(query, row) for row in rows]
        votes = [0.0, 0.0, 0.0]
        for i in sorted(range(len(rows)), key=lambda i: -cosines[i])[:k]:
            votes[int(train.labels[i])] += math.exp(cosines[i] / temperature)
        num_correct += votes.index(max(votes)) == label
    return num_correct / len(queries)


@pytest.mark.parametrize("centered", [False, True])
def test_knn_equals_a_loop(centered: bool) -> None:
    train, test = clusters(60, 0, noise=0.6), clusters(40, 1, noise=0.6)
    accuracy = knn_accuracy(train, test, k=7, temperature=0.07, centered=centered)["knn_top1"]
    assert accuracy == pytest.approx(slow_knn(train, test, 7, 0.07, centered))
    assert 0.4 < accuracy < 1  # hard enough for mistakes to show


def test_all_records_of_a_bank_smaller_than_k_vote() -> None:
    assert knn_accuracy(clusters(6, 0), clusters(9, 1), k=200, temperature=0.07)["knn_top1"] == 1


def test_a_class_without_a_vote_is_not_among_the_five() -> None:
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6])
    train = FeatureBank(torch.eye(7), labels, [""] * 7, list("abcdefg"))
    test = FeatureBank(torch.eye(7)[[0, 1, 1]], torch.tensor([0, 1, 2]), [""] * 3, list("abcdefg"))
    assert knn_accuracy(train, test, k=1, temperature=0.07) == pytest.approx({"knn_top1": 2 / 3, "knn_top5": 2 / 3})


def test_centering_removes_an_offset_that_hides_the_classes() -> None:
    """Cosines between features far from the origin are nearly equal, unless each split is centered by its own mean."""
    offset = 1000 * torch.randn(8, generator=torch.Generator().manual_seed(0))
    train, test = clusters(60, 0), clusters(30, 1)
    moved = feature_bank(test.features + offset, test.labels)
    plain = KnnConfig().evaluate(train, test, CPU).metrics
    shifted = KnnConfig().evaluate(train, moved, CPU).metrics
    assert plain["knn_top1"] == plain["knn_top1_centered"] == shifted["knn_top1_centered"] == 1
    assert shifted["knn_top1"] < 0.7


def test_plain_and_centered_accuracies_have_their_own_names() -> None:
    train, test = clusters(60, 0, noise=0.6), clusters(40, 1, noise=0.6)
    metrics = KnnConfig(k=7).evaluate(train, test, CPU).metrics
    plain = knn_accuracy(train, test, k=7, temperature=0.07)
    centered = knn_accuracy(train, test, k=7, temperature=0.07, centered=True)
    assert metrics == {
        "knn_top1": plain["knn_top1"],
        "knn_top5": plain["knn_top5"],
        "knn_top1_centered": centered["knn_top1"],
        "knn_top5_centered": centered["knn_top5"],
    }
