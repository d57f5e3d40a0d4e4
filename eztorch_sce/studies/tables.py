"""Tables of a study for the terminal, under 80 columns, and `study.txt`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from eztorch_sce.files import open_text, replacing
from eztorch_sce.printing import PlainConsole, wrapped
from eztorch_sce.progress import in_words
from eztorch_sce.studies.conclusion import TITLES

_WIDTH = 79
_MOST_COLUMNS = 4  # of metrics, which fit into the width


def print_plan(plan: Mapping[str, Any], minutes: float) -> None:
    """Print what a study will do, and how long each stage is expected to take.

    Args:
        plan: Its rows.
        minutes: Time of the study.
    """
    table = Table(title=f"plan for {minutes:g} minutes", title_justify="left")
    table.add_column("stage")
    table.add_column("about", justify="right")
    table.add_column("")
    for row in plan["rows"]:
        table.add_row(row["stage"], in_words(row["seconds"]) if row["seconds"] else "", row["note"])
    table.add_section()
    table.add_row("total", in_words(sum(row["seconds"] for row in plan["rows"])), "")
    PlainConsole(stderr=True, width=_WIDTH).print(table)


def print_study(directory: Path, content: Mapping[str, Any]) -> None:
    """Print the results and the conclusion of a study, and write them to `study.txt`."""
    _print(PlainConsole(width=_WIDTH), content)
    with replacing(directory / "study.txt") as partial, open_text(partial, "w") as stream:
        _print(PlainConsole(file=stream, width=_WIDTH), content)


def _print(console: PlainConsole, content: Mapping[str, Any]) -> None:
    networks, records, found = content["networks"], content["records"], content["conclusion"]
    if records["test"]:
        title = f"{records['test']} test {records['kind']}s, {len(records['classes'])} classes (higher is better)"
        console.print(_results(networks, title))
        console.print()
    for text in (found["headline"], *found["sentences"]):
        for line in wrapped(text, _WIDTH - 2):
            console.print(line, soft_wrap=True)
    if found["command"]:
        which = "with these views" if found["is_supported"] else "with the cheapest views"
        console.print()
        console.print(f"A longer training {which}, about {found['time']} on this machine:")
        console.print(found["command"], soft_wrap=True)


def _results(networks: Mapping[str, Any], title: str) -> Table:
    """Return the table of all networks: each metric with its confidence interval."""
    shown = [name for name in TITLES if any(name in each["metrics"] for each in networks.values())]
    if len(shown) > _MOST_COLUMNS:
        shown.remove("R@1")
    table = Table(title=title, title_justify="left", padding=(0, 0, 0, 1))
    table.add_column("network")
    for name in shown:
        table.add_column(TITLES[name], justify="right", no_wrap=True)
    chance = {name: level for each in networks.values() for name, level in each["chance"].items()}
    table.add_row("chance", *(f"{chance[name]:.2f}" if name in chance else "" for name in shown))
    for network, each in networks.items():
        table.add_row(network, *(_cell(each, name) for name in shown))
    return table


def _cell(network: Mapping[str, Any], name: str) -> str:
    """Return a metric and its interval, such as "0.63 .51-.74"."""
    if name not in network["metrics"]:
        return ""
    low, high = (f"{end:.2f}".removeprefix("0") for end in network["intervals"][name])
    return f"{network['metrics'][name]:.2f} {low}-{high}"
