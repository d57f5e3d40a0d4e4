"""Tests of wandb and MLflow as loggers, where they are installed: a killed process leaves each step once, offline."""

import json
import multiprocessing
import os
import signal
import sqlite3
import struct
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from eztorch_sce.config.compose import compose
from eztorch_sce.errors import ConfigError
from eztorch_sce.training.loggers import LogPositions, build_loggers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("trackers"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
NUM_STEPS = 20


def train(folder: Path, logger: str, first: int, is_killed: bool) -> None:
    """Log until step 14, and die there, or to the end; the state is saved before step 12."""
    warnings.simplefilter("ignore")  # those of the packages
    loggers = build_loggers([logger, "csv"], folder)
    positions, state = LogPositions(loggers), folder / "state.json"
    positions.rewind(json.loads(state.read_text()) if first else None)
    for step in range(first, NUM_STEPS):
        if step == 12:
            state.write_text(json.dumps(positions.position()))
        if step == 14 and is_killed:
            os.kill(os.getpid(), signal.SIGKILL)
        for each in loggers:
            each.log_metrics({"loss": 1 / (step + 1), "R@1": float("nan"), "epoch": 0}, step)
    for each in loggers:
        each.finalize("success")


def train_with_a_kill(folder: Path, logger: str) -> None:
    fork = multiprocessing.get_context("fork")
    for first, is_killed, status in ((0, True, -signal.SIGKILL), (12, False, 0)):
        process = fork.Process(target=train, args=(folder, logger, first, is_killed))
        process.start()
        process.join()
        assert process.exitcode == status


def records(file: Path) -> Iterator[Any]:
    """Yield the records of a file of wandb: blocks of 32 KiB that hold chunks of protocol buffers."""
    content, place, record = file.read_bytes(), 7, b""
    kind: Any = import_module("wandb.proto.wandb_internal_pb2").Record
    while place + 7 <= len(content):
        if 2**15 - place % 2**15 < 7:
            place += 2**15 - place % 2**15
        _, size, part = struct.unpack("<IHB", content[place : place + 7])
        record += content[place + 7 : place + 7 + size]
        place += 7 + size
        if part in (1, 4):  # whole, or the last part
            yield kind.FromString(record)
            record = b""


def test_wandb_has_each_step_once_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed", exc_type=ImportError)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    train_with_a_kill(tmp_path, "wandb")
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    rows = [record.history for record in records(file) if record.WhichOneof("record_type") == "history"]
    losses = {row.step.num: item.value_json for row in rows for item in row.item if list(item.nested_key) == ["loss"]}
    assert [row.step.num for row in rows] == list(range(NUM_STEPS))
    assert {step: float(text) for step, text in losses.items()} == {step: 1 / (step + 1) for step in range(NUM_STEPS)}


def test_mlflow_has_each_step_once_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package, reason=f"{package} is not installed", exc_type=ImportError)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train_with_a_kill(tmp_path, "mlflow")
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        rows = store.execute("select step, value from metrics where key = 'loss' order by step").fetchall()
        (status,) = store.execute("select status from runs").fetchall()
    assert rows == [(step, 1 / (step + 1)) for step in range(NUM_STEPS)]
    assert status == ("FINISHED",)


@pytest.mark.parametrize("logger", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_answered_with_its_extra(
    logger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eztorch_sce.training.config.find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"run\.loggers=\[csv,{logger}\]: .*pip install 'eztorch-sce\[{logger}\]'"):
        compose("pretrain", ["data.root=.", f"run.loggers=[csv,{logger}]"])
