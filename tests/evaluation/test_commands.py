"""Tests of the commands on features in files, and contract tests of every registered evaluation."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from eztorch_sce import api, registry
from eztorch_sce.cli import main
from eztorch_sce.config.compose import compose
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.base import EvaluationConfig, Scores
from eztorch_sce.registry import choices, register
from eztorch_sce.settings import setting
from eztorch_sce.types import FeatureBank

# Settings and a metric of each evaluation that suit the features below.
SETTINGS = {"knn": ["k=100"], "svm": ["costs=[1,10]"], "few-shot": ["ways=3", "shots=2", "episodes=10"]}
METRICS = {
    "few-shot": "few_shot_top1",
    "knn": "knn_top1",
    "linear": "linear_top1",
    "retrieve": "mAP",
    "svm": "svm_mAP",
}


def write_features(folder: Path, labeled: bool = True) -> Path:
    """Write features like `extract`: 12 train and 7 test records of three well-separated classes."""
    for seed, (split, count) in enumerate((("train", 12), ("test", 7))):
        labels = torch.arange(count) % 3
        noise = 0.01 * torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
        bank = FeatureBank(torch.eye(3, 4)[labels] + noise, labels, [""] * count, ["a", "b", "c"], {"clips": 10})
        if not labeled:
            bank.labels = torch.full_like(labels, -1)
        bank.save(folder / f"features_{split}.pt")
    return folder


def composed(name: str, folder: Path, *settings: str) -> EvaluationConfig:
    """Return the config of an evaluation of the features in a folder, with `run` in the folder as run directory."""
    overrides = [f"features={folder}", f"run.dir={folder / 'run'}", "accelerator=cpu", *settings]
    config: EvaluationConfig = compose(name, overrides)
    return config


@pytest.mark.parametrize("name", choices("evaluation"))
def test_every_evaluation_scores_separable_features_perfectly(name: str, tmp_path: Path) -> None:
    config = composed(name, write_features(tmp_path), *SETTINGS.get(name, []))
    report = api.evaluate(config)
    written = json.loads((tmp_path / "run/report.json").read_text())
    assert written["command"] == name
    assert written["metrics"] == report.metrics
    assert written["protocol"]["clips"] == written["protocol"]["train"]["clips"] == 10
    assert report.metrics[METRICS[name]] == 1
    chance = written["chance"][METRICS[name]]
    assert chance["records"] == 7
    assert 0 < chance["level"] < 0.6
    assert written["intervals"][METRICS[name]] == [1, 1]
    assert not any("top5" in metric or metric.startswith("R@50") for metric in written["metrics"])  # of three classes
    sample = torch.load(tmp_path / "run/sample.pt", weights_only=True)
    assert sample["index"].tolist() == [*range(12), *range(7)]
    assert json.loads((tmp_path / "evaluations.json").read_text()) == ["run"]


@pytest.mark.parametrize("name", sorted(choices("evaluation").keys() - {"few-shot"}))
def test_every_evaluation_but_few_shot_predicts_each_record(name: str, tmp_path: Path) -> None:
    api.evaluate(composed(name, write_features(tmp_path), *SETTINGS.get(name, [])))
    with (tmp_path / "run/predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["index"], row["label"], row["prediction"]) for row in rows] == [
        (str(number), "abc"[number % 3], "abc"[number % 3]) for number in range(7)
    ]
    searches = name in ("knn", "retrieve")
    assert ("nearest_5" in rows[0]) == ("nearest_index_5" in rows[0]) == searches
    if searches:  # the four train records of the class come before those of others
        nearest = [[int(row[f"nearest_index_{place}"]) for place in range(1, 6)] for row in rows]
        assert all({each % 3 for each in near[:4]} == {number % 3} for number, near in enumerate(nearest))
    assert (tmp_path / "run/confusion.csv").read_text().splitlines() == ["class,a,b,c", "a,3,0,0", "b,0,2,0", "c,0,0,2"]
    assert len((tmp_path / "run/worst.csv").read_text().splitlines()) == 1  # the header


@pytest.mark.parametrize("name", choices("evaluation"))
def test_every_evaluation_requires_labels(name: str, tmp_path: Path) -> None:
    config = composed(name, write_features(tmp_path, labeled=False))
    with pytest.raises(ConfigError, match="records without labels; extract them from labeled data"):
        api.evaluate(config)
    assert not (tmp_path / "run").exists()


def test_the_report_names_the_settings_of_an_evaluation(tmp_path: Path) -> None:
    report = api.knn(composed("knn", write_features(tmp_path), "k=3"))  # type: ignore[arg-type]
    assert report.protocol["k"] == 3
    assert report.protocol["temperature"] == 0.07
    assert "weights" not in report.protocol


@pytest.mark.parametrize(
    ("name", "columns"), [("retrieve", ["queries", "R@1", "AP"]), ("svm", ["queries", "AP", "cost"])]
)
def test_by_class_csv_has_a_row_for_each_class(name: str, columns: list[str], tmp_path: Path) -> None:
    api.evaluate(composed(name, write_features(tmp_path)))
    with (tmp_path / "run/by_class.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["class", *columns]
    assert [(row["class"], row["queries"], float(row["AP"])) for row in rows] == [
        ("a", "3", 1),
        ("b", "2", 1),
        ("c", "2", 1),
    ]


def test_the_chance_level_and_the_number_of_test_records_stand_beside_an_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_features(tmp_path)
    for run_dir in ("a", "b"):
        main(["knn", f"features={tmp_path}", f"run.dir={tmp_path / run_dir}"])
    printed = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")] for line in printed]
    assert ["metric", "value", "better", "chance", "class"] in cells  # "largest" is above
    assert ["knn_top1", "1.000 [1.00, 1.00]", "higher", "0.333", "0.429"] in cells
    assert "measured on 7 test records" in printed
    assert not any("top5" in line for line in printed)  # of three classes
    main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    words = capsys.readouterr().out.replace("│", " ").split()
    assert words.count("0.333") == words.count("0.429") == 2  # in one column, since the runs agree
    assert words.count("[1.00,") == words.count("1.000") == 4
    assert "better" in words


def test_missing_features_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features_train\.pt does not exist; give the run directory of `extract`"):
        api.evaluate(composed("knn", tmp_path))


def test_damaged_features_are_reported(tmp_path: Path) -> None:
    bank = FeatureBank(torch.rand(8, 4), torch.arange(8) % 2, list("abcdefgh"), ["a", "b"])
    for split in ("train", "test"):
        bank.save(tmp_path / f"features_{split}.pt")
    data = bytearray((tmp_path / "features_train.pt").read_bytes())
    place = data.find(bank.features.numpy().tobytes())
    data[place + 9] ^= 4
    (tmp_path / "features_train.pt").write_bytes(data)
    message = r"features_train\.pt is damaged \(the checksum .* differs\); run `extract` again"
    with pytest.raises(ConfigError, match=message):
        api.evaluate(composed("knn", tmp_path))
    torch.save({"else": 1}, tmp_path / "features_train.pt")
    with pytest.raises(ConfigError, match=r"features_train\.pt is damaged \(it holds no features\)"):
        api.evaluate(composed("knn", tmp_path))


@dataclass
class NearestMeanConfig(EvaluationConfig):
    """Classify by the nearest class mean."""

    scale: float = setting(1.0, above=0, help="Factor on the test features.")

    def evaluate(self, train: FeatureBank, test: FeatureBank, device: torch.device) -> Scores:
        means = torch.stack([train.features[train.labels == label].mean(dim=0) for label in range(len(train.classes))])
        nearest = torch.cdist(self.scale * test.features, means).argmin(dim=1)
        hits = (nearest == test.labels).float()
        by_class = {name: {"top1": float(hits[test.labels == n].mean())} for n, name in enumerate(test.classes)}
        return Scores({"nearest_mean_top1": float(hits.mean())}, by_class)


@pytest.fixture
def nearest_mean() -> Iterator[type[NearestMeanConfig]]:
    """Register an evaluation for the duration of a test."""
    choices("evaluation")
    yield register("evaluation", "nearest-mean")(NearestMeanConfig)
    del registry._CHOICES["evaluation"]["nearest-mean"]


def test_a_newly_registered_evaluation_runs_like_the_others(
    nearest_mean: type[NearestMeanConfig], tmp_path: Path
) -> None:
    config = nearest_mean(features=str(write_features(tmp_path)), accelerator="cpu", scale=2.0)
    config.run.dir = str(tmp_path / "run")
    report = api.evaluate(config)
    assert report.command == "nearest-mean"
    assert report.metrics == {"nearest_mean_top1": 1.0}
    assert report.intervals == {}
    assert not (tmp_path / "run/predictions.csv").exists()
    assert report.protocol["scale"] == 2
    assert (tmp_path / "run/by_class.csv").read_text().splitlines() == ["class,top1", "a,1.0", "b,1.0", "c,1.0"]
    with pytest.raises(ConfigError, match="scale=-1 must be greater than 0"):
        api.evaluate(nearest_mean(features=str(tmp_path), scale=-1))


def test_evaluations_import_neither_lightning_nor_other_heavy_packages() -> None:
    heavy = ["pytorch_lightning", "torchvision", "torchmetrics", "sklearn"]
    program = (
        "import sys\n"
        "from eztorch_sce.registry import choices\n"
        "choices('evaluation')\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("few-shot", ["ways=4", "shots=2"], "ways=4 is more than the 3 classes"),
        ("svm", ["folds=9"], "folds=9 needs at least 9 train records of each class"),
    ],
)
def test_an_evaluation_that_needs_more_records_stops_before_a_run_is_written(
    name: str, settings: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        api.evaluate(composed(name, write_features(tmp_path), *settings))
    assert not (tmp_path / "run").exists()


def test_a_sweep_of_learning_rates_on_too_few_records_stops_before_a_run_is_written(tmp_path: Path) -> None:
    folder = write_features(tmp_path)
    train = FeatureBank.load(folder / "features_train.pt")
    FeatureBank(train.features[:3].clone(), train.labels[:3].clone(), [""] * 3, train.classes).save(
        folder / "features_train.pt"
    )
    with pytest.raises(ConfigError, match="no class of the train split has two records"):
        api.evaluate(composed("linear", folder, "lrs=[1]"))
    assert not (tmp_path / "run").exists()
