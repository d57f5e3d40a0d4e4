"""Recall and average precision of retrieval: against a loop, by hand, and by class."""

import pytest
import torch
from torch import Tensor

from eztorch_sce.evaluation import retrieval as module
from eztorch_sce.evaluation import search
from eztorch_sce.evaluation.retrieval import average_precisions, retrieval
from eztorch_sce.types import FeatureBank


def bank(features: Tensor, labels: list[int]) -> FeatureBank:
    return FeatureBank(features, torch.tensor(labels), [f"{i}.mp4" for i in range(len(labels))], ["a", "b", "c"])


def noisy(count: int, seed: int) -> FeatureBank:
    """Return three classes of unlike sizes that overlap."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])[torch.randint(6, (count,), generator=generator)]
    return bank(0.3 + torch.eye(3, 8)[labels] + torch.randn(count, 8, generator=generator), labels.tolist())


def slow_ranking(train: FeatureBank, feature: Tensor, label: int, centers: tuple[Tensor, Tensor]) -> list[bool]:
    """Return whether each record of the bank is of the class, the nearest first, the wrong one before its equal."""
    query = feature.double() - centers[1]
    ranked = []
    for row, own in zip(train.features.double(), train.labels.tolist(), strict=True):
        key = row - centers[0]
        ranked.append((-float(key.dot(query) / key.norm() / query.norm()), own == label))
    return [right for _, right in sorted(ranked)]


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("max_pairs", [1, 90, 2**24])
def test_retrieval_equals_a_loop(monkeypatch: pytest.MonkeyPatch, max_pairs: int, centered: bool) -> None:
    monkeypatch.setattr(search, "BANK_CHUNK", 7)
    monkeypatch.setattr(search, "QUERY_CHUNK", 3)
    monkeypatch.setattr(module, "_MAX_PAIRS", max_pairs)
    train, test = noisy(50, 0), noisy(23, 1)
    zero = torch.zeros(8, dtype=torch.float64)
    means = (train.features.double().mean(dim=0), test.features.double().mean(dim=0)) if centered else (zero, zero)
    recalled = {1: 0, 5: 0, 10: 0, 20: 0, 50: 0}
    precisions = []
    for feature, label in zip(test.features, test.labels.tolist(), strict=True):
        ranking = slow_ranking(train, feature, label, means)
        for k in recalled:
            recalled[k] += any(ranking[:k])
        down_to = [sum(ranking[: place + 1]) / (place + 1) for place, right in enumerate(ranking) if right]
        precisions.append(sum(down_to) / len(down_to))
    metrics = retrieval(train, test).metrics
    suffix = "" if centered else "_uncentered"
    for k, count in recalled.items():
        assert metrics[f"R@{k}{suffix}"] == pytest.approx(count / 23)
    assert metrics[f"mAP{suffix}"] == pytest.approx(sum(precisions) / 23)
    assert average_precisions(train, test, centered).tolist() == pytest.approx(precisions)
    assert 0.2 < metrics["R@1"] < 0.9  # a case in which something can go wrong


def test_average_precision_by_hand() -> None:
    angles = torch.tensor([0.1, 0.2, 0.3, 0.4])
    train = bank(torch.stack([angles.cos(), angles.sin()], dim=1), [0, 1, 0, 1])
    test = bank(torch.tensor([[1.0, 0.0]] * 3), [0, 1, 2])
    right = [(1 / 1 + 2 / 3) / 2, (1 / 2 + 2 / 4) / 2, 0]  # nothing in the bank is of the third class
    assert average_precisions(train, test).tolist() == pytest.approx(right)


def test_features_that_are_all_alike_earn_nothing_by_the_order_of_files() -> None:
    alike = torch.tensor([[0.1, 0.7, 0.3]])
    train, test = bank(alike.expand(4, 3), [0, 1, 0, 1]), bank(alike, [0])
    assert average_precisions(train, test).item() == pytest.approx((1 / 3 + 2 / 4) / 2)  # the wrong ones come first


def test_by_class_by_hand() -> None:
    train = bank(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]), [0, 1, 0, 1])
    test = bank(torch.tensor([[1.0, 0.1], [-1.0, -0.1], [1.0, 0.2], [-1.0, -0.2]]), [0, 0, 1, 1])  # both means are 0
    by_class = retrieval(train, test).by_class
    assert list(by_class) == ["a", "b"]  # there is no query of c
    first, last = (1 + 2 / 4) / 2, (1 / 2 + 2 / 3) / 2  # own class at 1 and 4, at 2 and 3
    assert by_class["a"] == {"queries": 2, "R@1": 1.0, "AP": pytest.approx(first)}
    assert by_class["b"] == {"queries": 2, "R@1": 0.0, "AP": pytest.approx(last)}
