"""The sessions of a run: `history.json` lists each process, or group of processes, that worked on it."""

import json
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from eztorch_sce.files import open_text, write_text
from eztorch_sce.report.run_changes import Change
from eztorch_sce.report.versions import installed_versions

HISTORY_FILE = "history.json"

_TIME = "%Y-%m-%d %H:%M:%S UTC"


class History:
    """Content of `history.json`.

    Args:
        run_dir: The run directory.
        content: What the file holds: "sessions", and what the run remembers of its inputs.
        is_damaged: Whether there is a file that cannot be read.

    Attributes:
        content: What the file holds; change it, then call `save`.
    """

    def __init__(self, run_dir: Path, content: dict[str, Any], is_damaged: bool = False) -> None:
        self.run_dir, self.content, self.is_damaged = run_dir, content, is_damaged
        self.started = time.monotonic()

    @classmethod
    def read(cls, run_dir: Path) -> "History":
        """Return the history of a run; an empty one if there is none, or if the file is damaged."""
        file, content = run_dir / HISTORY_FILE, dict[str, Any]()
        if file.is_file():
            with suppress(ValueError), open_text(file) as stream:
                content = json.load(stream)
        is_intact = isinstance(content, dict) and isinstance(content.get("sessions"), list)
        return cls(run_dir, content if is_intact else {"sessions": []}, is_damaged=file.is_file() and not is_intact)

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """The sessions, the earliest first."""
        sessions: list[dict[str, Any]] = self.content["sessions"]
        return sessions

    @property
    def folder(self) -> Path:
        """The folder that the last session was started in, from which its relative paths start."""
        return Path(self.sessions[-1].get("folder", "")) if self.sessions else Path()

    @property
    def command(self) -> str:
        """The command that goes on with the run, as one types it; empty if it is not known."""
        return str(self.sessions[-1].get("command", "")) if self.sessions else ""

    @property
    def seconds(self) -> float:
        """Seconds of all sessions but the current one; of one that was killed, until its last sign of life."""
        return float(sum(session.get("seconds") or 0.0 for session in self.sessions[:-1]))

    @property
    def resumed_at(self) -> list[int]:
        """Steps at which later sessions went on with the training, each once."""
        steps = (session.get("from_step") for session in self.sessions[1:])
        return sorted({step for step in steps if isinstance(step, int) and step > 0})

    @property
    def last_start(self) -> tuple[float, int] | None:
        """Time of the last session's start, in seconds since 1970, and the step it began at; None if not known."""
        try:
            session = self.sessions[-1]
            started = datetime.strptime(session["started"], _TIME).replace(tzinfo=timezone.utc).timestamp()
            return started, int(session["from_step"])
        except (IndexError, KeyError, TypeError, ValueError):
            return None

    def begin(self, command: str, from_step: int, changes: Sequence[Change], num_processes: int) -> None:
        """Add a session, and estimate how long the one before took if it was killed."""
        if self.sessions and self.sessions[-1].get("seconds") is None:
            self.sessions[-1]["seconds"] = self._signs_of_life()
        self.sessions.append(
            {
                "started": datetime.now(timezone.utc).strftime(_TIME),
                "command": command,
                "folder": os.getcwd(),
                "from_step": from_step,
                "changes": [{"setting": each.setting, "before": each.before, "now": each.now} for each in changes],
                "host": socket.gethostname(),
                "gpus": _gpus(),
                "processes": num_processes,
                "versions": installed_versions(),
                "seconds": None,
                "end": None,
            }
        )
        self.started = time.monotonic()

    def end(self, how: str) -> None:
        """Note how the current session ends, and how long it took."""
        self.sessions[-1] |= {"seconds": round(time.monotonic() - self.started, 1), "end": how}
        self.save()

    def save(self) -> None:
        """Write the file."""
        write_text(self.run_dir / HISTORY_FILE, json.dumps(self.content, indent=2) + "\n")

    def _signs_of_life(self) -> float:
        """Return the seconds from the start of the last session to the last file that it wrote."""
        files = [self.run_dir / "metrics.csv", *(self.run_dir / "checkpoints").glob("*")]
        times = [file.stat().st_mtime for file in files if file.is_file()]
        start = self.last_start
        return 0.0 if start is None else round(max(0.0, max(times, default=0.0) - start[0]), 1)


def _gpus() -> list[str]:
    """Return the names of the GPUs of this machine."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
