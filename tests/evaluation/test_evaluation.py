"""kNN, linear probe and retrieval on features whose answer is known."""

import pytest
import torch
from torch import Tensor

from eztorch_sce.evaluation.knn import knn_accuracy
from eztorch_sce.evaluation.linear import Probe, linear_probe
from eztorch_sce.evaluation.metrics import top_accuracies
from eztorch_sce.evaluation.retrieval import retrieval
from eztorch_sce.types import FeatureBank


def bank(features: Tensor, labels: list[int]) -> FeatureBank:
    return FeatureBank(features, torch.tensor(labels), [f"{i}.mp4" for i in range(len(labels))], ["a", "b", "c"])


def clusters(count: int, seed: int, noise: float = 0.1) -> FeatureBank:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return bank(torch.eye(3, 8)[labels] + noise * torch.randn(count, 8, generator=generator), labels.tolist())


def slow_knn(train: FeatureBank, test: FeatureBank, k: int, temperature: float) -> float:
    right = 0
    for feature, label in zip(test.features.double(), test.labels, strict=True):
        cosine = [float(feature @ f / feature.norm() / f.norm()) for f in train.features.double()]
        votes = [0.0, 0.0, 0.0]
        for i in sorted(range(len(cosine)), key=lambda i: -cosine[i])[:k]:
            votes[int(train.labels[i])] += float(torch.tensor(cosine[i] / temperature).double().exp())
        right += votes.index(max(votes)) == int(label)
    return right / len(test.labels)


def test_knn_equals_a_loop() -> None:
    train, test = clusters(60, 0, noise=0.6), clusters(40, 1, noise=0.6)
    accuracy = knn_accuracy(train, test, k=7, temperature=0.07)["knn_top1"]
    assert accuracy == pytest.approx(slow_knn(train, test, 7, 0.07))
    assert 0.4 < accuracy < 1  # a case in which something can go wrong


def test_knn_takes_a_bank_smaller_than_k() -> None:
    assert knn_accuracy(clusters(6, 0), clusters(9, 1), k=200, temperature=0.07)["knn_top1"] == 1


def test_recall_counts_queries_with_their_class_among_the_nearest() -> None:
    train = bank(torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1.0]]), [0, 1, 2])
    queries = bank(torch.tensor([[1.0, 0.02], [1.0, 0.01]]), [0, 1])
    metrics = retrieval(train, queries, ranks=(1, 2, 3, 50)).metrics
    assert metrics["R@1_uncentered"] == 0.5
    assert metrics["R@2_uncentered"] == 1
    assert "R@50" not in metrics  # the bank has three


def test_centring_removes_what_all_features_share() -> None:
    generator = torch.Generator().manual_seed(0)
    train, queries = clusters(30, 0), clusters(30, 1)
    offset = 1000 * torch.randn(8, generator=generator)
    shifted = FeatureBank(queries.features + offset, queries.labels, queries.paths, queries.classes)
    plain, moved = retrieval(train, queries).metrics, retrieval(train, shifted).metrics
    assert plain["R@1"] == moved["R@1"] == 1
    assert moved["R@1_uncentered"] < 0.7


def probed(train: FeatureBank, test: FeatureBank, lrs: tuple[float, ...] = (0.3,)) -> dict[str, float]:
    return linear_probe(train, test, Probe(list(lrs), max_epochs=20))


def test_linear_probe_separates_what_is_separable_and_repeats() -> None:
    train, test = clusters(90, 0), clusters(30, 1)
    metrics = probed(train, test)
    assert metrics["linear_top1"] == 1
    assert metrics == probed(train, test)


def test_a_sweep_of_learning_rates_in_one_pass_equals_one_pass_each() -> None:
    train, test = clusters(90, 0), clusters(30, 1)
    train.features += 2 * torch.randn(train.features.shape, generator=torch.Generator().manual_seed(2))
    lrs = (0.001, 0.3, 3.0)
    sweep = probed(train, test, lrs)
    alone = [probed(train, test, (lr,))["linear_top1"] for lr in lrs]
    assert [sweep[f"linear_top1@{lr:g}"] for lr in lrs] == alone
    assert sweep["linear_top1"] == max(alone)
    assert sweep["linear_lr"] == lrs[alone.index(max(alone))]


def test_linear_probe_learns_nothing_from_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = (bank(torch.randn(300, 8, generator=generator), [i % 3 for i in range(300)]) for _ in range(2))
    assert probed(train, test)["linear_top1"] < 0.45


def test_top5_of_a_few_classes_is_one() -> None:
    scores = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
    assert top_accuracies(scores, torch.tensor([2, 1]), "x") == {"x_top1": 0.5, "x_top5": 1.0}


def test_a_bank_survives_its_file(tmp_path: pytest.TempPathFactory) -> None:
    saved = clusters(6, 0)
    saved.save(tmp_path / "bank.pt")  # type: ignore[operator]
    loaded = FeatureBank.load(tmp_path / "bank.pt")  # type: ignore[operator]
    assert torch.equal(loaded.features, saved.features)
    assert loaded.paths == saved.paths
