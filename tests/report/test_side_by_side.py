"""Tests of the results of a page: which runs belong together, and what stands beside what."""

import json
from pathlib import Path
from typing import Any

import pytest

from eztorch_sce.errors import ConfigError
from eztorch_sce.pages import refresh_pages, report_page
from eztorch_sce.report.run_files import open_runs
from eztorch_sce.report.sections.headline import headline
from eztorch_sce.report.setting_rows import setting_table
from eztorch_sce.report.settings import DataPlace, ReportConfig
from eztorch_sce.report.side_by_side import aligned_evaluations, group_of
from eztorch_sce.report.subjects import Subject, subjects_of

CHANCE = {"level": 0.25, "records": 8, "largest_class": None, "split": "test"}


def write_run(directory: Path, command: str, metrics: dict[str, float] | None = None, **settings: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}: {json.dumps(value)}" for name, value in settings.items()]
    (directory / "config.yaml").write_text("\n".join([f"# eztorch-sce {command}", "seed: 0", *lines]))
    if metrics is not None:
        protocol = {"records": 8, "k": settings.get("k", 20), "input": settings.get("input")}
        if "weights" in settings:
            protocol["weights"] = {"file": settings["weights"], "untrained": bool(settings.get("untrained"))}
        report = {"command": command, "metrics": metrics, "protocol": protocol, "folder": str(directory.parent)}
        report["chance"] = {name: CHANCE for name in metrics if "top1" in name}
        report["intervals"] = {name: [value - 0.1, value + 0.1] for name, value in metrics.items() if "top1" in name}
        (directory / "report.json").write_text(json.dumps(report))
    return directory


def subjects(*paths: Path) -> list[Subject]:
    runs, problems = open_runs([str(path) for path in paths])
    assert not problems
    return subjects_of(runs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one pretraining, two evaluations of it by relative paths and one of the untrained network."""
    (write_run(tmp_path / "mine", "pretrain", {"loss": 1.0}) / "backbone.safetensors").touch()
    write_run(tmp_path / "knn", "knn", {"knn_top1": 0.5, "knn_top5": 0.75}, weights="mine")
    write_run(tmp_path / "base", "knn", {"knn_top1": 0.375}, weights="mine/backbone.safetensors", untrained=True)
    (write_run(tmp_path / "tuned", "finetune", {"test_top1": 0.875}, weights="mine") / "classifier.safetensors").touch()
    write_run(tmp_path / "tested", "test", {"test_top1": 0.75}, weights="tuned")
    return tmp_path


def test_evaluations_belong_to_the_training_that_made_their_weights(folder: Path) -> None:
    (subject,) = subjects(folder)
    assert subject.run is not None
    assert subject.run.name == "mine"
    assert [run.name for run in subject.evaluations] == ["knn", "tested", "tuned"]
    assert [run.name for run in subject.untrained] == ["base"]


def test_in_a_study_an_untrained_network_is_the_baseline_of_the_pretrainings_with_its_input(tmp_path: Path) -> None:
    study = tmp_path / "study"
    numbers = {"motion": 0.75, "color": 0.5, "untrained-motion": 0.25, "untrained-color": 0.375}
    for network, value in numbers.items():
        kind, is_untrained = network.removeprefix("untrained-"), network.startswith("untrained")
        write_run(study / f"pretrain-{kind}", "pretrain", {"loss": 1.0}, input=kind)
        weights = study / "measure" / kind if is_untrained else study / f"pretrain-{kind}"
        top1 = {"knn_top1": value}
        write_run(study / network / "knn", "knn", top1, input=kind, weights=str(weights), untrained=is_untrained)
    (study / "study.json").write_text("{}")
    group = next(group_of(each) for each in aligned_evaluations(subjects(study)) if each.command == "knn")
    cells = [(cell["text"], cell["untrained"]["text"]) for cell in group["rows"][0]["cells"]]
    assert cells == [("0.500", "0.375"), ("0.750", "0.250")]


def test_a_row_holds_value_interval_baseline_chance_and_number_of_records(folder: Path) -> None:
    group = next(group_of(each) for each in aligned_evaluations(subjects(folder)) if each.command == "knn")
    (row,) = group["rows"]
    cell = row["cells"][0]
    assert (cell["text"], cell["interval"], cell["untrained"]["text"]) == ("0.500", "0.40 to 0.60", "0.375")
    assert (row["chance"], row["records"]) == ("0.250", "8 test")
    assert [each["label"] for each in group["more"]] == ["kNN top-5"]


def test_evaluations_of_one_command_that_differ_in_a_setting_are_rows_of_their_own(folder: Path) -> None:
    write_run(folder / "knn5", "knn", {"knn_top1": 0.625}, weights="mine", k=5)
    groups = [each for each in aligned_evaluations(subjects(folder)) if each.command == "knn"]
    assert [each.title for each in groups] == ["k nearest neighbors, k=20", "k nearest neighbors, k=5"]
    assert [run.name for each in groups for run in each.runs if run] == ["knn", "knn5"]
    assert [run.name for each in groups for run in each.untrained if run] == ["base", "base"]


def test_evaluations_side_by_side_say_in_what_their_protocols_differ(folder: Path) -> None:
    write_run(folder / "other", "knn", {"knn_top1": 0.625}, weights="elsewhere", k=5)
    runs, _ = open_runs([str(folder / "knn"), str(folder / "other")])
    section = headline(runs, None)
    assert section is not None
    assert section.data["differences"] == ["k nearest neighbors: k"]
    assert [each["name"] for each in section.data["subjects"]] == ["knn", "other"]


def test_runs_of_the_same_name_are_told_apart_and_extracted_features_are_no_column(tmp_path: Path) -> None:
    for parent in ("one", "two"):
        write_run(tmp_path / parent, "demo")
        write_run(tmp_path / parent / "pretrain", "pretrain", {})
        write_run(tmp_path / parent / "features", "extract", {}, weights="elsewhere")
    assert [each.name for each in subjects(tmp_path / "one", tmp_path / "two")] == ["one/pretrain", "two/pretrain"]


def test_an_unfinished_run_says_how_far_it_came_and_how_it_goes_on(tmp_path: Path) -> None:
    run = write_run(tmp_path / "cut", "pretrain")
    (run / "metrics.csv").write_text("step,loss\n9,1.5\n19,1.25\n29,")
    section = headline(open_runs([str(run)])[0], None)
    assert section is not None
    (unfinished,) = section.data["unfinished"]
    assert unfinished["where"] == "last logged step 29"
    assert unfinished["again"] == f"run its command again, with run.dir={run}"


def test_settings_are_told_by_their_origin(tmp_path: Path) -> None:
    settings = {"recipe": "demo", "optimizer": {"name": "adamw", "lr": 0.5}, "data": {"batch_size": 64, "prefetch": 2}}
    run = write_run(tmp_path / "mine", "pretrain", {"loss": 1.0}, **settings)
    rows = {row["name"]: row for row in setting_table("pretrain", open_runs([str(run)])[0])["rows"]}
    cells = {name: (row["origin"], row["cells"][0]["instead"]) for name, row in rows.items()}
    assert cells["optimizer.lr"] == ("set", "0.02")  # the recipe's
    assert cells["optimizer.name"] == ("recipe", "")
    assert cells["data.batch_size"] == ("recipe", "")
    assert cells["data.prefetch"] == ("default", "")
    assert "Learning rate" in rows["optimizer.lr"]["help"]


def test_all_mistakes_of_a_command_line_are_named_at_once(tmp_path: Path) -> None:
    write_run(tmp_path / "mine", "knn", {"knn_top1": 0.5})
    config = ReportConfig(out=str(tmp_path / "no/x.html"), data=DataPlace(str(tmp_path / "gone")))
    with pytest.raises(ConfigError) as caught:
        report_page([tmp_path / "mni", tmp_path / "mine"], config)
    first, second, third = caught.value.problems
    assert f"did you mean {tmp_path / 'mine'}?" in first
    assert "data.root=" in second
    assert "in a folder that does not exist" in third
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no run"):
        report_page([tmp_path / "empty"])


def test_an_evaluation_is_added_to_the_pages_of_the_runs_before_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "mine/evaluations.json").write_text('["../tuned"]')
    (folder / "tuned/evaluations.json").write_text('["../tested"]')
    assert refresh_pages(Path("tested")) == [Path("tuned/report.html"), Path("mine/report.html")]
    assert "0.750" in (folder / "mine/report.html").read_text()
