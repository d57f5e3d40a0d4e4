"""Tests of waiting for tasks in other processes by their receipts."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_job import CountLetters, records_of, write_files

from eztorch_sce.jobs import watching
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.watching import watch_receipts

TASK = """
import sys
sys.path.insert(0, sys.argv[1])
from eztorch_sce.jobs.worker import work_on
print(work_on(sys.argv[2], [int(number) for number in sys.argv[3:]], None))
"""


def start_task(folder: Path, *shards: int) -> "subprocess.Popen[str]":
    support = str(Path(__file__).parents[1] / "support")
    command = [sys.executable, "-c", TASK, support, str(folder), *map(str, shards)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_records_and_failures_are_reported_as_the_receipts_of_tasks_appear(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", 50)
    job = Job.create(tmp_path / "job", CountLetters("a"), records_of(files), per_shard=10)
    reports: list[tuple[int, int]] = []

    def advance(num_records: int, num_failures: int = 0) -> None:
        reports.append((num_records, num_failures))

    with start_task(tmp_path / "job", 0, 1, 4) as first, start_task(tmp_path / "job", 3) as second:
        tasks = [first, second]
        watch_receipts(job, range(5), advance, lambda: any(task.poll() is None for task in tasks))
        assert [task.stdout.read() for task in tasks if task.stdout] == ["{}\n", "{}\n"]
    assert job.pending() == [2]
    sizes = [job.num_inputs(number) for number in (0, 1, 3, 4)]
    assert sorted(records for records, _ in reports if records) == sorted(sizes)
    assert sum(failures for _, failures in reports) == sum(len(receipt.failures) for receipt in job.receipts().values())

    del job  # and its lock
    job = Job.create(tmp_path / "job", CountLetters("ab"), records_of(files), per_shard=10)
    reports.clear()
    watch_receipts(job, range(5), advance, lambda: False)
    assert reports == []  # receipts of other settings do not count


def test_a_shard_that_takes_much_longer_than_the_others_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "_SLOW_S", 1.0)
    files = write_files(tmp_path / "files", 50)
    job = Job.create(tmp_path / "job", CountLetters("a"), records_of(files), per_shard=10)
    stop = time.monotonic() + 60
    printed: list[str] = []

    def is_running() -> bool:  # until two looks after the line
        printed.append(capsys.readouterr().err)
        return time.monotonic() < stop and "from shard" not in "".join(printed[:-2])

    with start_task(tmp_path / "job", 0, 1, 3, 4):
        watch_receipts(job, range(5), lambda *_: None, is_running)
    assert "".join(printed).count("from shard 2; no other took more than") == 1
