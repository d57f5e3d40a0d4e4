"""Recall and average precision of retrieval, compared with a loop and with hand computations."""

import pytest
import torch
from torch import Tensor

from eztorch_sce.evaluation import retrieval as retrieval_module
from eztorch_sce.evaluation import search
from eztorch_sce.evaluation.retrieval import average_precisions, retrieval
from eztorch_sce.types import FeatureBank


def feature_bank(features: Tensor, labels: list[int]) -> FeatureBank:
    return FeatureBank(features, torch.tensor(labels), [f"{i}.mp4" for i in range(len(labels))], ["a", "b", "c"])


def clusters(count: int, seed: int) -> FeatureBank:
    """Return three well-separated classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return feature_bank(torch.eye(3, 8)[labels] + 0.1 * torch.randn(count, 8, generator=generator), labels.tolist())


def overlapping(count: int, seed: int) -> FeatureBank:
    """Return three classes of unequal sizes that overlap."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])[torch.randint(6, (count,), generator=generator)]
    return feature_bank(0.3 + torch.eye(3, 8)[labels] + torch.randn(count, 8, generator=generator), labels.tolist())


def slow_ranking(train: FeatureBank, feature: Tensor, label: int, centers: tuple[Tensor, Tensor]) -> list[bool]:
    """Return whether each record of the bank is of the class, nearest first; among ties, other classes rank first."""
    query = feature.double() - centers[1]
    ranked = []
    for row, row_label in zip(train.features.double(), train.labels.tolist(), strict=True):
        key = row - centers[0]
        ranked.append((-float(key.dot(query) / key.norm() / query.norm()), row_label == label))
    return [same_class for _, same_class in sorted(ranked)]


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("max_pairs", [1, 90, 2**24])
def test_retrieval_equals_a_loop(monkeypatch: pytest.MonkeyPatch, max_pairs: int, centered: bool) -> None:
    monkeypatch.setattr(search, "BANK_CHUNK", 7)
    monkeypatch.setattr(search, "QUERY_CHUNK", 3)
    monkeypatch.setattr(retrieval_module, "_MAX_PAIRS", max_pairs)
    train, test = overlapping(60, 0), overlapping(23, 1)
    zero = torch.zeros(8, dtype=torch.float64)
    means = (train.features.double().mean(dim=0), test.features.double().mean(dim=0)) if centered else (zero, zero)
    num_recalled = {1: 0, 5: 0, 10: 0, 20: 0, 50: 0}
    precisions = []
    for feature, label in zip(test.features, test.labels.tolist(), strict=True):
        ranking = slow_ranking(train, feature, label, means)
        for k in num_recalled:
            num_recalled[k] += any(ranking[:k])
        at_hits = [sum(ranking[: place + 1]) / (place + 1) for place, hit in enumerate(ranking) if hit]
        precisions.append(sum(at_hits) / len(at_hits))
    metrics = retrieval(train, test).metrics
    suffix = "" if centered else "_uncentered"
    for k, count in num_recalled.items():
        assert metrics[f"R@{k}{suffix}"] == pytest.approx(count / 23)
    assert metrics[f"mAP{suffix}"] == pytest.approx(sum(precisions) / 23)
    assert average_precisions(train, test, centered).tolist() == pytest.approx(precisions)
    assert 0.2 < metrics["R@1"] < 0.9  # hard enough for mistakes to show


def test_similarities_within_a_class_are_the_same_without_waits() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, queries = torch.randint(3, (50,), generator=generator), torch.tensor([2, 0, 1, 2])
    similarity, same_class = torch.randn(4, 50, generator=generator), queries[:, None] == labels
    numbers = (torch.nn.functional.one_hot(labels).cumsum(dim=0) - 1).gather(1, labels[:, None]).flatten()
    first, second = torch.full((2, 4, 51), torch.inf)
    retrieval_module._keep_own(first, numbers, same_class, similarity)
    retrieval_module._keep_own_without_waits(second, numbers, same_class, similarity)
    assert torch.equal(first[:, :-1], second[:, :-1])


def test_recall_counts_queries_with_their_class_among_the_nearest() -> None:
    train = feature_bank(torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1.0]]), [0, 1, 2])
    queries = feature_bank(torch.tensor([[1.0, 0.02], [1.0, 0.01]]), [0, 1])
    metrics = retrieval(train, queries, ranks=(1, 2, 3, 50)).metrics
    assert metrics["R@1_uncentered"] == 0.5
    assert metrics["R@2_uncentered"] == 1
    assert not {"R@3", "R@50"} & metrics.keys()  # the bank has three records, which every query finds


def test_centering_removes_an_offset_that_hides_the_classes() -> None:
    train, queries = clusters(30, 0), clusters(30, 1)
    offset = 1000 * torch.randn(8, generator=torch.Generator().manual_seed(0))
    moved = feature_bank(queries.features + offset, queries.labels.tolist())
    plain, shifted = retrieval(train, queries).metrics, retrieval(train, moved).metrics
    assert plain["R@1"] == shifted["R@1"] == 1
    assert shifted["R@1_uncentered"] < 0.7


def test_average_precision_by_hand() -> None:
    angles = torch.tensor([0.1, 0.2, 0.3, 0.4])
    train = feature_bank(torch.stack([angles.cos(), angles.sin()], dim=1), [0, 1, 0, 1])
    test = feature_bank(torch.tensor([[1.0, 0.0]] * 3), [0, 1, 2])
    expected = [(1 / 1 + 2 / 3) / 2, (1 / 2 + 2 / 4) / 2, 0]  # the bank has no record of the third class
    assert average_precisions(train, test).tolist() == pytest.approx(expected)


def test_identical_features_gain_nothing_from_the_order_of_files() -> None:
    row = torch.tensor([[0.1, 0.7, 0.3]])
    train, test = feature_bank(row.expand(4, 3), [0, 1, 0, 1]), feature_bank(row, [0])
    assert average_precisions(train, test).item() == pytest.approx((1 / 3 + 2 / 4) / 2)  # other classes rank first


def test_metrics_by_class_by_hand() -> None:
    train = feature_bank(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]), [0, 1, 0, 1])
    test = feature_bank(torch.tensor([[1.0, 0.1], [-1.0, -0.1], [1.0, 0.2], [-1.0, -0.2]]), [0, 0, 1, 1])
    by_class = retrieval(train, test).by_class  # both means are 0
    assert list(by_class) == ["a", "b"]  # no query is of class c
    first, second = (1 + 2 / 4) / 2, (1 / 2 + 2 / 3) / 2  # their class is at ranks 1 and 4, and at 2 and 3
    assert by_class["a"] == {"queries": 2, "R@1": 1.0, "AP": pytest.approx(first)}
    assert by_class["b"] == {"queries": 2, "R@1": 0.0, "AP": pytest.approx(second)}
