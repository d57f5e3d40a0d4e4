"""Worker processes for many files, any of which may hang or crash: only the result of that file is lost."""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Generic, TypeVar

from eztorch_sce import signals

T = TypeVar("T")
R = TypeVar("R")

_POLL_S = 0.5  # between two looks for a signal while no item completes


def for_each(
    work: Callable[[T], R], items: Iterable[T], num_workers: int, limit_s: float
) -> Iterator[tuple[T, R | None, str]]:
    """Yield (item, result, "") as each item completes, or (item, None, reason) if its worker process died.

    Args:
        work: Function that pickle can import by name. Its exceptions are raised here.
        items: Arguments of the calls.
        num_workers: Number of processes.
        limit_s: Seconds per item, after which its process is killed.

    Raises:
        Stopped: If a signal asks the command to end.
    """
    context = _context(work)
    waiting = iter(items)
    idle: list[_Worker[T, R]] = []
    busy: dict[Any, _Worker[T, R]] = {}  # by connection
    try:
        while True:
            while len(busy) < num_workers:
                try:
                    item = next(waiting)
                except StopIteration:
                    break
                worker = idle.pop() if idle else _Worker(context, work)
                worker.start(item, limit_s)
                busy[worker.connection] = worker
            if not busy:
                return
            left_s = min(worker.deadline for worker in busy.values()) - time.monotonic()
            ready = wait(list(busy), timeout=min(max(0.0, left_s), _POLL_S))
            signals.poll()
            for connection in ready:
                worker = busy.pop(connection)
                result, death = worker.receive()
                if not death:
                    idle.append(worker)
                yield worker.item, result, death
            for worker in [worker for worker in busy.values() if time.monotonic() > worker.deadline]:
                del busy[worker.connection]
                worker.stop()
                yield worker.item, None, f"took longer than {limit_s:g} s"
    finally:
        for worker in [*idle, *busy.values()]:
            worker.stop()


def _context(work: Callable[[T], R]) -> ForkServerContext | SpawnContext:
    """Return a start method whose processes inherit no threads, and import the module of `work` once if it can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    return context


class _Worker(Generic[T, R]):
    """A process that calls `work` on one item at a time."""

    item: T
    deadline: float

    def __init__(self, context: ForkServerContext | SpawnContext, work: Callable[[T], R]) -> None:
        self.connection, child_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(child_end, work), daemon=True)
        with signals.sheltered():
            self.process.start()
        child_end.close()

    def start(self, item: T, limit_s: float) -> None:
        self.item, self.deadline = item, time.monotonic() + limit_s
        self.connection.send(item)

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
            return None, f"crashed the decoder (exit code {self.process.exitcode})"
        if error is not None:
            raise error
        return result, ""

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: "Connection[Any, Any]", work: Callable[[T], R]) -> None:
    """Reply to each item with (result, None) or (None, exception) until the connection closes."""
    import torch

    signals.ignore()
    torch.set_num_threads(1)  # the processes share the cores
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
