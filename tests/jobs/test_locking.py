"""Tests of the lock of a job: one driver at a time, and none is kept out by a dead one."""

import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import fsspec
import pytest
from toy_job import CountLetters, records_of, write_files

from eztorch_sce.errors import ConfigError
from eztorch_sce.jobs import locking
from eztorch_sce.jobs.driver import run_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.locking import LOCK_OBJECT, driver_of, lock_job
from eztorch_sce.jobs.runners.local import LocalRunner
from eztorch_sce.jobs.store import Store

HOLDS = """
import sys, time
sys.path.insert(0, sys.argv[1])
from toy_job import CountLetters, records_of
from eztorch_sce.jobs.job import Job
job = Job.create(sys.argv[2], CountLetters("a"), records_of(sys.argv[3:]), per_shard=10)
print("created", flush=True)
time.sleep(60)
"""


def test_a_job_that_another_process_works_on_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    files, folder = write_files(tmp_path / "files", 30), tmp_path / "job"
    command = [sys.executable, "-c", HOLDS, str(Path(__file__).parents[1] / "support"), str(folder), *files]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(ConfigError, match=rf"job is in use by process {holder.pid} on .*: wait until it ends"):
            Job.create(folder, CountLetters("b"), records_of(files[:9]), per_shard=3)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert str(holder.pid) in driver_of(Store(folder))
        job = Job.open(folder)
        with pytest.raises(ConfigError, match="is in use by"):
            run_job(job, CountLetters("a"), LocalRunner(), None)
        holder.send_signal(signal.SIGKILL)
    assert driver_of(Store(folder)) == ""
    assert len(run_job(job, CountLetters("a"), LocalRunner(), None).table) == 24


def test_a_job_is_free_again_after_its_work_and_when_nobody_refers_to_it(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", 30)
    for _ in range(2):
        job = Job.create(tmp_path / "job", CountLetters("a"), records_of(files), per_shard=10)
        run_job(job, CountLetters("a"), LocalRunner(), None)
    Job.create(tmp_path / "job", CountLetters("a"), records_of(files), per_shard=10)
    lock_job(Store(tmp_path / "job")).release()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/job cannot be written \(Not a directory\)"):
        lock_job(Store(tmp_path / "file" / "job"))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(locking, "_BEAT_S", 0.05)
    monkeypatch.setattr(locking, "_DEAD_S", 0.5)
    return Store(f"memory://{uuid.uuid4()}/job")


def test_an_object_is_the_lock_behind_a_url(store: Store) -> None:
    lock = lock_job(store)
    with pytest.raises(ConfigError, match=r"^- memory://.*/job is in use by process \d+ on .*: wait until it ends"):
        lock_job(store)
    assert "process" in driver_of(store)
    lock.release()
    assert driver_of(store) == ""
    assert store.names("") == []
    lock_job(store).release()


def test_the_object_of_a_dead_driver_is_taken_over(store: Store) -> None:
    owner = b'{"host": "n1", "pid": 7, "started": "2026-01-01 10:00 UTC", "token": "0", "alive": 0}'
    store.write(LOCK_OBJECT, owner)
    started = time.monotonic()
    lock = lock_job(store)
    assert time.monotonic() - started > 0.5
    lock.confirm()
    lock.release()


def test_a_driver_whose_lock_was_taken_stops(store: Store) -> None:
    lock = lock_job(store)
    store.write(LOCK_OBJECT, b'{"host": "n1", "pid": 7, "started": "now", "token": "0", "alive": 0}')
    time.sleep(0.3)
    with pytest.raises(ConfigError, match="was taken over by process 7 on n1"):
        lock.confirm()
    lock.release()
    assert fsspec.filesystem("memory").exists(store.address(LOCK_OBJECT))
