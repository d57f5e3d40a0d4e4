"""Tests of the comparison of runs."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from eztorch_sce.cli import main
from eztorch_sce.errors import ConfigError
from eztorch_sce.report.compare import compare


def write_run(folder: Path, metrics: dict[str, float], protocol: Mapping[str, object], command: str = "knn") -> str:
    folder.mkdir()
    report = {"command": command, "metrics": metrics, "protocol": protocol}
    (folder / "report.json").write_text(json.dumps(report))
    return str(folder)


def test_metrics_and_protocol_differences_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_run(tmp_path / "one", {"knn_top1": 0.5}, {"clips": 10, "input": {"size": 112, "stats": "video"}})
    two = write_run(
        tmp_path / "two", {"knn_top1": 0.6, "R@1": 0.1}, {"clips": 10, "input": {"size": 224, "stats": "video"}}
    )
    metrics, differences = compare([one, two])
    assert metrics == [("knn_top1", [0.5, 0.6]), ("R@1", [None, 0.1])]
    assert differences == [("input.size", [112, 224])]
    main(["compare", one, two])
    assert "input.size" in capsys.readouterr().out
    main(["compare", one, one])
    assert "comparable" in capsys.readouterr().out


def test_a_difference_within_a_list_of_views_is_listed(tmp_path: Path) -> None:
    views = [{"flip": 0.5}, {"flip": 0.5}], [{"flip": 0.5}, {"flip": 0.0}]
    cards = [{"training": {"views": each, "milestones": rest}} for each, rest in zip(views, ([], [60]), strict=True)]
    runs = [write_run(tmp_path / str(number), {}, card) for number, card in enumerate(cards)]
    assert compare(runs)[1] == [("training.views.1.flip", [0.5, 0.0]), ("training.milestones", [[], [60]])]


def test_metrics_of_old_runs_are_compared_under_their_current_names(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", {"R@1": 0.5, "R@1_uncentred": 0.4, "mAP_uncentred": 0.3}, {}, "retrieve")
    new = write_run(tmp_path / "new", {"R@1": 0.5, "R@1_uncentered": 0.6, "mAP_uncentered": 0.2}, {}, "retrieve")
    metrics = [("R@1", [0.5, 0.5]), ("R@1_uncentered", [0.4, 0.6]), ("mAP_uncentered", [0.3, 0.2])]
    assert compare([old, new]) == (metrics, [])


def test_missing_reports_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least two run directories"):
        compare([])
    with pytest.raises(ConfigError, match=r"missing.report\.json does not exist"):
        compare([str(tmp_path / "missing"), str(tmp_path / "missing")])
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ConfigError, match="is not the report of a run"):
        compare([str(tmp_path), str(tmp_path)])
