"""Tests of the loggers of a training: killed processes, damaged files and full disks lose and double nothing."""

import csv
import json
import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from eztorch_sce.files import write_text
from eztorch_sce.training.event_file import EventFile
from eztorch_sce.training.loggers import LogPositions, build_loggers
from eztorch_sce.training.metrics_file import MetricsFile

NUM_STEPS = 200
SAVE_EVERY = 7


def metrics_of(step: int) -> dict[str, float]:
    """Return what a training logs at a step; some metrics come later than others."""
    numbers = {"loss": 1 / (step + 3), "lr": float("nan") if step == 20 else 0.1, "epoch": step // 10}
    return numbers if step < 75 else numbers | {"momentum": 0.99 + step / 1e6}


def train(folder: Path, told: Connection | None = None) -> None:
    """Log as a training does that goes on with the state it last saved; say when a step begins."""
    loggers = build_loggers(["csv", "tensorboard"], folder)
    positions, state = LogPositions(loggers), folder / "state.json"
    first, is_evaluated, position = json.loads(state.read_text()) if state.exists() else (0, True, None)
    positions.rewind(position)

    def save(step: int, is_evaluated: bool) -> None:
        write_text(state, json.dumps([step, is_evaluated, positions.position()]))

    def evaluate(step: int) -> None:  # at the end of an epoch: more about the same step
        for logger in loggers:
            logger.log_metrics({"online_knn_top1": step / NUM_STEPS, "epoch": step // 10}, step)

    if not is_evaluated:
        evaluate(first - 1)
    for step in range(first, NUM_STEPS):
        if step % SAVE_EVERY == 0:
            save(step, is_evaluated=True)
        if told is not None:
            told.send_bytes(b"")
        for logger in loggers:
            logger.log_metrics(metrics_of(step), step)
        if step % 10 == 9:
            save(step + 1, is_evaluated=False)
            evaluate(step)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what TensorBoard shows, by tag."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})  # 0 keeps all
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def killed(folder: Path, num_steps: int, delay_s: float) -> None:
    """Train in a process that is killed some time after it has begun a number of steps."""
    fork = multiprocessing.get_context("fork")
    told, tells = fork.Pipe(duplex=False)
    process = fork.Process(target=train, args=(folder, tells))
    process.start()
    for _ in range(num_steps):
        told.recv_bytes()
    time.sleep(delay_s)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(folder)
    return folder


pytestmark = [
    pytest.mark.xdist_group("loggers"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def test_twenty_kills_leave_the_files_of_an_uninterrupted_run(whole: Path, tmp_path: Path) -> None:
    moments = random.Random(16)
    for _ in range(20):
        killed(tmp_path, moments.randint(1, 14), moments.uniform(0, 0.002))
    train(tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    shown = scalars(tmp_path)
    assert str(shown) == str(scalars(whole))  # as text, in which NaN equals NaN
    for tag, points in shown.items():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), tag
    assert [step for step, _ in shown["loss"]] == list(range(NUM_STEPS))


def test_a_step_is_one_row_whatever_is_logged_of_it(whole: Path) -> None:
    with (whole / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(range(NUM_STEPS))
    assert [int(row["step"]) for row in rows if row["online_knn_top1"]] == list(range(9, NUM_STEPS, 10))
    assert rows[9]["loss"] == repr(1 / 12)


def logged(logger: MetricsFile | EventFile, steps: range, **more: float) -> None:
    for step in steps:
        logger.log_metrics({"loss": 1 / (step + 1)} | more, step)


def test_a_line_torn_anywhere_is_dropped(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    logged(file, range(12))
    position, before = file.position(), (tmp_path / "metrics.csv").read_bytes()
    logged(file, range(12, 14))
    after = (tmp_path / "metrics.csv").read_bytes()
    for size in range(len(before), len(after) + 1):
        (tmp_path / "metrics.csv").write_bytes(after[:size])
        MetricsFile(tmp_path).rewind(position)
        assert (tmp_path / "metrics.csv").read_bytes() == before


def test_an_event_torn_anywhere_is_dropped(tmp_path: Path) -> None:
    file = EventFile(tmp_path)
    logged(file, range(3))
    position = file.position()
    (path,) = (tmp_path / "tensorboard").iterdir()
    before = path.read_bytes()
    logged(file, range(3, 5))
    after = path.read_bytes()
    for size in range(len(before), len(after) + 1, 5):
        path.write_bytes(after[:size])
        EventFile(tmp_path).rewind(position)
        assert path.read_bytes() == before


EDITS: Mapping[str, Any] = {
    "unix line ends": lambda content: content.replace(b"\r\n", b"\n"),
    "a column of notes": lambda content: content.replace(b"\r\n", b",\r\n"),
    "rows in another order": lambda content: b"".join(
        [content.splitlines(True)[0], *reversed(content.splitlines(True)[1:])]
    ),
    "bytes that are no text": lambda content: content + b"\xff\x00\xfe,\r\n",
    "an open quote": lambda content: content + b'"\r\n',
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_file_keeps_its_rows(edit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, path = MetricsFile(tmp_path), tmp_path / "metrics.csv"
    logged(file, range(5))
    position = file.position()
    logged(file, range(5, 9), lr=0.1)
    path.write_bytes(EDITS[edit](path.read_bytes()))
    again = MetricsFile(tmp_path)
    again.rewind(position)
    logged(again, range(5, 7), lr=0.1)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted((row["step"], row["loss"], row["lr"]) for row in rows) == [
        (str(step), repr(1 / (step + 1)), "0.1" if step > 4 else "") for step in range(7)
    ]
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("when", ["between two processes", "in a process"])
def test_a_deleted_file_begins_again(when: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loggers = build_loggers(["csv", "tensorboard"], tmp_path)
    positions = LogPositions(loggers)
    for logger in loggers:
        logger.log_metrics({"loss": 1.0}, 3)
        logger.log_metrics({"loss": 2.0}, 4)
    position = positions.position()
    (tmp_path / "metrics.csv").unlink()
    for path in (tmp_path / "tensorboard").iterdir():
        path.unlink()
    (tmp_path / "tensorboard").rmdir()
    if when == "between two processes":
        loggers = build_loggers(["csv", "tensorboard"], tmp_path)
        LogPositions(loggers).rewind(position)
        assert capsys.readouterr().err.count("after the checkpoint") == 2
    for logger in loggers:
        logger.log_metrics({"loss": 3.0}, 5)
    with (tmp_path / "metrics.csv").open() as stream:
        assert [row["step"] for row in csv.DictReader(stream)][-1] == "5"
    assert scalars(tmp_path) == {"loss": [(5, 3.0)]}


def log_on_a_full_disk(folder: Path) -> None:
    """Log while no file may grow, then while they may; the kernel writes a part of a row and refuses the rest."""
    loggers = build_loggers(["csv", "tensorboard"], folder)
    positions = LogPositions(loggers)
    positions.rewind(None)
    for step in range(100):
        limit = {20: 900, 60: resource.RLIM_INFINITY}.get(step)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for logger in loggers:
            logger.log_metrics(metrics_of(step) | ({"late": 1.0} if step > 40 else {}), step)
        if step == 50:
            write = os.open(folder / "position.json", os.O_CREAT | os.O_WRONLY)
            content = json.dumps(positions.position()).encode()
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            os.write(write, content)
            resource.setrlimit(resource.RLIMIT_FSIZE, (900, resource.RLIM_INFINITY))


def test_a_full_disk_loses_no_row(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    process = multiprocessing.get_context("fork").Process(target=log_on_a_full_disk, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert capfd.readouterr().err.count("cannot be written (File too large)") == 2  # once for each of the loggers
    with (tmp_path / "metrics.csv").open() as stream:
        assert [int(row["step"]) for row in csv.DictReader(stream)] == list(range(100))
    assert [step for step, _ in scalars(tmp_path)["loss"]] == list(range(100))
    assert [step for step, _ in scalars(tmp_path)["late"]] == list(range(41, 100))
    loggers = build_loggers(["csv", "tensorboard"], tmp_path)  # of a process that goes on from step 51
    LogPositions(loggers).rewind(json.loads((tmp_path / "position.json").read_text()))
    for logger in loggers:
        logger.log_metrics({"loss": 1.0}, 51)
    with (tmp_path / "metrics.csv").open() as stream:
        assert [int(row["step"]) for row in csv.DictReader(stream)] == list(range(52))
    assert [step for step, _ in scalars(tmp_path)["loss"]] == list(range(52))


def test_a_logger_that_is_left_out_for_a_while_keeps_its_rows(tmp_path: Path) -> None:
    loggers = build_loggers(["csv", "tensorboard"], tmp_path)
    for logger in loggers:
        logger.log_metrics({"loss": 1.0}, 0)
    without_csv = LogPositions(build_loggers(["tensorboard"], tmp_path))
    without_csv.rewind(LogPositions(loggers).position())
    LogPositions(build_loggers(["csv", "tensorboard"], tmp_path)).rewind(without_csv.position())
    assert (tmp_path / "metrics.csv").read_bytes() == b"step,loss\r\n0,1.0\r\n"


def test_starting_over_removes_what_a_process_logged_before_it_saved(tmp_path: Path) -> None:
    for _ in range(2):
        loggers = build_loggers(["tensorboard", "csv", "csv"], tmp_path)
        LogPositions(loggers).rewind(None)
        for logger in loggers:
            logger.log_metrics({"loss": 1.0}, 0)
    assert (tmp_path / "metrics.csv").read_bytes() == b"step,loss\r\n0,1.0\r\n"
    assert scalars(tmp_path) == {"loss": [(0, 1.0)]}


def test_files_of_a_clock_that_was_set_back_are_read_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 2_000_000_000.0
    position = None
    for step in range(3):
        monkeypatch.setattr(time, "time", lambda step=step: now - 1000 * step)
        file = EventFile(tmp_path)
        file.rewind(position)
        logged(file, range(step, step + 1))
        position = file.position()
    assert [step for step, _ in scalars(tmp_path)["loss"]] == [0, 1, 2]
