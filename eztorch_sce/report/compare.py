"""Comparison of runs: their metrics, and the differences between their protocol cards."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from eztorch_sce.chance import Chance
from eztorch_sce.errors import ConfigError
from eztorch_sce.printing import PlainConsole
from eztorch_sce.report.tables import chance_columns

Row = tuple[str, list[Any]]
"""Name of an entry, and its value in each run; None if a run lacks it."""


def compare(run_dirs: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """Return the metrics of runs by name, and the entries in which their protocol cards differ.

    Args:
        run_dirs: Run directories, or their `report.json`.

    Raises:
        ConfigError: If there are fewer than two runs, or one has no report.
    """
    reports = _read(run_dirs)
    metrics = _side_by_side([_current_names(report["metrics"]) for report in reports])
    cards = _side_by_side([{"command": report["command"], **_flat(report["protocol"])} for report in reports])
    return metrics, [(name, values) for name, values in cards if any(value != values[0] for value in values)]


def print_comparison(run_dirs: Sequence[str]) -> None:
    """Print the metrics, each beside its chance level, and the differences that `compare` returns."""
    metrics, differences = compare(run_dirs)
    console = PlainConsole()
    chances = [
        {name: Chance(**chance) for name, chance in report.get("chance", {}).items()} for report in _read(run_dirs)
    ]
    columns = chance_columns([name for name, _ in metrics], chances)
    numbers = [
        (name, [*("" if value is None else f"{value:.4f}" for value in values), *(c[row] for c in columns.values())])
        for row, (name, values) in enumerate(metrics)
    ]
    console.print(_table("metric", [*run_dirs, *columns], numbers, justify="right"))
    if not differences:
        console.print("The protocol cards are identical: the metrics are comparable.")
        return
    console.print("Differences between the protocol cards:")
    texts = [
        (name, ["not recorded" if value is None else str(value) for value in values]) for name, values in differences
    ]
    console.print(_table("protocol", run_dirs, texts, justify="left"))


def _read(run_dirs: Sequence[str]) -> list[dict[str, Any]]:
    problems = []
    if len(run_dirs) < 2:
        problems.append("compare takes at least two run directories: eztorch-sce compare RUN RUN ...")
    paths = [Path(os.path.expanduser(name)) for name in run_dirs]
    files = [path if path.suffix == ".json" else path / "report.json" for path in paths]
    missing = [file for file in files if not file.is_file()]
    problems += [f"{file} does not exist: name the directory of a finished run" for file in missing]
    if problems:
        raise ConfigError(problems)
    reports = []
    for file in files:
        report = json.loads(file.read_text())
        if not {"command", "metrics", "protocol"} <= report.keys():
            raise ConfigError([f"{file} is not the report of a run: name the directory of a finished run"])
        reports.append(report)
    return reports


def _current_names(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return metrics under their current names: reports of version 0.1 spell `R@1_uncentred`."""
    return {name.replace("_uncentred", "_uncentered"): value for name, value in metrics.items()}


def _side_by_side(columns: list[dict[str, Any]]) -> list[Row]:
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name) for column in columns]) for name in names]


def _flat(card: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in card.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            value = dict(zip(map(str, range(len(value))), value, strict=True))
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _table(
    title: str, run_dirs: Sequence[str], rows: list[tuple[str, list[str]]], justify: Literal["left", "right"]
) -> Table:
    table = Table()
    table.add_column(title, no_wrap=True)
    for name in run_dirs:
        table.add_column(name, justify=justify, overflow="fold")
    for name, values in rows:
        table.add_row(name, *values)
    return table
