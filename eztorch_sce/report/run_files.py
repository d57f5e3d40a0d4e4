"""Files of a run directory, typed: what the page of a run is made from."""

import csv
import glob
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eztorch_sce.config.saved import saved_settings
from eztorch_sce.errors import ConfigError, did_you_mean, first_line
from eztorch_sce.files import open_text
from eztorch_sce.report.finished_runs import flat
from eztorch_sce.report.run_history import History

_DEPTH = 2  # folders between a demo, study or sweep and its runs
_WITHOUT_RUNS = ("videos", "tensorboard", "report", "measure")  # folders of a run directory, not worth walking


@dataclass(frozen=True)
class RunFiles:
    """A run directory. Files are read when they are first used; those that a run has not written count as empty.

    Attributes:
        directory: The run directory.
        name: What the page calls the run, such as its directory as typed.
    """

    directory: Path
    name: str = field(compare=False)

    @property
    def is_finished(self) -> bool:
        """Whether the run has written its report."""
        return bool(self.report)

    @cached_property
    def command(self) -> str:
        """The command of the run, such as "pretrain"; empty for a folder of runs."""
        if self.report:
            return str(self.report.get("command", ""))
        file = self.directory / "config.yaml"
        if not file.is_file():
            return ""
        with open_text(file) as stream:
            return stream.readline().removeprefix("# eztorch-sce").strip()

    @cached_property
    def config(self) -> dict[str, Any]:
        """Content of `config.yaml`, nested."""
        file = self.directory / "config.yaml"
        if not file.is_file():
            return {}
        try:
            return saved_settings(file)
        except Exception as error:  # whatever YAML and OmegaConf raise
            raise ConfigError([f"{file} cannot be read: {first_line(error)}"]) from None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Content of `config.yaml`, flat, such as "optimizer.lr"."""
        return flat(self.config)

    @cached_property
    def report(self) -> dict[str, Any]:
        """Content of `report.json`."""
        report: dict[str, Any] = _json(self.directory / "report.json")
        return report

    @cached_property
    def study(self) -> dict[str, Any]:
        """Content of `study.json`, the results of a study."""
        study: dict[str, Any] = _json(self.directory / "study.json")
        return study

    @cached_property
    def versions(self) -> dict[str, str]:
        """Content of `versions.json`."""
        versions: dict[str, str] = _json(self.directory / "versions.json")
        return versions

    @cached_property
    def metrics(self) -> dict[str, npt.NDArray[np.float64]]:
        """Columns of `metrics.csv`, float64 (N,), NaN where a row has no number."""
        rows = _rows(self.directory / "metrics.csv")
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: np.array([_number(row.get(name)) for row in rows], dtype=np.float64) for name in names}

    @cached_property
    def history(self) -> History:
        """Content of `history.json`, the processes that worked on the run."""
        return History.read(self.directory)

    @cached_property
    def predictions(self) -> list[dict[str, str]]:
        """Rows of `predictions.csv`, one per test record."""
        return _rows(self.directory / "predictions.csv")

    @cached_property
    def by_class(self) -> list[dict[str, str]]:
        """Rows of `by_class.csv`, one per class."""
        return _rows(self.directory / "by_class.csv")

    @cached_property
    def unreadable(self) -> list[dict[str, str]]:
        """Rows of `unreadable.csv`, one per record that could not be read."""
        return _rows(self.directory / "unreadable.csv")

    @cached_property
    def sample(self) -> Mapping[str, Any] | None:
        """Content of `sample.pt`, features of at most 5000 records; None if there is no such file."""
        from eztorch_sce.torch_file import read  # imports PyTorch, which pages without samples do not need

        file = self.directory / "sample.pt"
        if not file.is_file():
            return None
        content: dict[str, Any] = read(file)
        return content

    @cached_property
    def evaluations(self) -> list["RunFiles"]:
        """Runs that used the weights of this one, and those in folders below it, each once."""
        found = {self.directory.resolve(): self}
        queue = [self]
        while queue:
            run = queue.pop(0)
            for directory in [*run._linked(), *run._below()]:
                if (resolved := directory.resolve()) not in found:
                    found[resolved] = RunFiles(directory, _name_beside(directory, self.directory))
                    queue.append(found[resolved])
        return list(found.values())[1:]

    def _linked(self) -> list[Path]:
        names = _json(self.directory / "evaluations.json")
        paths = [Path(os.path.normpath(self.directory / name)) for name in names if isinstance(name, str)]
        return [path for path in paths if is_run(path)]

    def _below(self) -> list[Path]:
        return sorted(_runs_below(self.directory, _DEPTH))


def open_runs(paths: Sequence[str]) -> tuple[list[RunFiles], list[str]]:
    """Return the runs that the paths name, and one message per path that does not exist or holds no run.

    A path is that of a run directory, a file in one, a folder of runs, or a pattern of these. A run that is named twice
    is returned once.
    """
    found: dict[Path, RunFiles] = {}
    problems = [] if paths else ["RUN is missing: name a run directory, such as runs/pretrain-1"]
    for path in (each for typed in paths for each in _expanded(typed)):
        directory = Path(path).parent if os.path.isfile(path) else Path(path)
        if not directory.is_dir():
            siblings = [str(each) for each in directory.parent.glob("*") if each.is_dir()]
            problems.append(f"RUN={path} does not exist{did_you_mean(path, siblings)}")
        elif not is_run(directory) and not any(_runs_below(directory, _DEPTH)):
            problems.append(
                f"RUN={path} holds no run (config.yaml or report.json): name the directory that a command wrote, or a "
                "folder of such directories"
            )
        else:
            found.setdefault(directory.resolve(), RunFiles(directory, ""))
    names = _short_names(list(found))
    return [replace(run, name=name) for run, name in zip(found.values(), names, strict=True)], problems


def _short_names(directories: Sequence[Path]) -> list[str]:
    """Return the ends of paths by which they can be told apart.

    >>> _short_names([Path("/runs/a/0"), Path("/runs/b/0")]), _short_names([Path("/runs/mine")])
    (['a/0', 'b/0'], ['mine'])
    """
    deepest = max((len(path.parts) for path in directories), default=1)
    for length in range(1, deepest + 1):
        names = ["/".join(path.parts[-length:]) for path in directories]
        if len(set(names)) == len(names):
            return names
    return list(map(str, directories))


def _expanded(path: str) -> list[str]:
    """Return the paths that match a pattern that the shell has not expanded, or the path itself."""
    path = os.path.expanduser(path)
    return [path] if os.path.exists(path) else sorted(glob.glob(path)) or [path]


def all_runs(runs: Sequence[RunFiles]) -> list[RunFiles]:
    """Return these runs and all that belong to them, each once, with names by which they can be told apart."""
    typed = {run.directory.resolve(): run for run in runs}
    found: dict[Path, RunFiles] = {}
    for run in runs:
        for each in [run, *run.evaluations]:
            place = each.directory.resolve()
            found.setdefault(place, typed.get(place, each))
    counts = Counter(run.name for run in found.values())
    alike = [place for place, run in found.items() if counts[run.name] > 1]
    for place, name in zip(alike, _short_names(alike), strict=True):
        found[place] = replace(found[place], name=name)
    return list(found.values())


def is_run(directory: Path) -> bool:
    """Return whether a directory is that of a run, finished or not."""
    return (directory / "report.json").is_file() or (directory / "config.yaml").is_file()


def _runs_below(directory: Path, depth: int) -> Iterator[Path]:
    """Yield the run directories in the folders of a directory, but not those inside of other runs."""
    for entry in directory.iterdir() if directory.is_dir() else []:
        if entry.name in _WITHOUT_RUNS or not entry.is_dir():
            continue
        if is_run(entry):
            yield entry
        elif depth > 1:
            yield from _runs_below(entry, depth - 1)


def _name_beside(directory: Path, base: Path) -> str:
    """Return the path of a run as a reader of the page of another run would write it."""
    if directory.is_relative_to(base):
        return str(directory.relative_to(base))
    return directory.name


def _json(file: Path) -> Any:
    if not file.is_file():
        return {}
    try:
        with open_text(file) as stream:
            return json.load(stream)
    except ValueError as error:
        raise ConfigError([f"{file} cannot be read: {first_line(error)}"]) from None


def _rows(file: Path) -> list[dict[str, str]]:
    """Return the complete rows of a CSV file, which a run may be writing."""
    if not file.is_file():
        return []
    with open_text(file) as stream:
        return [{name: value for name, value in row.items() if name and value} for row in csv.DictReader(stream)]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
