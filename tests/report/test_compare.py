"""Tests of the comparison of runs."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

from eztorch_sce.chance import Chance
from eztorch_sce.cli import main
from eztorch_sce.errors import ConfigError
from eztorch_sce.report.compare import compare
from eztorch_sce.report.finished_runs import find_runs
from eztorch_sce.report.sweep_table import SweepTable, sweep_tables


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


def test_two_runs_in_a_deep_folder_fit_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name, flip in (("first", 0.0), ("second", 0.5)):
        card = {"training": {"views": [{"a_setting_with_a_long_name": flip}]}, "seen_in_pretraining": {"seen": flip}}
        write_run(tmp_path / name, {"linear_top1_centered": 0.5, "linear_train_top1": 0.25}, card, "linear")
        levels = {"linear_top1_centered": Chance(0.1, 69), "linear_train_top1": Chance(0.1, 148, split=f"{name} train")}
        file = tmp_path / name / "report.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"chance": levels}, default=asdict))
    main(["compare", str(tmp_path / "first"), str(tmp_path / "second")])
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading == f"in {tmp_path}:"
    assert max(map(len, lines)) <= 80
    assert any(line.split() == ["│", "a_setting_with_a_long_name", "│", "│", "│"] for line in lines)


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
    with pytest.raises(ConfigError, match="two or more finished runs"):
        compare([])
    with pytest.raises(ConfigError, match=r"missing.report\.json does not exist"):
        compare([str(tmp_path / "missing"), str(tmp_path / "missing")])
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ConfigError, match="is not the report of a run"):
        compare([str(tmp_path), str(tmp_path)])


def write_job(
    folder: Path, metrics: dict[str, float], settings: str, command: str = "pretrain", weights: Path | None = None
) -> None:
    folder.mkdir(parents=True)
    card = {} if weights is None else {"weights": {"file": str(weights), "untrained": False}}
    (folder / "report.json").write_text(json.dumps({"command": command, "metrics": metrics, "protocol": card}))
    (folder / "config.yaml").write_text(f"# eztorch-sce {command}\nrun: {{dir: {folder}}}\n{settings}\n")


def test_the_jobs_of_a_sweep_are_rows_with_the_settings_that_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for job in (0, 2, 10):
        settings = f"seed: 0\noptimizer: {{lr: 0.{job}1, weight_decay: 0.{job}}}"
        write_job(tmp_path / f"sweep/{job}", {"loss": job / 4, "clips_per_s": 9.5}, settings)
    (tmp_path / "sweep/11").mkdir()
    (tmp_path / "sweep/11/config.yaml").write_text("seed: 0")
    main(["compare", str(tmp_path / "sweep")])
    rows = [line.replace("│", "").split() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert rows == [["0", "0.01", "0.0000"], ["2", "0.21", "0.5000"], ["10", "0.101", "2.5000"]]
    main(["compare", str(tmp_path / "sweep")])
    printed = capsys.readouterr().out
    assert "differ as optimizer.lr does: optimizer.weight_decay" in printed
    assert f"unfinished, without report.json: {tmp_path / 'sweep/11'}" in printed


def test_json_holds_each_run_with_its_settings_and_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for job in (0, 1):
        write_job(tmp_path / f"deep/er/{job}", {"loss": 0.5}, f"seed: {job}")
    main(["compare", "--json", str(tmp_path / "de*")])  # a pattern that no shell expanded
    first, second = json.loads(capsys.readouterr().out)
    assert first["settings"] == {"seed": 0}
    assert second["metrics"] == {"loss": 0.5}
    assert second["run"] == str(tmp_path / "deep/er/1")


def test_evaluations_join_the_row_of_the_weights_they_evaluate(tmp_path: Path) -> None:
    for seed in (0, 1):
        run_dir = tmp_path / f"sweep/{seed}"
        write_job(run_dir, {"loss": 0.5}, f"seed: {seed}")
        write_job(tmp_path / f"knn-{seed}", {"knn_top1": seed / 2}, "seed: 0", "knn", run_dir / "backbone.safetensors")
    assert sweep_tables(find_runs([str(tmp_path)]).finished) == [
        SweepTable(
            "pretrain",
            [str(tmp_path / "sweep/0"), str(tmp_path / "sweep/1")],
            {"seed": [0, 1]},
            {},
            {"knn_top1": [0.0, 0.5], "loss": [0.5, 0.5]},
            {},
        )
    ]


def test_unfinished_runs_and_folders_without_runs_are_named(tmp_path: Path) -> None:
    write_job(tmp_path / "done", {"loss": 0.5}, "seed: 0")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.yaml").write_text("seed: 0")
    with pytest.raises(ConfigError, match="begun is unfinished: it has no report"):
        compare([str(tmp_path / "done"), str(tmp_path / "begun")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty contains no runs"):
        compare([str(tmp_path / "done"), str(tmp_path / "empty")])
