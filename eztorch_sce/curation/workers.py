"""Work on many files in processes that may hang or crash: a damaged video must cost its own row, not the scan."""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def for_each(
    work: Callable[[T], R], items: Iterable[T], num_workers: int, limit_s: float
) -> Iterator[tuple[T, R | None, str]]:
    """Yield (item, result, "") for each item as it gets ready, or (item, None, why) where the process did not survive.

    Args:
        work: A function that pickle finds by its name. An exception in it is raised here.
        items: What it is called with.
        num_workers: Processes.
        limit_s: Seconds after which a process is ended.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([work.__module__])  # imports once, not once a process
    waiting = iter(items)
    idle: list[_Worker] = []
    busy: dict[Any, _Worker] = {}  # by their connection
    try:
        while True:
            while len(busy) < num_workers:
                try:
                    item = next(waiting)
                except StopIteration:
                    break
                worker = idle.pop() if idle else _Worker(context, work)
                worker.give(item, limit_s)
                busy[worker.connection] = worker
            if not busy:
                return
            patience_s = max(0.0, min(worker.deadline for worker in busy.values()) - time.monotonic())
            for connection in wait(list(busy), timeout=patience_s):
                worker = busy.pop(connection)
                item, result, why = worker.take()
                if not why:
                    idle.append(worker)
                yield item, result, why
            for worker in [worker for worker in busy.values() if time.monotonic() > worker.deadline]:
                del busy[worker.connection]
                worker.stop()
                yield worker.item, None, f"took longer than {limit_s:g} s"
    finally:
        for worker in [*idle, *busy.values()]:
            worker.stop()


class _Worker:
    item: Any
    deadline: float

    def __init__(self, context: Any, work: Callable[[Any], Any]) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, item: Any, limit_s: float) -> None:
        self.item, self.deadline = item, time.monotonic() + limit_s
        self.connection.send(item)

    def take(self) -> tuple[Any, Any, str]:
        try:
            result, error = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            self.stop()
            return self.item, None, f"crashed the decoder (exit code {self.process.exitcode})"
        if error is not None:
            raise error
        return self.item, result, ""

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Any, work: Callable[[Any], Any]) -> None:
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        answer: tuple[Any, Exception | None]
        try:
            answer = (work(item), None)
        except Exception as error:  # raised again where it can be read
            answer = (None, error)
        connection.send(answer)
