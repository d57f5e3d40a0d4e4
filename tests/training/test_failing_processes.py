"""Tests that processes end together, with one message, however one of them fails; and of what they exchange.

The cases run in real processes, see failing_processes.py.
"""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from image_files import write_noisy_classes

pytestmark = pytest.mark.xdist_group("failing processes")  # fixtures take long: once, in one worker

ENDS = {  # what is printed, by one process only
    "configuration": "- process 1: optimizer.lr=-1 must be greater than 0",
    "opening": "- process 1: data.root=",
    "building": "process 1 failed",
    "callback": "process 1 failed",
    "callback of the first": "process 0 failed",
    "loss": "the loss is nan",
    "SIGKILL": "process 1 died",
    "SIGKILL of the first": "process 0 died",
    "SIGTERM": "stopped by SIGTERM: saved at step 3 of 6",
    "SIGINT": "KeyboardInterrupt: saved at step 3 of 6",
    "online evaluation": "process 1 failed",
    "SIGTERM in the online evaluation": "stopped by SIGTERM: saved",
    "SIGUSR1 in knn": "stopped by SIGUSR1: nothing to save",
    "extract": "process 0 failed",
    "knn": "process 1 failed",
    "finetune": "process 1 failed",
    "linear on views": "process 1 failed",
    "unreadable": "2 of 16 records could not be read, more than data.max_unreadable=0.1 allows",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all cases, and return the folder of what they left."""
    folder = tmp_path_factory.mktemp("cases")
    images = folder / "images"
    write_noisy_classes(images, {"train": 16, "test": 8}, size=40)
    shutil.copytree(images, folder / "images-broken")
    for number in (0, 2, 4):
        (folder / f"images-broken/train/a/{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    program = ROOT / "tests" / "support" / "failing_processes.py"
    subprocess.run([sys.executable, str(program), str(folder), str(images)], check=True, timeout=600)
    return folder


def printed(folder: Path, case: str) -> list[str]:
    return [(folder / f"{case}-{process}.txt").read_text() for process in (0, 1)]


def statuses(folder: Path) -> dict[str, Any]:
    ended: dict[str, dict[str, Any]] = json.loads((folder / "ended.json").read_text())
    return {name: each["status"] for name, each in ended.items()}


@pytest.mark.parametrize("case", ENDS)
def test_a_failure_of_one_process_ends_both_with_one_message(case: str, folder: Path) -> None:
    texts = printed(folder, case)
    assert "".join(texts).count(ENDS[case]) == 1
    assert sum("Traceback" in text or ENDS[case] in text for text in texts) == 1
    assert all(statuses(folder)[case])


def test_unreadable_files_of_both_processes_are_listed_once(folder: Path) -> None:
    with (folder / "run unreadable/unreadable.csv").open() as stream:
        paths = [row["path"] for row in csv.DictReader(stream)]
    assert len(paths) == len(set(paths)) == 2  # more than a tenth of 16


def test_processes_that_caught_the_same_error_train_on_and_leave_no_thread(folder: Path) -> None:
    for text in printed(folder, "caught"):
        assert "caught ConfigError" in text
        assert "threads []" in text
    assert statuses(folder)["caught"] == [0, 0]


def test_processes_stop_at_the_same_step(folder: Path) -> None:
    first, second = ([line for line in text.splitlines() if "stopped at" in line] for text in printed(folder, "stop"))
    assert first == second != []
    assert statuses(folder)["stop"] == [0, 0]


def test_processes_share_weights_but_not_dropout_and_draw_the_same_when_resumed(folder: Path) -> None:
    first, second = (json.loads(text.splitlines()[-1]) for text in printed(folder, "draws"))
    assert first["weights"] == second["weights"]
    assert all(one != other for one, other in zip(first["whole"], second["whole"], strict=True))
    for each in (first, second):
        num_resumed = len(each["resumed"])
        assert 0 < num_resumed < len(each["whole"])
        assert each["resumed"] == each["whole"][-num_resumed:]


def test_processes_exchange_numbers_at_the_start_of_a_step_and_before_the_optimizer_takes_it(folder: Path) -> None:
    """The second is the check for numbers that are not finite, which on a GPU is made in the steps that are logged."""
    assert all("exchanges 8" in text for text in printed(folder, "exchanges"))
