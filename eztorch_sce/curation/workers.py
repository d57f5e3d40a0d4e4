"""Worker processes for many files, any of which may hang or crash: only the result of that file is lost."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Generic, TypeVar

from eztorch_sce import signals

T = TypeVar("T")
R = TypeVar("R")

_START_S = 600.0  # for a process to import its packages, which does not count as time of its first item
_POLL_S = 0.5  # between two looks for a signal while no item completes


def for_each(
    work: Callable[[T], R], items: Iterable[T], num_workers: int, limit_s: float
) -> Iterator[tuple[T, R | None, str]]:
    """Yield (item, result, "") as each item completes, or (item, None, reason) if its worker process died.

    An item whose process dies is tried once more in a new one, since another item or another program may have taken
    the memory. One that takes too long is not.

    Args:
        work: Function that pickle can import by name. Its exceptions are raised here.
        items: Arguments of the calls.
        num_workers: Number of processes.
        limit_s: Seconds per item, after which its process is killed.

    Raises:
        Stopped: If a signal asks the command to end.
    """
    context = _context(work)
    waiting, again = iter(items), _Again[T]()
    idle: list[_Worker[T, R]] = []
    busy: dict[Any, _Worker[T, R]] = {}  # by connection
    done: list[tuple[T, R | None, str]] = []
    try:
        while True:
            while len(busy) < num_workers:
                task = again.next(waiting)
                if task is None:
                    break
                worker = _started(idle, context, work, task, limit_s)
                busy[worker.connection] = worker
            yield from done  # while the workers have their next items
            if not busy:
                return
            done = []
            left_s = min(worker.deadline for worker in busy.values()) - time.monotonic()
            ready = wait(list(busy), timeout=min(max(0.0, left_s), _POLL_S))
            signals.poll()
            for connection in ready:
                if busy[connection].has_started():
                    continue
                worker = busy.pop(connection)
                result, death = worker.receive()
                if death and worker.task.is_first:
                    again.tasks.append(_Task(worker.task.item, is_first=False))
                    continue
                if not death:
                    idle.append(worker)
                done.append((worker.task.item, result, death))
            for worker in [worker for worker in busy.values() if time.monotonic() > worker.deadline]:
                del busy[worker.connection]
                worker.stop()
                done.append((worker.task.item, None, f"took longer than {limit_s:g} s"))
    finally:
        for worker in [*idle, *busy.values()]:
            worker.stop()


@dataclass
class _Task(Generic[T]):
    """An item, and whether this is its first try."""

    item: T
    is_first: bool = True


@dataclass
class _Again(Generic[T]):
    """Tasks to be tried again, which come before the other items."""

    tasks: list[_Task[T]] = field(default_factory=list)

    def next(self, items: Iterator[T]) -> _Task[T] | None:
        """Return the next task, or None if there is none."""
        if self.tasks:
            return self.tasks.pop()
        return next((_Task(item) for item in items), None)


def _started(
    idle: "list[_Worker[T, R]]",
    context: ForkServerContext | SpawnContext,
    work: Callable[[T], R],
    task: _Task[T],
    limit_s: float,
) -> "_Worker[T, R]":
    """Return a worker that has begun a task: an idle one, unless it has died meanwhile, or a new one."""
    while idle:
        worker = idle.pop()
        try:
            worker.start(task, limit_s)
        except OSError:  # its end of the connection is closed
            worker.stop()
        else:
            return worker
    worker = _Worker(context, work)
    worker.start(task, limit_s)
    return worker


def _context(work: Callable[[T], R]) -> ForkServerContext | SpawnContext:
    """Return a start method whose processes inherit no threads, and import the module of `work` once if it can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    return context


class _Worker(Generic[T, R]):
    """A process that calls `work` on one item at a time."""

    task: _Task[T]
    deadline: float
    limit_s: float
    is_ready = False

    def __init__(self, context: ForkServerContext | SpawnContext, work: Callable[[T], R]) -> None:
        self.connection, child_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(child_end, work), daemon=True)
        with signals.sheltered():
            self.process.start()
        child_end.close()

    def start(self, task: _Task[T], limit_s: float) -> None:
        self.task, self.limit_s = task, limit_s
        self.deadline = time.monotonic() + limit_s + (0.0 if self.is_ready else _START_S)
        self.connection.send(task.item)

    def has_started(self) -> bool:
        """Return whether the message that has come says that the process is ready, and begin the time of its item."""
        if self.is_ready:
            return False
        try:
            self.connection.recv()
        except (EOFError, ConnectionResetError):  # as `receive` will find again
            return False
        self.is_ready, self.deadline = True, time.monotonic() + self.limit_s
        return True

    def receive(self) -> tuple[R | None, str]:
        """Return (result, ""), or (None, reason) if the process died.

        Raises:
            Exception: As `work` raised it.
        """
        try:
            result, error = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            self.stop()
            return None, _death(self.process.exitcode)
        if error is not None:
            raise error
        return result, ""

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _death(exit_code: int | None) -> str:
    """Return how a process died that was given its item twice.

    >>> _death(-11), _death(-9)
    ('crashed the decoder (exit code -11)', 'its worker process was killed twice (SIGKILL), as for lack of memory')
    """
    if exit_code == -signal.SIGKILL:
        return "its worker process was killed twice (SIGKILL), as for lack of memory"
    return f"crashed the decoder (exit code {exit_code})"


def _serve(connection: "Connection[Any, Any]", work: Callable[[T], R]) -> None:
    """Say that the process is ready, and reply to each item with (result, None) or (None, exception), until the
    connection closes."""
    import torch

    signals.ignore()
    torch.set_num_threads(1)  # the processes share the cores
    with suppress(OSError):  # the parent has ended
        connection.send("ready")
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        answer: tuple[R | None, Exception | None]
        try:
            answer = (work(item), None)
        except Exception as error:  # raised by the parent
            answer = (None, error)
        connection.send(answer)
