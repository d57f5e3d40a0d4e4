"""The directory of a run: what went in, what came out."""

import csv
import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from eztorch_sce import __version__
from eztorch_sce.config.compose import to_yaml
from eztorch_sce.distributed import rank
from eztorch_sce.errors import ConfigError
from eztorch_sce.launch import find_launch, is_first_process
from eztorch_sce.types import Report

_DIR_VARIABLE = "EZTORCH_SCE_RUN_DIR"  # how the processes that Lightning starts learn the directory of the first
PACKAGES = (
    "torch",
    "torchvision",
    "pytorchvideo",
    "pytorch-lightning",
    "hydra-core",
    "av",
    "decord",
    "eva-decord",
    "numpy",
    "scikit-learn",
)


def open_run(command: str, config: Any) -> Path:
    """Make the run directory and write `config.yaml` and `versions.json`.

    Raises:
        ConfigError: If the directory holds a run already and `run.resume` is not set, or is to be resumed and holds
            none, or several processes would each choose their own.
    """
    launch, first = find_launch(), is_first_process()
    directory = config.run.dir if first else config.run.dir or os.environ.get(_DIR_VARIABLE)
    if directory is None and launch is not None and launch.world_size > 1:
        raise ConfigError([f"run.dir is not set: the {launch.world_size} processes need one directory (run.dir=...)"])
    if not first:
        return Path(directory)
    run_dir = Path(config.run.dir) if config.run.dir is not None else _next_free(command)
    if config.run.resume and not (run_dir / "last.ckpt").is_file():
        raise ConfigError([f"run.resume=true, but {run_dir}/last.ckpt is not there: nothing to go on from"])
    if not config.run.resume and (run_dir / "config.yaml").exists():
        raise ConfigError(
            [f"run.dir={run_dir} holds a run already: choose another directory, or go on with run.resume=true"]
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    os.environ[_DIR_VARIABLE] = str(run_dir)
    (run_dir / "config.yaml").write_text(f"# eztorch-sce {command}\n{to_yaml(config)}")
    (run_dir / "versions.json").write_text(json.dumps(versions(), indent=2) + "\n")
    return run_dir


def versions() -> dict[str, str]:
    """Return the versions of this package and of those that shape its numbers."""
    found = {"eztorch_sce": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_report(report: Report) -> Report:
    """Write `report.json`, on the first process; return the report."""
    if rank() == 0:
        content = {**asdict(report), "run_dir": str(report.run_dir), "versions": versions()}
        (report.run_dir / "report.json").write_text(json.dumps(content, indent=2) + "\n")
    return report


def write_by_class(run_dir: Path, by_class: dict[str, dict[str, float]]) -> None:
    """Write the numbers of each class to `by_class.csv`, on the first process."""
    if rank() == 0:
        with (run_dir / "by_class.csv").open("w", newline="") as stream:
            rows = csv.DictWriter(stream, ["class", *next(iter(by_class.values()))])
            rows.writeheader()
            rows.writerows({"class": name, **numbers} for name, numbers in by_class.items())


def _next_free(command: str) -> Path:
    number = 1
    while (directory := Path("runs") / f"{command}-{number}").exists():
        number += 1
    return directory
