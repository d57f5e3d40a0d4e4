"""Faults of the processes and files of a job, for tests that compare what they leave with an undisturbed result."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from eztorch_sce.jobs.merge import Merged

DRIVER = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
from toy_job import CountLetters, records_of
from eztorch_sce.jobs.driver import run_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.runners.local import LocalRunner
folder, wait_s, most_bytes, *files = sys.argv[2:]
work = CountLetters("a", float(wait_s))
job = Job.create(folder, work, records_of(files), per_shard=5)
if int(most_bytes):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most_bytes), int(most_bytes)))
run_job(job, work, LocalRunner(), None)
"""


def start_driver(folder: Path, files: Sequence[str], wait_s: float, most_bytes: int = 0) -> "subprocess.Popen[str]":
    """Start a process that works on a job of letters; it cannot write files of more than `most_bytes`, if that is set.

    The limit stands for a full disk: a file is written in part, and then fails with an error of the disk.
    """
    command = [sys.executable, "-c", DRIVER, os.path.dirname(__file__), str(folder), str(wait_s), str(most_bytes)]
    return subprocess.Popen([*command, *files], stderr=subprocess.PIPE, text=True)


def wait_for_receipts(folder: Path, count: int, process: "subprocess.Popen[str]") -> None:
    """Wait until a job has some receipts, or its driver has ended."""
    stop = time.monotonic() + 120
    while len(list(folder.glob("receipts/*.json"))) < count and process.poll() is None:
        assert time.monotonic() < stop, "the driver writes no receipts"
        time.sleep(0.005)


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill a process as the system does for lack of memory."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def flip_a_bit(path: Path, generator: random.Random) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def cut(path: Path, generator: random.Random) -> None:
    """Shorten a file."""
    path.write_bytes(path.read_bytes()[: generator.randrange(path.stat().st_size)])


def remove(path: Path, generator: random.Random) -> None:
    """Remove a file."""
    path.unlink()


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (flip_a_bit, cut, remove)


def damage_a_file(folder: Path, generator: random.Random) -> Path:
    """Damage an output or a receipt of a job, and return it."""
    files = sorted([*folder.glob("outputs/*.arrow"), *folder.glob("receipts/*.json")])
    path = generator.choice(files)
    generator.choice(DAMAGES)(path, generator)
    return path


def assert_same(merged: Merged, undisturbed: Merged) -> None:
    """Check that two results of the same records are equal, bit for bit."""
    table: pa.Table = merged.table
    assert table.equals(undisturbed.table)
    assert table.schema.equals(undisturbed.table.schema)
    assert merged.failures == undisturbed.failures
