"""Tests of the memory that a process and its children use."""

import multiprocessing
import sys
import threading
from multiprocessing.connection import Connection

import pytest

from eztorch_sce.host_memory import resident_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
MIB = 2**20


def hold(told: Connection, num_bytes: int) -> None:
    content = bytearray(b"x") * num_bytes
    told.send(len(content))
    told.recv()


def test_the_memory_of_a_child_of_any_thread_is_counted() -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=hold, args=(there, 100 * MIB))
    before = resident_bytes()
    thread = threading.Thread(target=process.start)  # as a loader may be started by a thread
    thread.start()
    here.recv()
    during = resident_bytes()
    here.send(None)
    thread.join()
    process.join()
    after = resident_bytes()
    assert before is not None
    assert during is not None
    assert after is not None
    assert during - before > 100 * MIB
    assert during - after > 100 * MIB
