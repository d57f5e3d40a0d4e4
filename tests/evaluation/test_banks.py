"""Features that cannot be scored are refused by name, before anything is scored."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from eztorch_sce import api
from eztorch_sce.config.compose import compose
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation import banks
from eztorch_sce.evaluation.banks import check_banks
from eztorch_sce.evaluation.few_shot import few_shot_accuracy
from eztorch_sce.evaluation.knn import knn_accuracy
from eztorch_sce.evaluation.linear import Probe, linear_probe
from eztorch_sce.evaluation.retrieval import retrieval
from eztorch_sce.evaluation.svm import svm_precision
from eztorch_sce.registry import choices
from eztorch_sce.types import FeatureBank

SCORE: dict[str, Callable[[FeatureBank, FeatureBank], object]] = {
    "few-shot": lambda train, test: few_shot_accuracy(train, test, ways=3, shots=2, queries=5, episodes=2, seed=0),
    "knn": lambda train, test: knn_accuracy(train, test, k=3, temperature=0.07),
    "linear": lambda train, test: linear_probe(train, test, Probe(max_epochs=20)),
    "retrieve": retrieval,
    "svm": lambda train, test: svm_precision(train, test, [1.0], folds=3, seed=0),
}


def bank(split: str, count: int = 12) -> FeatureBank:
    """Return well-separated records of three classes."""
    labels = torch.arange(count) % 3
    noise = 0.01 * torch.randn(count, 4, generator=torch.Generator().manual_seed(count))
    paths = [f"{split}/{number}.mp4" for number in range(count)]
    return FeatureBank(torch.eye(3, 4)[labels] + noise, labels, paths, ["a", "b", "c"])


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", SCORE)
def test_features_that_are_not_finite_are_refused_by_name(name: str, value: float, split: str) -> None:
    splits = {"train": bank("train"), "test": bank("test")}
    splits[split].features[[4, 7], 2] = value
    message = rf"the {split} split has NaN or infinite features \(2 of 12: {split}/4.mp4, {split}/7.mp4\)"
    with pytest.raises(ConfigError, match=message):
        SCORE[name](splits["train"], splits["test"])


@pytest.mark.parametrize("name", choices("evaluation"))
def test_every_command_refuses_features_in_files_before_it_writes_a_run(name: str, tmp_path: Path) -> None:
    train, test = bank("train"), bank("test")
    test.features[3] = torch.nan
    train.save(tmp_path / "features_train.pt")
    test.save(tmp_path / "features_test.pt")
    config = compose(name, [f"features={tmp_path}", f"run.dir={tmp_path / 'run'}", "accelerator=cpu"])
    with pytest.raises(ConfigError, match=rf"features={tmp_path}: the test split has NaN.*test/3.mp4"):
        api.evaluate(config)
    assert not (tmp_path / "run").exists()


def test_a_bank_of_several_chunks_is_checked_to_its_last_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(banks, "_CHUNK", 5)
    train = bank("train")
    train.features[[2, 11], 0] = torch.nan
    with pytest.raises(ConfigError, match=r"2 of 12: train/2.mp4, train/11.mp4"):
        check_banks(train, bank("test"))


def test_a_network_that_returns_nan_everywhere_is_blamed_instead_of_the_files() -> None:
    train, test = bank("train"), bank("test")
    train.features *= torch.nan
    with pytest.raises(ConfigError, match=r"12 of 12: train/0.mp4, .* and 9 more\): check the weights of the network"):
        check_banks(train, test)


def broken(change: str) -> tuple[FeatureBank, FeatureBank]:
    train, test = bank("train"), bank("test", 9)
    if change == "classes":
        test.classes = ["a", "b", "dog"]
    elif change == "order":
        test.classes = ["b", "a", "c"]
    elif change == "width":
        test.features = test.features[:, :3]
    elif change == "beyond":
        test.labels[5] = 3
    elif change == "unlabeled":
        train.labels[5] = -1
    elif change == "empty":
        test = bank("test", 0)
    elif change == "labels":
        train.labels = train.labels[:-1]
    else:
        train.protocol["weights"] = {"file": "runs/a", "sha256": "12"}
        test.protocol["weights"] = {"file": "runs/b", "sha256": "34"}
    return train, test


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("classes", r"1 classes are only in train \(c\) and 1 classes are only in test \(dog\); both splits need the"),
        ("order", "train and test have the same classes in another order"),
        ("width", "4 features per record in train and 3 in test; extract both splits with the same network"),
        ("beyond", r"the test split has labels up to 3 but 3 classes \(1 of 9: test/5.mp4\)"),
        ("unlabeled", r"the train split has records without labels; .*\(1 of 12: train/5.mp4\)"),
        ("empty", "the test split has no records"),
        ("labels", "the train split has features of shape 12 x 4, 11 labels and 12 paths: extract the features again"),
        ("weights", r"the splits come from different weights \(runs/a and runs/b\)"),
    ],
)
@pytest.mark.parametrize("name", SCORE)
def test_splits_that_do_not_fit_together_are_refused(name: str, change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SCORE[name](*broken(change))


@pytest.mark.parametrize("scale", [1e-25, 1e-8, 1e8, 1e25])
@pytest.mark.parametrize("name", SCORE)
def test_the_scale_of_the_features_does_not_matter(name: str, scale: float) -> None:
    """Squares of the smallest and largest of these features leave the range of float32."""
    train, test = bank("train"), bank("test", 9)
    train.features, test.features = train.features * scale, test.features * scale
    scores = SCORE[name](train, test)
    metrics = scores if isinstance(scores, dict) else scores.metrics  # type: ignore[attr-defined]
    assert next(iter(metrics.values())) == 1


@pytest.mark.parametrize("name", SCORE)
def test_a_record_with_all_features_zero_is_scored_without_nan(name: str) -> None:
    train, test = bank("train"), bank("test", 9)
    train.features[0], test.features[4] = 0, 0
    scores = SCORE[name](train, test)
    metrics = scores if isinstance(scores, dict) else scores.metrics  # type: ignore[attr-defined]
    assert all(0 <= value <= 1 for value in metrics.values())
