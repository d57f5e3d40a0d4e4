"""Runs in directories: those named, and those below a folder, such as the jobs of a sweep."""

import glob
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eztorch_sce.chance import Chance, without_certain
from eztorch_sce.config.saved import saved_settings
from eztorch_sce.errors import ConfigError, did_you_mean


class Run(NamedTuple):
    """A finished run.

    Attributes:
        name: Its directory as typed, or its directory below the folder that was typed.
        directory: Its directory.
        report: Content of `report.json`, without metrics that chance alone brings to 1, which earlier versions wrote.
        settings: Content of `config.yaml`, flat, such as "optimizer.lr"; empty if the file is missing.
    """

    name: str
    directory: Path
    report: dict[str, Any]
    settings: dict[str, Any]

    @property
    def chance(self) -> dict[str, Chance]:
        """Chance levels of the metrics, by name."""
        return {name: Chance(**chance) for name, chance in self.report.get("chance", {}).items()}


class Runs(NamedTuple):
    """The runs that some paths name.

    Attributes:
        finished: The finished runs.
        unfinished: Names of the directories of runs without a report.
        walked: Whether a path is a folder with runs below it.
    """

    finished: list[Run]
    unfinished: list[str]
    walked: bool


def find_runs(paths: Sequence[str]) -> Runs:
    """Return the runs that the paths name: run directories, their `report.json`, or folders that contain runs.

    The runs below a folder are in natural order, such as job 2 of a sweep before job 10. A run that is named twice is
    listed once, unless it is named twice as such.

    Raises:
        ConfigError: With one message per path that does not exist or holds no run.
    """
    finished: list[Run] = []
    unfinished, problems, walked = [], [], False
    for path in (each for typed in paths for each in _expanded(typed)):
        directory = Path(path).parent if path.endswith(".json") else Path(path)
        if _is_run(directory) or path.endswith(".json"):
            found = [directory]
        else:
            found = sorted(_runs_below(directory), key=_natural_order)
            walked = True
            if not found:
                problems.append(_nothing_in(directory))
        for each in found:
            name = path if each == directory else str(each)
            file = Path(path) if path.endswith(".json") else each / "report.json"
            if file.is_file():
                run = Run(name, each, _read(file), _settings(each / "config.yaml"))
                finished.append(
                    run._replace(report=run.report | {"metrics": without_certain(run.report["metrics"], run.chance)})
                )
            elif path.endswith(".json"):
                problems.append(f"{file} does not exist: name the directory of a finished run")
            else:
                unfinished.append(name)
    if problems:
        raise ConfigError(problems)
    return Runs(finished, unfinished, walked)


def _expanded(path: str) -> list[str]:
    """Return the paths that match a pattern that the shell has not expanded, or the path itself."""
    path = os.path.expanduser(path)
    return [path] if os.path.exists(path) else sorted(glob.glob(path), key=_natural_order) or [path]


def _is_run(directory: Path) -> bool:
    return (directory / "report.json").is_file() or (directory / "config.yaml").is_file()


def _runs_below(directory: Path) -> Iterator[Path]:
    """Yield the run directories below a folder, but not those inside of another run."""
    for parent, folders, files in os.walk(directory):
        if {"report.json", "config.yaml"} & set(files):
            folders.clear()
            yield Path(parent)


def _natural_order(path: str | Path) -> list[tuple[int, str]]:
    """Return a key that sorts numbers in names by their values.

    >>> sorted(["lr=1,10", "lr=1,9", "10", "9"], key=_natural_order)
    ['9', '10', 'lr=1,9', 'lr=1,10']
    """
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]


def _nothing_in(directory: Path) -> str:
    if directory.is_dir():
        return f"{directory} contains no runs: name run directories, or the folder of a sweep"
    siblings = [str(each) for each in directory.parent.glob("*") if each.is_dir()]
    missing = f"{directory / 'report.json'} does not exist: name the directory of a finished run"
    return missing + did_you_mean(str(directory), siblings)


def _read(file: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        report = {}
    if not isinstance(report, dict) or not {"command", "metrics", "protocol"} <= report.keys():
        raise ConfigError([f"{file} is not the report of a run: name the directory of a finished run"])
    return report


def _settings(file: Path) -> dict[str, Any]:
    """Return the settings of a run, except for where it was written."""
    if not file.is_file():
        return {}
    settings = flat(saved_settings(file))
    return {name: value for name, value in settings.items() if name not in ("run.dir", "run.resume")}


def flat(card: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the entries of nested dictionaries, and of lists of them, by their path.

    >>> flat({"input": {"size": 112}, "views": [{"flip": 0.5}]})
    {'input.size': 112, 'views.0.flip': 0.5}
    """
    entries: dict[str, Any] = {}
    for name, value in card.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            value = dict(zip(map(str, range(len(value))), value, strict=True))
        if isinstance(value, dict):
            entries |= flat(value, f"{prefix}{name}.")
        else:
            entries[prefix + name] = value
    return entries
