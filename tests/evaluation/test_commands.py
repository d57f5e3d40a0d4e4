"""The commands on features in files: what they write, and what they answer to features that do not fit."""

import csv
import json
from pathlib import Path

import pytest
import torch

from eztorch_sce import api
from eztorch_sce.config.compose import compose
from eztorch_sce.errors import ConfigError
from eztorch_sce.types import FeatureBank


def save(folder: Path, labeled: bool = True) -> Path:
    """Write features whose classes stand apart, as `extract` does: 12 and 7 records of three classes."""
    for seed, (part, count) in enumerate((("train", 12), ("test", 7))):
        labels = torch.arange(count) % 3
        noise = 0.01 * torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
        features = FeatureBank(torch.eye(3, 4)[labels] + noise, labels, [""] * count, ["a", "b", "c"], {"clips": 10})
        if not labeled:
            features.labels = torch.full_like(labels, -1)
        features.save(folder / f"features_{part}.pt")
    return folder


@pytest.mark.parametrize(
    ("command", "settings", "metric"),
    [
        ("knn", ["k=100"], "knn_top1"),
        ("retrieve", [], "mAP"),
        ("svm", ["costs=[1,10]"], "svm_mAP"),
        ("few-shot", ["ways=3", "shots=2", "episodes=10"], "few_shot_top1"),
    ],
)
def test_a_command_reads_features_and_writes_its_report(
    command: str, settings: list[str], metric: str, tmp_path: Path
) -> None:
    folder = save(tmp_path)
    config = compose(command, [f"features={folder}", f"run.dir={tmp_path / 'run'}", "accelerator=cpu", *settings])
    getattr(api, command.replace("-", "_"))(config)
    written = json.loads((tmp_path / "run/report.json").read_text())
    assert written["metrics"][metric] == 1
    assert written["protocol"]["clips"] == 10


@pytest.mark.parametrize(
    ("command", "columns"), [("retrieve", ["queries", "R@1", "AP"]), ("svm", ["queries", "AP", "cost"])]
)
def test_each_class_has_its_line(command: str, columns: list[str], tmp_path: Path) -> None:
    folder = save(tmp_path)
    config = compose(command, [f"features={folder}", f"run.dir={tmp_path / 'run'}", "accelerator=cpu"])
    getattr(api, command)(config)
    with (tmp_path / "run/by_class.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["class", *columns]
    assert [(row["class"], row["queries"], float(row["AP"])) for row in rows] == [
        ("a", "3", 1),
        ("b", "2", 1),
        ("c", "2", 1),
    ]


@pytest.mark.parametrize("command", ["knn", "retrieve", "svm", "few-shot"])
def test_features_without_labels_are_refused_in_words(command: str, tmp_path: Path) -> None:
    folder = save(tmp_path, labeled=False)
    config = compose(command, [f"features={folder}", f"run.dir={tmp_path / 'run'}", "accelerator=cpu"])
    with pytest.raises(ConfigError, match="records without labels; extract them from labeled data"):
        getattr(api, command.replace("-", "_"))(config)
    assert not (tmp_path / "run").exists()
