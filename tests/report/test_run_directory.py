"""Tests of run directories: which process creates them, and when they are rejected."""

import csv
from pathlib import Path

import pytest

from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.report.run_directory import open_run, write_by_class


def config_of(run_dir: Path | None, resume: bool = False) -> PretrainConfig:
    config = PretrainConfig()
    config.run.dir, config.run.resume = None if run_dir is None else str(run_dir), resume
    return config


def launch_as(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank}.items():
        monkeypatch.setenv(name, str(value))


@pytest.fixture(autouse=True)
def no_directory_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZTORCH_SCE_RUN_DIR", "")


def test_only_the_first_process_writes_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launch_as(1, monkeypatch)
    assert open_run("pretrain", config_of(tmp_path / "run")) == tmp_path / "run"
    assert not (tmp_path / "run").exists()
    launch_as(0, monkeypatch)
    assert open_run("pretrain", config_of(tmp_path / "run")) == tmp_path / "run"
    assert (tmp_path / "run/config.yaml").read_text().startswith("# eztorch-sce pretrain\n")


@pytest.mark.parametrize("rank", [0, 1])
def test_several_processes_require_run_dir(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    launch_as(rank, monkeypatch)
    with pytest.raises(ConfigError, match=r"run\.dir is not set: the 2 processes need a common directory"):
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


def test_metrics_by_class_are_written_as_csv(tmp_path: Path) -> None:
    write_by_class(tmp_path, {"up": {"queries": 2, "AP": 0.5}, "down": {"queries": 3, "AP": 0.25}})
    with (tmp_path / "by_class.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [{"class": "up", "queries": "2", "AP": "0.5"}, {"class": "down", "queries": "3", "AP": "0.25"}]
