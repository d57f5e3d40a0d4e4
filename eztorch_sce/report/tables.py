"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from eztorch_sce.launch import is_first_process
from eztorch_sce.metric_facts import facts_of
from eztorch_sce.printing import PlainConsole, lines, print_line, print_wrapped

if TYPE_CHECKING:  # torch takes seconds to import
    from eztorch_sce.chance import Chance
    from eztorch_sce.planning.plan import Plan
    from eztorch_sce.types import Report

_GIB, _MIB = 2**30, 2**20
_NARROW = 0.05  # an interval that is narrower is shown with three digits


def print_report(report: Report) -> None:
    """Print the metrics of a run, which way is good, what they would be by guessing, and the run's directory.

    Only the first process prints.
    """
    if not is_first_process():
        return
    console = PlainConsole()
    table = Table(title=report.command, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    columns = {"better": [facts_of(name).better or "" for name in report.metrics]}
    columns |= chance_columns(list(report.metrics), [report.chance])
    columns = {title: cells for title, cells in columns.items() if any(cells)}
    for title in columns:
        table.add_column(title, justify="right", max_width=len("largest"))
    for number, (name, value) in enumerate(report.metrics.items()):
        beside = [cells[number] for cells in columns.values()]
        table.add_row(name, value_text(value, report.intervals.get(name)), *beside)
    if report.metrics:
        console.print(table)
    else:
        print_wrapped(f"{report.command}: no metrics; with a single class, chance alone brings every one to 1")
    for line in [records_line(report.chance), interval_line(report)]:
        if line:
            print_wrapped(line)
    if seen := report.protocol.get("seen_in_pretraining"):
        print_wrapped(seen_line(seen))
    print_line(f"written to {report.run_dir}")


def metric_title(name: str) -> Text:
    """Return a metric for a table, with a second line that says which way is good."""
    better = facts_of(name).better
    return lines(name) if better is None else lines(name, f"{better} is better")


def value_text(value: float, interval: Sequence[float] | None = None) -> str:
    """Return a metric for a table, with its interval if it has one.

    >>> value_text(0.68, [0.6, 0.76]), value_text(0.76213, [0.75841, 0.76587]), value_text(16.0)
    ('0.680 [0.60, 0.76]', '0.7621 [0.758, 0.766]', '16')
    """
    if interval is None:
        return f"{value:.4f}".rstrip("0").rstrip(".")
    low, high = interval
    digits = 3 if 0 < high - low < _NARROW else 2
    return f"{value:.{digits + 1}f} [{low:.{digits}f}, {high:.{digits}f}]"


def records_line(chance: Mapping[str, Chance]) -> str:
    """Return on how many records metrics were measured, in words; "" if that is not known.

    >>> from eztorch_sce.chance import Chance
    >>> records_line({"linear_top1": Chance(0.1, 69), "linear_train_top1": Chance(0.1, 148, split="train")})
    'measured on 69 test records (linear_train_top1: 148 train records)'
    """
    names: dict[str, list[str]] = {}
    for name, level in chance.items():
        names.setdefault(f"{level.records} {level.split} records", []).append(name)
    if not names:
        return ""
    most, *others = sorted(names, key=lambda records: len(names[records]) + records.endswith("test records") / 2)[::-1]
    rest = "; ".join(f"{', '.join(names[records])}: {records}" for records in others)
    return f"measured on {most}{f' ({rest})' if rest else ''}"


def interval_line(report: Report) -> str:
    """Return what the intervals of a report are, in words; "" without intervals."""
    if not report.intervals:
        return ""
    over = "tasks" if report.command == "few-shot" else "test records"
    return f"in brackets: 95% confidence interval over the {over}"


def seen_line(card: Mapping[str, Any]) -> str:
    """Return how many test records were seen in pretraining, in words.

    >>> seen_line({"seen": 0, "test_records": 40})
    'test records seen in pretraining: 0 of 40'
    >>> seen_line({"seen": None, "test_records": 40, "reason": "weights file of an earlier version"})
    'test records seen in pretraining: unknown (weights file of an earlier version)'
    """
    known, unknown = f"{card['seen']} of {card['test_records']}", f"unknown ({card.get('reason')})"
    return f"test records seen in pretraining: {known if card['seen'] is not None else unknown}"


def chance_columns(names: Sequence[str], runs: Sequence[Mapping[str, Chance]]) -> dict[str, list[str]]:
    """Return the columns that stand beside the metrics of one or more runs, by title. Empty columns are omitted.

    Runs that agree share a cell; otherwise it holds the value of each run, such as "0.1 / 0.125".

    Args:
        names: Names of the metrics, one per row.
        runs: Chance levels of each run, by metric.
    """
    columns: dict[str, list[str]] = {"chance": [], "largest class": []}
    for name in names:
        by_run = [run[name].cells()[:2] if name in run else ("", "") for run in runs]
        for column, cells in zip(columns.values(), zip(*by_run, strict=True), strict=True):
            column.append(cells[0] if len(set(cells)) == 1 else " / ".join(cell or "-" for cell in cells))
    return {title: cells for title, cells in columns.items() if any(cells)}


def print_plan(plan: Plan) -> None:
    """Print the estimated cost of a pretraining and the assumptions behind it."""
    print_wrapped(plan.title)
    _print_columns("parameters", ("M",), {name: (count / 1e6,) for name, count in plan.parameters.items()})
    flops = {name: (each.forward / 1e9, each.backward / 1e9) for name, each in plan.flops.items()}
    _print_columns("training step, per sample", ("GFLOP forward", "GFLOP backward"), flops)
    print_line(f"backbone, one view, forward: {plan.view_flops / 1e9:.2f} GFLOP")
    memory = {name: (size.at(plan.batch) / _GIB, size.per_sample / _MIB) for name, size in plan.memory.items()}
    _print_columns(f"memory per device, batch {plan.batch}", ("GiB", "MiB per sample"), memory)
    if sent := {name: (count / 1e6,) for name, count in plan.network.items() if count}:
        _print_columns("sent by each device per optimizer step", ("MB",), sent)
    if plan.scales:
        _print_scales(plan)
    for line in [*plan.verdict(), *plan.advice]:
        print_wrapped(line)
    for line in plan.assumptions:
        print_wrapped(f"- {line}")


def _print_scales(plan: Plan) -> None:
    """Print the estimated time of a step on several numbers of devices, in milliseconds."""
    console = PlainConsole()
    console.print("estimated step, the same batch on other numbers of devices", style="italic")
    table = Table("devices", "batch per device", "fits", "device ms", "host ms", "network ms", "step ms")
    for column in table.columns:
        column.justify = "right"
    for scale in plan.scales:
        time = scale.time
        seconds = (time.device_s, time.host_s, time.network_s, time.total_s)
        fits = "yes" if scale.memory <= plan.usable else "no"
        table.add_row(str(scale.num_devices), str(scale.batch), fits, *(f"{1e3 * each:.1f}" for each in seconds))
    console.print(table)


def _print_columns(title: str, units: tuple[str, ...], rows: Mapping[str, tuple[float, ...]]) -> None:
    """Print a table of numbers with their totals at the bottom."""
    console = PlainConsole()
    console.print(title, style="italic")  # Table(title=...) would wrap it at the table's width
    table = Table("component", show_footer=True)
    table.columns[0].footer = "total"
    for unit, total in zip(units, map(sum, zip(*rows.values(), strict=True)), strict=True):
        table.add_column(unit, f"{total:.2f}", justify="right")
    for name, values in rows.items():
        table.add_row(name, *(f"{value:.2f}" if value else "" for value in values))
    console.print(table)
