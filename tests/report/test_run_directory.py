"""Tests of run directories: which process creates them, and when they are rejected."""

import csv
from pathlib import Path

import pytest

from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.report import run_directory
from eztorch_sce.report.run_directory import open_run, write_by_class


def config_of(run_dir: Path | None, resume: bool = False) -> PretrainConfig:
    config = PretrainConfig()
    config.run.dir, config.run.resume = None if run_dir is None else str(run_dir), resume
    return config


@pytest.fixture(autouse=True)
def no_directories_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EZTORCH_SCE_RUN_DIRS", raising=False)
    monkeypatch.setattr(run_directory, "_opened", [])


def become_second_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables of a process that Lightning starts, which repeats the commands of the first from the start."""
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "1", "NODE_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(run_directory, "_opened", [])


def test_a_process_that_repeats_the_commands_gets_the_same_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = [("extract", config_of(None)), ("extract", config_of(None)), ("pretrain", config_of(tmp_path / "run"))]
    directories = [open_run(command, config) for command, config in configs]
    assert [path.name for path in directories] == ["extract-1", "extract-2", "run"]
    assert (tmp_path / "run/config.yaml").read_text().startswith("# eztorch-sce pretrain\n")
    become_second_process(monkeypatch)
    assert [open_run(command, config) for command, config in configs] == directories


def test_a_process_on_another_machine_needs_the_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    become_second_process(monkeypatch)
    with pytest.raises(ConfigError, match=r"processes on several machines need a common directory"):
        open_run("pretrain", config_of(None))


def test_one_process_takes_the_next_free_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [str(open_run("knn", config_of(None))) for _ in range(2)] == ["runs/knn-1", "runs/knn-2"]


def test_a_directory_that_contains_a_run_is_opened_only_to_resume_it(tmp_path: Path) -> None:
    open_run("pretrain", config_of(tmp_path))
    with pytest.raises(ConfigError, match="already contains a run"):
        open_run("pretrain", config_of(tmp_path))
    with pytest.raises(ConfigError, match="there is nothing to resume"):
        open_run("pretrain", config_of(tmp_path, resume=True))
    (tmp_path / "last.ckpt").touch()
    assert open_run("pretrain", config_of(tmp_path, resume=True)) == tmp_path
    with pytest.raises(ConfigError, match=r"or resume it with run\.resume=true"):
        open_run("pretrain", config_of(tmp_path))
    with pytest.raises(ConfigError, match="already contains a run of pretrain: choose another directory"):
        open_run("knn", config_of(tmp_path, resume=True))


def test_metrics_by_class_are_written_as_csv(tmp_path: Path) -> None:
    write_by_class(tmp_path, {"up": {"queries": 2, "AP": 0.5}, "down": {"queries": 3, "AP": 0.25}})
    with (tmp_path / "by_class.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [{"class": "up", "queries": "2", "AP": "0.5"}, {"class": "down", "queries": "3", "AP": "0.25"}]
