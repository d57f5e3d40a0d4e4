"""Tables of many runs, such as the jobs of a sweep: one row per run, with the settings that differ and the metrics."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from eztorch_sce.errors import shorten
from eztorch_sce.printing import PlainConsole, print_wrapped
from eztorch_sce.report.finished_runs import Run
from eztorch_sce.report.tables import metric_title, value_text
from eztorch_sce.settings import show


class _Row(NamedTuple):
    """A run, with the metrics and their intervals, to which those of the evaluations of its weights belong."""

    run: Run
    metrics: dict[str, Any]
    intervals: dict[str, Any]


_TECHNICAL = (
    *("views_per_s", "clips_per_s", "data_wait", "unreadable", "queue_age", "momentum"),
    *("host_memory_gib", "gpu_memory_gib"),
)


class SweepTable(NamedTuple):
    """Runs of one command.

    Attributes:
        command: The command.
        runs: Name of each run.
        settings: Values of the settings that differ, in each run, by name.
        alike: Names of settings that differ exactly as another one does, by the name of that one.
        metrics: Values of the metrics, in each run, by name.
        intervals: Confidence intervals of the metrics that have one, likewise.
    """

    command: str
    runs: list[str]
    settings: dict[str, list[Any]]
    alike: dict[str, list[str]]
    metrics: dict[str, list[Any]]
    intervals: dict[str, list[Any]]

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per run: its name, its command, the settings that differ, and its metrics."""
        return [
            {
                "run": name,
                "command": self.command,
                "settings": {setting: values[number] for setting, values in self.settings.items()},
                "metrics": {metric: values[number] for metric, values in self.metrics.items()},
                "intervals": {metric: intervals[number] for metric, intervals in self.intervals.items()},
            }
            for number, name in enumerate(self.runs)
        ]


def sweep_tables(runs: Sequence[Run]) -> list[SweepTable]:
    """Return a table for each command.

    Evaluations of the weights of another run are part of its row, unless they are several of a kind.
    """
    by_command: dict[str, list[_Row]] = {}
    for row in _with_evaluations(runs):
        by_command.setdefault(row.run.report["command"], []).append(row)
    return [_table_of(command, rows) for command, rows in by_command.items()]


def _table_of(command: str, rows: Sequence[_Row]) -> SweepTable:
    settings = {name: [row.run.settings.get(name) for row in rows] for row in rows for name in row.run.settings}
    differing = {name: values for name, values in settings.items() if any(value != values[0] for value in values)}
    kept, alike = _without_repetition(differing)
    names = dict.fromkeys(name for row in rows for name in row.metrics if name not in _TECHNICAL)
    columns = {name: [row.metrics.get(name) for row in rows] for name in names}
    intervals = {name: [row.intervals.get(name) for row in rows] for name in names}
    intervals = {name: values for name, values in intervals.items() if any(values)}
    return SweepTable(command, [row.run.name for row in rows], kept, alike, columns, intervals)


def print_sweep(table: SweepTable) -> None:
    """Print the table, in parts if it is wider than the terminal."""
    console = PlainConsole()
    folder, names = below_common_folder(table.runs)
    settings = {name: [_cell(value) for value in values] for name, values in table.settings.items()}
    numbers = {name: _numbers(name, table) for name in table.metrics}
    titles = {name: metric_title(name) for name in numbers}
    console.print(f"{table.command}, {folder}" if folder else table.command, style="italic", soft_wrap=True)
    first: dict[str, list[str]] = {"run": names}
    if _width(first | settings, {}) <= console.width / 2:
        first, columns = first | settings, numbers  # the settings are repeated in every part
    else:
        columns = settings | numbers
    for part in _parts(columns, titles, console.width - 1 - _width(first, titles)):
        shown = Table()
        for name in [*first, *part]:
            shown.add_column(titles.get(name, name), justify="right" if name in numbers else "left", overflow="fold")
        for cells in zip(*first.values(), *part.values(), strict=True):
            shown.add_row(*cells)
        console.print(shown)
    for name, others in table.alike.items():
        print_wrapped(f"differ as {name} does: {shorten(others, num=8)}")


def _numbers(name: str, table: SweepTable) -> list[str]:
    """Return the cells of a metric: four digits, or the value with its interval where runs have one."""
    values = table.metrics[name]
    if name not in table.intervals:
        return ["" if value is None else f"{value:.4f}" for value in values]
    pairs = zip(values, table.intervals[name], strict=True)
    return ["" if value is None else value_text(value, interval) for value, interval in pairs]


def below_common_folder(names: Sequence[str]) -> tuple[str, list[str]]:
    """Return the folder that all runs are in, and their paths in it.

    >>> below_common_folder(["runs/sweep/0", "runs/sweep/1"]), below_common_folder(["a", "b"])
    (('runs/sweep', ['0', '1']), ('', ['a', 'b']))
    """
    parents = {str(Path(name).parent) for name in names}
    if any(Path(name).is_absolute() for name in names) and not all(Path(name).is_absolute() for name in names):
        return "", list(names)
    folder = os.path.commonpath(parents)
    if folder in ("", ".", "/"):
        return "", list(names)
    return folder, [os.path.relpath(name, folder) for name in names]


def _with_evaluations(runs: Sequence[Run]) -> list[_Row]:
    """Return each run with its metrics, preceded by those of the evaluations of its weights."""
    rows = {
        run.directory.resolve(): _Row(run, dict(run.report["metrics"]), dict(run.report.get("intervals", {})))
        for run in runs
    }
    for run in runs:
        card = run.report["protocol"].get("weights")
        file = card.get("file") if isinstance(card, dict) and not card.get("untrained") else None
        if file is None:
            continue
        source = next((each for each in (Path(file).resolve(), Path(file).resolve().parent) if each in rows), None)
        if source is not None and not rows[source].metrics.keys() & run.report["metrics"].keys():
            own, trained = rows.pop(run.directory.resolve()), rows[source]
            rows[source] = _Row(trained.run, own.metrics | trained.metrics, own.intervals | trained.intervals)
    return list(rows.values())


def _without_repetition(differing: dict[str, list[Any]]) -> tuple[dict[str, list[Any]], dict[str, list[str]]]:
    """Return the settings of which no earlier one tells the same runs apart, and the others by that earlier one."""
    kept: dict[str, list[Any]] = {}
    alike: dict[str, list[str]] = {}
    first: dict[tuple[int, ...], str] = {}
    for name, values in differing.items():
        texts = list(map(_cell, values))
        pattern = tuple(map(texts.index, texts))
        if pattern in first:
            alike.setdefault(first[pattern], []).append(name)
        else:
            kept[name], first[pattern] = values, name
    return kept, alike


def _cell(value: Any) -> str:
    return "" if value is None else show(value)


def _width(columns: dict[str, list[str]], titles: Mapping[str, Text]) -> int:
    """Return the width of columns below their names, or below their titles if they have others."""
    names = {name: titles[name].plain.split("\n") if name in titles else [name] for name in columns}
    return sum(max(map(len, [*names[name], *cells])) + 3 for name, cells in columns.items())  # a border and two spaces


def _parts(columns: dict[str, list[str]], titles: Mapping[str, Text], room: int) -> list[dict[str, list[str]]]:
    """Divide columns into parts that each fit into `room` characters, or hold a single column."""
    parts: list[dict[str, list[str]]] = [{}]
    left = room
    for name, cells in columns.items():
        width = _width({name: cells}, titles)
        if parts[-1] and width > left:
            parts.append({})
            left = room
        parts[-1][name] = cells
        left -= width
    return parts
