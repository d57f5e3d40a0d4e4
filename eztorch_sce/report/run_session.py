"""The sessions of this process: the run directories that it works on, locked until the command ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import NamedTuple, ParamSpec

from eztorch_sce.errors import ConfigError, first_line
from eztorch_sce.locks import FolderLock
from eztorch_sce.progress import print_above
from eztorch_sce.report.run_history import History
from eztorch_sce.types import EarlierReport, Report

P = ParamSpec("P")


class FinishedRun(Exception):
    """A run directory holds a finished run of the same settings, so that there is nothing to do.

    Args:
        report: Its report.
    """

    def __init__(self, report: EarlierReport) -> None:
        super().__init__(str(report.run_dir))
        self.report = report


class Session(NamedTuple):
    """A run directory that this process works on.

    Attributes:
        lock: Its lock.
        history: Its history; None until the session has begun.
    """

    lock: FolderLock
    history: History | None = None


_sessions: list[Session] = []  # of this process, the latest last


def in_run_directory(command: Callable[P, Report]) -> Callable[P, Report]:
    """Return a command that leaves its run directory when it ends, and returns the report of a finished run."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> Report:
        with _left_at_end():
            try:
                return command(*args, **kwargs)
            except FinishedRun as finished:
                return finished.report

    return run


def lock_of(run_dir: Path) -> FolderLock | None:
    """Return the lock of a run directory that this process holds, or None."""
    return next((session.lock for session in _sessions if session.lock.folder == run_dir), None)


def hold(lock: FolderLock) -> None:
    """Keep a lock until the command ends, see `in_run_directory`."""
    _sessions.append(Session(lock))


def begin(run_dir: Path, history: History) -> None:
    """Begin a session in a run directory whose lock is held."""
    for number, session in enumerate(_sessions):
        if session.lock.folder == run_dir:
            _sessions[number] = session._replace(history=history)


def history_of(run_dir: Path) -> History | None:
    """Return the history of a run that this process works on, or None."""
    return next((each.history for each in _sessions if each.lock.folder == run_dir), None)


@contextmanager
def _left_at_end() -> Iterator[None]:
    """Leave the run directories that are opened inside, and note how their sessions ended."""
    num_before = len(_sessions)
    how = "finished"
    try:
        yield
    except BaseException as error:
        how = _in_words(error)
        raise
    finally:
        while len(_sessions) > num_before:
            _leave(_sessions.pop(), how)


def _leave(session: Session, how: str) -> None:
    try:
        if session.history is not None:
            session.history.end(how)
    except OSError as error:  # such as a full disk, of which the command tells
        print_above(f"note: the history of {session.lock.folder} cannot be written: {first_line(error)}")
    finally:
        session.lock.release()


def _in_words(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    text = error.problems[0] if isinstance(error, ConfigError) and error.problems else first_line(error)
    return f"{type(error).__name__}: {text}"
