"""What is shown of work that takes a while: a bar in a terminal, lines elsewhere; by the first of several processes."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eztorch_sce.distributed import rank

T = TypeVar("T")

console = Console(stderr=True)
"""The error output. Bars that share it are drawn below each other, and what it prints appears above them."""
_LINE_EVERY_S = 30.0  # where there is no terminal
_SHORT_S = 2.0  # what ends sooner leaves no line


def track(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """Yield the items and show how many of `total` are done."""
    with counting(total, title) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def counting(total: int, title: str) -> Iterator[Callable[..., None]]:
    """Give a function to call once something is done: `advance()`, or `advance("a few words")`."""
    if rank() != 0:
        yield lambda says="": None
    elif console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[says]}"), console=console, transient=True) as bar:
            task = bar.add_task(title, total=total, says="")
            yield lambda says="": bar.update(task, advance=1, says=says)
    else:
        lines = _Lines(total, title)
        yield lines.advance
        lines.end()


class _Lines:
    def __init__(self, total: int, title: str) -> None:
        self.total, self.title, self.done, self.says = total, title, 0, ""
        self.started = self.shown = time.perf_counter()

    def advance(self, says: str = "") -> None:
        self.done, self.says = self.done + 1, says
        if time.perf_counter() - self.shown > _LINE_EVERY_S:
            self.shown = time.perf_counter()
            self._print(f"{self.done} of {self.total}")

    def end(self) -> None:
        took_s = time.perf_counter() - self.started
        if took_s > _SHORT_S:
            self._print(f"{self.done} in {took_s:.0f} s")

    def _print(self, words: str) -> None:
        says = f", {self.says}" if self.says else ""
        console.print(f"{self.title}: {words}{says}", highlight=False, markup=False, soft_wrap=True)
