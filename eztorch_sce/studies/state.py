"""State of a study on disk: what is finished and how much of its time is spent, so that it goes on where it stopped."""

import json
import time
from pathlib import Path
from typing import Any

from eztorch_sce.errors import ConfigError, shorten
from eztorch_sce.files import open_text, write_text
from eztorch_sce.settings import show

FILE = "study.json"
_FORMAT = 1
_WRITE_EVERY_S = 5.0
_MAX_GAP_S = 60.0  # between two beats; a longer one is a computer that slept


class State:
    """Content of `study.json`, and the clock of the study.

    Args:
        directory: Directory of the study.
        content: What the file holds.

    Attributes:
        content: Nested dictionaries and lists, as the file holds them; change them, then call `save`.
    """

    def __init__(self, directory: Path, content: dict[str, Any]) -> None:
        self.directory, self.content = directory, content
        self._saved = self._beat = time.monotonic()

    @classmethod
    def open(cls, directory: Path, settings: dict[str, Any]) -> "State":
        """Read the state of an earlier start, or begin a study.

        Args:
            directory: Directory of the study.
            settings: Everything that decides what the study does, flat.

        Raises:
            ConfigError: If the directory holds a study with other settings, or another run.
        """
        file = directory / FILE
        if not file.is_file():
            if (directory / "config.yaml").exists():
                raise ConfigError([f"run.dir={directory} already contains a run: choose another directory"])
            return cls(directory, {"format": _FORMAT, "settings": settings, "spent_s": 0.0, "starts": 0, "stages": {}})
        try:
            with open_text(file) as stream:
                content: dict[str, Any] = json.load(stream)
            earlier = content["settings"]
        except (ValueError, KeyError, TypeError):
            raise ConfigError([f"{file} is not the state of a study: choose another run.dir"]) from None
        missing = "not set"
        changes = [
            f"{name}={show(settings.get(name, missing))} was {show(earlier.get(name, missing))}"
            for name in dict.fromkeys([*settings, *earlier])
            if settings.get(name, missing) != earlier.get(name, missing)
        ]
        if changes:
            cure = "repeat the settings to continue it, or choose another run.dir for a new study"
            raise ConfigError([f"run.dir={directory} holds a study with other settings ({shorten(changes)}): {cure}"])
        return cls(directory, content)

    @property
    def is_continued(self) -> bool:
        """Whether an earlier start of this study spent time on it."""
        return bool(self.content["starts"])

    @property
    def spent_s(self) -> float:
        """Seconds spent on the study so far, over all of its starts."""
        self.beat()
        return float(self.content["spent_s"])

    def beat(self) -> None:
        """Count the time since the last beat, and write it to disk every few seconds."""
        now = time.monotonic()
        self.content["spent_s"] += min(now - self._beat, _MAX_GAP_S)
        self._beat = now
        if now - self._saved > _WRITE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the state atomically."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_text(self.directory / FILE, json.dumps(self.content, indent=1, allow_nan=False) + "\n")
        self._saved = time.monotonic()
