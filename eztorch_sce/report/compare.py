"""Comparison of runs: their metrics, and the differences between their protocol cards."""

import json
from collections.abc import Sequence
from glob import glob
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from eztorch_sce.errors import ConfigError
from eztorch_sce.printing import PlainConsole, lines, print_line, print_wrapped
from eztorch_sce.report.finished_runs import Run, Runs, find_runs, flat
from eztorch_sce.report.sweep_table import below_common_folder, print_sweep, sweep_tables
from eztorch_sce.report.tables import chance_columns, metric_title, records_line, value_text
from eztorch_sce.settings import show

Row = tuple[str, list[Any]]
"""Name of an entry, and its value in each run; None if a run lacks it."""

_LISTS = tuple(f"data_summary.classes.{name}" for name in ("names", "train", "test"))  # long, and counted elsewhere
_MOST_SIDE_BY_SIDE = 3  # more runs are rows
_JSON = "--json"
_LONGEST_NAME = 32  # of a setting on one line


def compare(run_dirs: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """Return the metrics of runs by name, and the entries in which their protocol cards differ.

    Args:
        run_dirs: Run directories, their `report.json`, or folders of runs, such as a sweep.

    Raises:
        ConfigError: If there are fewer than two finished runs, or a path holds no run.
    """
    runs = find_runs(run_dirs)
    if len(runs.finished) < 2:
        raise ConfigError(_too_few(runs))
    return _compare(runs.finished)


def _compare(runs: Sequence[Run]) -> tuple[list[Row], list[Row]]:
    reports = [run.report for run in runs]
    metrics = _side_by_side([_current_names(report["metrics"]) for report in reports])
    cards = _side_by_side([{"command": report["command"], **flat(report["protocol"])} for report in reports])
    return metrics, [
        (name, values) for name, values in cards if name not in _LISTS and any(value != values[0] for value in values)
    ]


def print_comparison(words: Sequence[str]) -> None:
    """Print the metrics of the runs that are named, and in what they differ.

    Up to three runs stand side by side, each metric beside its chance level, with the differences that `compare`
    returns. More runs, and those below a folder, are rows of one table, with the settings that differ.

    Args:
        words: Run directories, folders of runs, or patterns of them; `--json` prints the rows as JSON.

    Raises:
        ConfigError: If fewer than two runs are finished, or a path holds no run.
    """
    as_json = _JSON in words
    paths = [word for word in words if word != _JSON]
    if messages := [_no_path(word) for word in paths if word.startswith("-") or ("=" in word and not glob(word))]:
        raise ConfigError(messages)
    runs = find_runs(paths)
    if len(runs.finished) < 2:
        raise ConfigError(_too_few(runs))
    if as_json:
        rows = [row for table in sweep_tables(runs.finished) for row in table.rows()]
        return print(json.dumps(rows, indent=2))
    if runs.walked or len(runs.finished) > _MOST_SIDE_BY_SIDE:
        for table in sweep_tables(runs.finished):
            print_sweep(table)
    else:
        _print_side_by_side(runs.finished)
    for name in runs.unfinished:
        print_line(f"unfinished, without report.json: {name}")


def _no_path(word: str) -> str:
    """Return the message for a word that is neither a path nor the option."""
    return f"{word} is not an option of compare, which has only {_JSON}; runs are named by their directories"


def _too_few(runs: Runs) -> list[str]:
    found = f"only {runs.finished[0].name} is one" if runs.finished else "none is named"
    return [
        f"compare takes two or more finished runs, or a folder of them, but {found}: eztorch-sce compare RUN RUN ...",
        *(f"{name} is unfinished: it has no report.json" for name in runs.unfinished),
    ]


def _print_side_by_side(runs: Sequence[Run]) -> None:
    metrics, differences = _compare(runs)
    folder, names = below_common_folder([run.name for run in runs])
    console = PlainConsole()
    if folder:
        console.print(f"in {folder}:", style="italic", soft_wrap=True)
    columns = chance_columns([name for name, _ in metrics], [run.chance for run in runs])
    numbers = [
        (metric_title(name), _values(name, values, runs) + [lines(cells[row]) for cells in columns.values()])
        for row, (name, values) in enumerate(metrics)
    ]
    console.print(_table("metric", [*names, *columns], numbers, justify="right"))
    for line in _record_lines(runs, names):
        print_wrapped(line)
    if not differences:
        console.print("The protocol cards are identical: the metrics are comparable.")
        return
    console.print("Differences between the protocol cards:")
    texts = [(lines(*_broken(name)), [_cell(value) for value in values]) for name, values in differences]
    console.print(_table("protocol", names, texts, justify="left"))


def _values(name: str, values: Sequence[Any], runs: Sequence[Run]) -> list[Text]:
    """Return the values of a metric in all runs, each above its interval."""
    intervals = [run.report.get("intervals", {}).get(name) for run in runs]
    texts = ["" if v is None else value_text(v, interval) for v, interval in zip(values, intervals, strict=True)]
    return [lines(*text.replace(" [", "\n[").split("\n")) for text in texts]


def _cell(value: Any) -> Text:
    """Return an entry of a protocol card for a table; each text of a list gets a line."""
    if isinstance(value, list) and any(isinstance(item, str) for item in value):
        return lines(*map(show, value))
    return lines("not recorded" if value is None else show(value))


def _broken(name: str) -> list[str]:
    """Return the path of a setting, in two lines if it would take too much of the width of a terminal."""
    group, dot, setting = name.rpartition(".")
    return [name] if len(name) <= _LONGEST_NAME else [group + dot, f"  {setting}"]


def _record_lines(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Return on how many records the metrics were measured: one line, or one for each run if they differ."""
    lines = [records_line(run.chance) for run in runs]
    if len(set(lines)) == 1:
        return [line for line in lines[:1] if line]
    return [f"{name}: {line}" for name, line in zip(names, lines, strict=True) if line]


def _current_names(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return metrics under their current names: reports of version 0.1 spell `R@1_uncentred`."""
    return {name.replace("_uncentred", "_uncentered"): value for name, value in metrics.items()}


def _side_by_side(columns: list[dict[str, Any]]) -> list[Row]:
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name) for column in columns]) for name in names]


def _table(
    title: str,
    run_dirs: Sequence[str],
    rows: Sequence[tuple[Text, Sequence[Text]]],
    justify: Literal["left", "right"],
) -> Table:
    table = Table()
    table.add_column(title, no_wrap=True)
    for name in run_dirs:
        table.add_column(name, justify=justify, overflow="fold")
    for title_of_row, cells in rows:
        table.add_row(title_of_row, *cells)
    return table
