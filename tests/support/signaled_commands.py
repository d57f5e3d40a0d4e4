"""Commands that receive signals while they run, and how they end."""

import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sessions import members
from warm_commands import WarmCommands

_PATIENCE_S = 120.0  # on a machine that is busy


class Ended(NamedTuple):
    """How a command has ended.

    Attributes:
        code: Exit status, or minus the signal that killed it.
        printed: Everything that it printed.
    """

    code: int
    printed: str

    @property
    def sentences(self) -> list[str]:
        """The lines in which the program says why it ends."""
        return [line for line in self.printed.splitlines() if line.startswith("eztorch-sce")]


@dataclass
class Command:
    """A command in a process that leads a session of its own, as a shell starts it.

    Args:
        server: Starts the process.
        words: The command.
        file: File of what it prints.
        environment: Additional environment variables.
    """

    server: WarmCommands
    words: Sequence[str]
    file: Path
    environment: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        self.file.unlink(missing_ok=True)
        self.process = self.server.start(self.words, self.file, self.file.parent, environment=self.environment)

    def wait_for(self, line: str, count: int = 1) -> "Command":
        """Wait until lines that match a regular expression are printed."""
        self._wait(lambda: len(re.findall(line, self._printed())) >= count, f"{line!r} is not printed")
        return self

    def wait_for_file(self, file: Path) -> "Command":
        """Wait until a file exists."""
        self._wait(file.exists, f"{file} is not written")
        return self

    def send(self, number: int, to_all: bool = False) -> "Command":
        """Send a signal to the process, or to all of its process group, as a terminal and a scheduler do."""
        with suppress(ProcessLookupError):
            (os.killpg if to_all else os.kill)(self.process, number)
        return self

    def end(self) -> Ended:
        """Wait until the command has ended, and its workers soon after it."""
        self._wait(lambda: self.server.ended(self.process) is not None, "the command does not end")
        code = self.server.ended(self.process)
        self._wait(lambda: not members(self.process), "workers outlive the command")
        assert code is not None
        return Ended(code, self._printed())

    def _printed(self) -> str:
        return self.file.read_text(errors="replace") if self.file.exists() else ""

    def _wait(self, is_over: Callable[[], bool], complaint: str) -> None:
        stop = time.monotonic() + _PATIENCE_S
        while not is_over():
            if time.monotonic() > stop:
                for process in members(self.process):
                    os.kill(process, signal.SIGKILL)
                raise AssertionError(f"{complaint}: {self._printed()}")
            time.sleep(0.01)
