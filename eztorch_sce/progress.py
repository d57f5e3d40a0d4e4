"""Progress of long-running work, shown by the first process: bars in a terminal, lines elsewhere.

Work that takes longer than ten seconds is announced with its predicted time, in both.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eztorch_sce import signals
from eztorch_sce.launch import is_first_process
from eztorch_sce.printing import PlainConsole, visible
from eztorch_sce.waiting import announced

T = TypeVar("T")

console = PlainConsole(stderr=True)
"""Console on stderr. Progress bars are stacked; printed lines appear above them."""
_LINE_EVERY_S = 30.0  # time between lines without a terminal
_SHORT_S = 2.0  # shorter work prints no line
_PREDICT_AFTER_S = 3.0  # earlier, a prediction would rest on too little
_LONG_S = 10.0  # longer work is announced with its predicted time


def print_above(text: str) -> None:
    """Print a line on stderr as it is, above the progress bars: no markup, highlighting or wrapping."""
    console.print(text, soft_wrap=True)


def track(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """Yield the items, and show how many of `total` have been processed."""
    with counting(total, title) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def counting(total: int, title: str, done: int = 0, unit: str = "") -> Iterator[Callable[..., None]]:
    """Yield a function to call after each item: `advance()`, or `advance("status")` to show a status too.

    Like every item of `track`, its call is a place where a signal may end the command, see `signals.poll`. After
    several items at once, call `advance("status", count)`; a count of 0 only changes the status.

    Args:
        total: Number of items.
        title: Title of the work.
        done: Number of items that were done before.
        unit: What an item is, such as "records", to show how many are done per second; empty shows no rate.
    """
    with _shown(total, title, done, unit) as show:

        def advance(status: str = "", count: int = 1) -> None:
            signals.poll()
            show(status, count)

        yield advance


@contextmanager
def _shown(total: int, title: str, done: int, unit: str) -> Iterator[Callable[[str, int], None]]:
    if not is_first_process():
        yield lambda status, count: None
    elif console.is_terminal:
        title_column = TextColumn("{task.description}", markup=False)
        columns = (title_column, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        status_column = TextColumn("{task.fields[status]}", markup=False)
        with Progress(*columns, status_column, console=console, transient=True) as bar:
            task = bar.add_task(visible(title), total=total, completed=done, status="")
            clock = Clock(total, done)

            def show(status: str, count: int) -> None:
                clock.announce(clock.done + count, title, f"{total}")
                words = ", ".join(part for part in (clock.rate(unit), status) if part)
                bar.update(task, completed=clock.done, status=visible(words))

            yield show
    else:
        lines = _Lines(Clock(total, done), title, unit)
        with announced(f"{visible(title)}: {total}"):
            yield lines.advance
        lines.end()


class Clock:
    """Predicted time of a number of similar steps, from the time of those that are done.

    The first step is not taken as typical: it includes the start of worker processes.

    Args:
        total: Number of steps.
        done: Number of steps that an interrupted run had done before.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.done = total, done
        self._started = self._first = time.perf_counter()
        self._done_at_first = self._done_before = done
        self._announced = False

    def update(self, done: int) -> None:
        """Note the number of steps done by now."""
        if done == self.done:
            return
        if self._first == self._started:
            self._first, self._done_at_first = time.perf_counter(), done
        self.done = done

    def announce(self, done: int, title: str, amount: str) -> None:
        """Call `update`, and print once how long all steps take, such as `doctor: about 3 min for 1200`, if it is long.

        Args:
            done: Number of steps done by now.
            title: Title of the work.
            amount: All of the work, such as "45 epochs".
        """
        self.update(done)
        elapsed_s, left_s = time.perf_counter() - self._started, self.left_s()
        is_typical = self.done > self._done_at_first or elapsed_s > _LONG_S  # not only the start of worker processes
        if not self._announced and is_typical and elapsed_s > _PREDICT_AFTER_S and elapsed_s + left_s > _LONG_S:
            self._announced = True
            print_above(f"{title}: about {in_words(elapsed_s + left_s)} for {amount}")

    def left_s(self) -> float:
        """Return the predicted seconds until all steps are done; 0 while none is done."""
        return max(0.0, (self.total - self.done) * self._step_s())

    def rate(self, unit: str) -> str:
        """Return how many steps are done per second, such as "812 records/s"; empty while none is done."""
        step_s = self._step_s()
        return f"{in_digits(1 / step_s)} {unit}/s" if unit and step_s else ""

    def _step_s(self) -> float:
        """Return the seconds per step, 0 while none is done."""
        if since_first := self.done - self._done_at_first:
            return (time.perf_counter() - self._first) / since_first
        return (self._first - self._started) / max(1, self._done_at_first - self._done_before)

    def left(self) -> str:
        """Return the predicted time left, such as "about 3 min left"; empty for work that takes little time in all."""
        left_s = self.left_s()
        is_long = time.perf_counter() - self._started + left_s > _LONG_S
        return f"about {in_words(left_s)} left" if is_long and left_s > 0 else ""


def in_words(seconds: float) -> str:
    """Return a duration in at most two units.

    >>> in_words(42.3), in_words(754), in_words(12_000), in_words(200_000)
    ('42 s', '13 min', '3 h 20 min', '2 d 8 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def in_digits(per_s: float) -> str:
    """Return a rate with at most three digits after rounding, if it is below 1000.

    >>> in_digits(0.0314), in_digits(8.123), in_digits(1234.5)
    ('0.03', '8.1', '1234')
    """
    return f"{per_s:.0f}" if per_s >= 100 else f"{per_s:.1f}" if per_s >= 1 else f"{per_s:.2f}"


class _Lines:
    def __init__(self, clock: Clock, title: str, unit: str) -> None:
        self.clock, self.title, self.unit, self.status = clock, title, unit, ""
        self.started = self.shown = time.perf_counter()
        self.done_before = clock.done

    def advance(self, status: str, count: int) -> None:
        self.status = status
        self.clock.announce(self.clock.done + count, self.title, f"{self.clock.total}")
        if time.perf_counter() - self.shown > _LINE_EVERY_S:
            self.shown = time.perf_counter()
            self._print(f"{self.clock.done} of {self.clock.total}", self.clock.rate(self.unit), self.clock.left())

    def end(self) -> None:
        took_s = time.perf_counter() - self.started
        if took_s > _SHORT_S:
            self._print(f"{self.clock.done - self.done_before} in {in_words(took_s)}")

    def _print(self, *parts: str) -> None:
        print_above(f"{self.title}: {', '.join(part for part in (*parts, self.status) if part)}")
