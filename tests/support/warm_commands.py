"""Commands in processes that start within a second, to be killed.

A server imports the package once and forks a process for each command, since importing torch takes longer than a small
training. Each process leads a session of its own, like one that a shell starts, and runs `eztorch_sce.cli.main`.
"""

import errno
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from training_imports import import_training

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")


@dataclass(frozen=True)
class Kill:
    """When SIGKILL ends a command, and what of it. One of the first three says when.

    Attributes:
        after_s: Seconds after its start.
        change: Regular expression of changes of the run directory, such as "os.rename checkpoints/"; the process kills
            itself just before the change numbered `count`.
        line: Regular expression of a line that it prints.
        count: Number of the change or the line that counts, from 1.
        later_s: Seconds to wait after the change or the line.
        whom: "all" processes of all ranks, the "first" or the "last" rank without its loader workers, or one "worker".
    """

    after_s: float | None = None
    change: str | None = None
    line: str | None = None
    count: int = 1
    later_s: float = 0.0
    whom: str = "all"

    def is_due(self, running_s: float, printed: Path) -> bool:
        """Return whether the time has come, for a kill at a time or a line.

        Args:
            running_s: Seconds since the start of the command.
            printed: File of what it has printed so far.
        """
        if self.line is None:
            return self.after_s is not None and running_s >= self.after_s
        is_printed = printed.exists() and len(re.findall(self.line, printed.read_text(errors="replace"))) >= self.count
        if is_printed:
            time.sleep(self.later_s)
        return is_printed


@dataclass(frozen=True)
class FullDisk:
    """When the disk is full, until the command ends: no file of its run directory can be created or written to.

    Attributes:
        change: Regular expression of changes of the run directory.
        count: Number of the change that is the first to fail, from 1.
        error: Number of the error.
    """

    change: str
    count: int = 1
    error: int = errno.ENOSPC


class WarmCommands:
    """A server of commands, as a context manager. Every process that is left at the end is killed."""

    def __enter__(self) -> "WarmCommands":
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(timeout=60)
        assert self.server.stdout is not None
        self.server.stdout.close()

    def start(
        self,
        words: Sequence[str],
        printed: Path,
        watched: Path,
        event: Kill | FullDisk | None = None,
        environment: Mapping[str, str] | None = None,
        clock_shift_s: float = 0.0,
    ) -> int:
        """Start a command and return the id of its process.

        Args:
            words: The command, such as ["pretrain", "data.root=videos"].
            printed: File for what the command prints.
            watched: Folder whose changes are counted: files opened for writing, renamed or removed. They are listed,
                one per line, in a file beside `printed`, with the suffix `.changes`.
            event: What happens to the process at one of these changes.
            environment: Additional environment variables.
            clock_shift_s: Seconds to add to the time of day that the process sees.
        """
        return int(
            self._ask(
                do="start",
                words=list(words),
                printed=str(printed),
                watched=str(watched),
                event=None if event is None or event.change is None else asdict(event),
                environment=dict(environment or {}),
                clock_shift_s=clock_shift_s,
            )
        )

    def ended(self, process: int) -> int | None:
        """Return the exit code of a process, minus the signal that ended it, or None while it runs."""
        status: int | None = self._ask(do="ended", process=process)
        return status

    def _ask(self, **question: Any) -> Any:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(question) + "\n")
        self.server.stdin.flush()
        answer = self.server.stdout.readline()
        assert answer, "the server of commands has ended"
        return json.loads(answer)


def changes(printed: Path) -> list[str]:
    """Return the changes that a command made in the watched folder, such as "os.rename metrics.csv"."""
    file = printed.with_suffix(".changes")
    return file.read_text().splitlines() if file.exists() else []


def _note_changes(folder: str, listing: int, event: dict[str, Any] | None) -> None:
    """List the changes below a folder that this process makes, and let the event happen at one of them."""
    process, lock, count = os.getpid(), threading.Lock(), 0

    def note(operation: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        is_opened = operation == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not is_opened and operation not in _CHANGES:
            return
        path = arguments[1] if operation == "os.rename" else arguments[0]
        if os.getpid() != process or not isinstance(path, str | os.PathLike) or not str(path).startswith(folder):
            return
        change = f"{operation} {os.path.relpath(path, folder)}"
        os.write(listing, f"{change}\n".encode(errors="surrogateescape"))
        if event is None:
            return
        with lock:
            count += re.search(event["change"], change) is not None or (count >= event["count"] and "error" in event)
            has_begun, is_now = count >= event["count"], count == event["count"]
        if "error" in event and has_begun and operation in ("open", "os.mkdir"):
            raise OSError(event["error"], os.strerror(event["error"]), str(path))
        if "whom" in event and is_now and re.search(event["change"], change):
            _die(Kill(**event))

    sys.addaudithook(note)


def _die(kill: Kill) -> None:
    if kill.later_s:
        threading.Timer(kill.later_s, _die, [replace(kill, later_s=0.0)]).start()
        return
    if kill.whom == "all":
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _run(question: dict[str, Any]) -> None:
    """Run a command in this process, which never returns from here."""
    os.setsid()
    printed = Path(question["printed"])
    output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(question["environment"])
    listing = os.open(printed.with_suffix(".changes"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    _note_changes(question["watched"], listing, question["event"])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if shift_s := question["clock_shift_s"]:
        clock = time.time
        time.time = lambda: clock() + shift_s
    sys.argv = ["eztorch-sce", *question["words"]]
    import atexit

    from eztorch_sce.cli import main

    status = 0
    try:
        main()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _serve(questions: IO[str], answers: IO[str]) -> None:
    status: dict[int, int | None] = {}
    for line in questions:
        question, answer = json.loads(line), None
        if question["do"] == "start":
            if (answer := os.fork()) == 0:
                _run(question)
            status[answer] = None
        else:
            process = question["process"]
            if status[process] is None:
                child, code = os.waitpid(process, os.WNOHANG)
                status[process] = os.waitstatus_to_exitcode(code) if child else None
            answer = status[process]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    for process in (each for each, code in status.items() if code is None):
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)


if __name__ == "__main__":
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)  # no thread may run when a process is forked
    import_training()
    _serve(sys.stdin, os.fdopen(os.dup(1), "w"))
