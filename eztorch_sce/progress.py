"""Progress of long-running work, shown by the first process: bars in a terminal, lines elsewhere."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

console = Console(stderr=True)
"""Console on stderr. Progress bars are stacked; printed lines appear above them."""
_LINE_EVERY_S = 30.0  # time between lines without a terminal
_SHORT_S = 2.0  # shorter work prints no line


def track(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """Yield the items, and show how many of `total` have been processed."""
    with counting(total, title) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def counting(total: int, title: str) -> Iterator[Callable[..., None]]:
    """Yield a function to call after each item: `advance()`, or `advance("status")` to show a status too."""
    from eztorch_sce.distributed import rank  # torch takes seconds to import

    if rank() != 0:
        yield lambda status="": None
    elif console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[status]}"), console=console, transient=True) as bar:
            task = bar.add_task(title, total=total, status="")
            yield lambda status="": bar.update(task, advance=1, status=status)
    else:
        lines = _Lines(total, title)
        yield lines.advance
        lines.end()


class _Lines:
    def __init__(self, total: int, title: str) -> None:
        self.total, self.title, self.count, self.status = total, title, 0, ""
        self.started = self.shown = time.perf_counter()

    def advance(self, status: str = "") -> None:
        self.count, self.status = self.count + 1, status
        if time.perf_counter() - self.shown > _LINE_EVERY_S:
            self.shown = time.perf_counter()
            self._print(f"{self.count} of {self.total}")

    def end(self) -> None:
        took_s = time.perf_counter() - self.started
        if took_s > _SHORT_S:
            self._print(f"{self.count} in {took_s:.0f} s")

    def _print(self, words: str) -> None:
        status = f", {self.status}" if self.status else ""
        console.print(f"{self.title}: {words}{status}", highlight=False, markup=False, soft_wrap=True)
