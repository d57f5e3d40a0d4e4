"""Tests of the lock of run directories: no two processes ever share one, whatever ends the one that holds it."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from racing import race

from eztorch_sce.errors import ConfigError
from eztorch_sce.locks import FolderLock, is_locked

HOLDS = """
import multiprocessing, sys, time
from pathlib import Path
from eztorch_sce.locks import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.sign()
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""


def check_rounds(folder: Path, rounds: int) -> None:
    for number, results in enumerate(race(folder, rounds)):
        directories = [directory for directory, _ in results if directory]
        assert len(directories) == len(set(directories)) == 1 + number % 2, results
        refusals = [why for _, why in results if why]
        assert all(f"run.dir=run-{number} is in use by process " in why for why in refusals), refusals


def test_two_processes_that_start_at_once_never_share_a_run_directory(tmp_path: Path) -> None:
    check_rounds(tmp_path, rounds=3)


@pytest.mark.long
def test_two_processes_never_share_a_run_directory_in_60_rounds(tmp_path: Path) -> None:
    check_rounds(tmp_path, rounds=60)


def test_a_lock_ends_with_a_killed_process_even_if_its_workers_live_on(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        assert is_locked(tmp_path)
        with pytest.raises(ConfigError, match=rf"is in use by process {holder.pid} on .*: wait until it ends"):
            FolderLock(tmp_path)
        holder.send_signal(signal.SIGKILL)
    try:
        lock = FolderLock(tmp_path)
        assert is_locked(tmp_path)
        lock.release()
        assert not is_locked(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_file_system_without_locks_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def has_no_locks(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", has_no_locks)
    FolderLock(tmp_path).release()
    assert f"note: the file system of {tmp_path} has no locks: make sure that no" in capsys.readouterr().err
