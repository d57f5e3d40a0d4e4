"""Failures of a process, as the other processes of its command learn of them, and the error that is printed once."""

import sys
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from eztorch_sce.errors import EXPLAINED, ProcessError, Stopped, first_line

E = TypeVar("E", bound=BaseException)

_KINDS: dict[str, type[BaseException]] = {kind.__name__: kind for kind in (*EXPLAINED, Stopped, KeyboardInterrupt)}


class Failure(NamedTuple):
    """Why the processes end.

    Attributes:
        process: Number of the process that failed.
        kind: Type of its error if all processes raise the same, else an empty string.
        words: Arguments of that type, or a description that follows "process 1 ".
    """

    process: int
    kind: str
    words: list[Any]

    @classmethod
    def of(cls, error: BaseException, process: int) -> "Failure":
        """Return the failure of this process."""
        kind = type(error).__name__
        if kind in _KINDS:
            return cls(process, kind, list(error.__reduce__()[1]))
        if isinstance(error, SystemExit):
            return cls(process, "", [f"exited with {error.code}"])
        line = first_line(error)
        return cls(process, "", [f"failed: {line}" if line.startswith(kind) else f"failed: {kind}: {line}"])

    @classmethod
    def of_death(cls, process: int) -> "Failure":
        """Return the failure of a process that no longer answers."""
        return cls(process, "", ["died: it was killed (for lack of memory, for instance), or its machine failed"])

    def error(self) -> BaseException:
        """Return the error that the other processes raise."""
        if self.kind in _KINDS:
            return _KINDS[self.kind](*self.words)
        return ProcessError(f"process {self.process} {self.words[0]}")


def is_of_another(error: BaseException) -> bool:
    """Return whether another process prints the error, and this one need not."""
    return getattr(error, "_of_another", False)


def failed_process(error: BaseException) -> int | None:
    """Return the number of the process that failed, or None if the error is that of all processes."""
    return getattr(error, "_process", None)


def has_printed() -> None:
    """Tell the other processes that the error is printed. A launcher may kill this one as soon as they exit."""
    global _tell_others
    if _tell_others is not None:
        tell_others, _tell_others = _tell_others, None
        with suppress(Exception):
            tell_others()


def to_print(error: BaseException, process: int | None, tell_others: Callable[[], None]) -> None:
    """Mark an error as the one to print.

    Args:
        error: The error.
        process: Number of the process that failed; None if all failed alike.
        tell_others: Tells the other processes, once `has_printed` is called.
    """
    global _tell_others
    _tell_others = tell_others
    marked(error, of_another=False, process=process)


def marked(error: E, of_another: bool, process: int | None = None) -> E:
    """Remember with an error who prints it, and which process it names."""
    error.__dict__.update(_of_another=of_another, _process=None if isinstance(error, ProcessError) else process)
    return error


def print_errors_once() -> None:
    """Let Python print an uncaught error in one process only."""
    global _earlier_hook
    if sys.excepthook is not _print_error:
        _earlier_hook, sys.excepthook = sys.excepthook, _print_error


def _print_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if is_of_another(error):
        return
    _earlier_hook(kind, error, trace)
    if (number := failed_process(error)) is not None:
        print(f"eztorch-sce: process {number} failed, which ends all processes", file=sys.stderr, flush=True)
    has_printed()


_tell_others: Callable[[], None] | None = None
_earlier_hook = sys.excepthook
