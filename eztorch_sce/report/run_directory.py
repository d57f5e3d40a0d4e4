"""Run directories: the settings and package versions at the start of a run, and its results."""

import csv
import datetime
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol

from eztorch_sce import distributed
from eztorch_sce.config.compose import to_yaml
from eztorch_sce.errors import ConfigError
from eztorch_sce.files import open_text, replacing, write_text
from eztorch_sce.launch import is_first_process
from eztorch_sce.report.versions import installed_versions
from eztorch_sce.training.config import RunConfig
from eztorch_sce.types import Report

_HEADER = "# eztorch-sce "  # of config.yaml, before the command
_DIRS_VARIABLE = "EZTORCH_SCE_RUN_DIRS"  # tells processes that Lightning starts the directories of the first so far


class RunSettings(Protocol):
    """A config of any command that writes a run directory."""

    run: RunConfig


def open_run(command: str, config: RunSettings) -> Path:
    """Return the run directory, the same in all processes. The first creates it, with config.yaml and versions.json.

    Raises:
        ConfigError: If the directory already contains a run and `run.resume` is not set, if there is nothing to resume,
            or, in every process, if one of several processes could not come this far.
    """
    distributed.join()
    if distributed.world_size() > 1 or is_first_process():
        return Path(distributed.decide_together(lambda: str(_create(command, config))))
    return _repeated(config)


_opened: list[str] = []  # run directories of this process, in order
_started: dict[str, float] = {}  # when the run directories of this process were opened, by their paths


def checked_run_dir(command: str, config: RunSettings) -> Path:
    """Return the run directory that a command will create or resume; creates nothing.

    Raises:
        ConfigError: If the directory contains a run of another command, or one of this command and `run.resume` is not
            set, if there is nothing to resume, or if it cannot be written.
    """
    run_dir = _next_free(command) if config.run.dir is None else Path(config.run.dir)
    if (earlier := _command_of(run_dir)) not in ("", command):
        raise ConfigError([f"run.dir={run_dir} already contains a run of {earlier}: choose another directory"])
    if config.run.resume and not (run_dir / "last.ckpt").is_file():
        raise ConfigError(
            [
                f"run.resume=true, but {run_dir}/last.ckpt does not exist: there is nothing to resume; name the "
                "directory of an interrupted run, or remove run.resume"
            ]
        )
    if not config.run.resume and (run_dir / "config.yaml").exists():
        cure = ", or resume it with run.resume=true" if (run_dir / "last.ckpt").is_file() else ""
        raise ConfigError([f"run.dir={run_dir} already contains a run: choose another directory{cure}"])
    parent = existing_parent(run_dir)
    if not parent.is_dir():
        raise ConfigError([f"run.dir={run_dir} cannot be created because {parent} is a file: choose another directory"])
    if not os.access(parent, os.W_OK):
        raise ConfigError([f"run.dir={run_dir}: no permission to write to {parent}; choose another directory"])
    return run_dir


def _command_of(run_dir: Path) -> str:
    """Return the command whose run a directory holds, such as "pretrain"; "" without a run, or if it is not known."""
    try:
        with open_text(run_dir / "config.yaml") as stream:
            first = stream.readline()
    except OSError:
        return ""
    return first.removeprefix(_HEADER).strip() if first.startswith(_HEADER) else ""


def existing_parent(path: Path) -> Path:
    """Return a path itself, or the nearest folder above it that exists."""
    return next((each for each in (path, *path.absolute().parents) if each.exists()), Path("/"))


def _create(command: str, config: RunSettings) -> Path:
    """Create the run directory."""
    run_dir = checked_run_dir(command, config)
    run_dir.mkdir(parents=True, exist_ok=True)
    _opened.append(str(run_dir))
    _started[str(run_dir)] = time.monotonic()
    os.environ[_DIRS_VARIABLE] = json.dumps(_opened)
    write_text(run_dir / "config.yaml", f"{_HEADER}{command}\n{to_yaml(config)}")
    _write_json(run_dir / "versions.json", installed_versions())
    return run_dir


def _repeated(config: RunSettings) -> Path:
    """Return the directory that the first process created, for a process that repeats its commands."""
    all_dirs: list[str] = json.loads(os.environ.get(_DIRS_VARIABLE, "[]"))
    run_dir = all_dirs[len(_opened)] if len(_opened) < len(all_dirs) else config.run.dir
    if run_dir is None:
        raise ConfigError(["run.dir is not set: processes on several machines need a common directory (run.dir=...)"])
    _opened.append(run_dir)
    return Path(run_dir)


def write_report(report: Report) -> Report:
    """Write `report.json` in the first process, and return the report, in every process with the metrics of the first.

    Processes that choose by a metric, such as the loss of their share of the data, thus choose the same.
    """
    report = replace(report, metrics=distributed.from_first(report.metrics))
    if is_first_process():
        content = {**asdict(report), "run_dir": str(report.run_dir), "versions": installed_versions()}
        content["folder"] = str(Path.cwd())  # which relative paths of config.yaml start from
        content["finished"] = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
        if (started := _started.get(str(report.run_dir))) is not None:
            content["seconds"] = round(time.monotonic() - started, 1)  # of this process: a resumed run took longer
        _write_json(report.run_dir / "report.json", content)
    return report


def write_by_class(run_dir: Path, by_class: dict[str, dict[str, float]]) -> None:
    """Write the metrics of each class to `by_class.csv` in the first process."""
    if not is_first_process():
        return
    columns = ["class", *next(iter(by_class.values()))]
    with replacing(run_dir / "by_class.csv") as partial, open_text(partial, "w") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows({"class": name, **metrics} for name, metrics in by_class.items())


def _write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def _next_free(command: str) -> Path:
    number = 1
    while (directory := Path("runs") / f"{command}-{number}").exists():
        number += 1
    return directory
