"""Tables for the terminal."""

from rich.console import Console
from rich.table import Table

from eztorch_sce.distributed import rank
from eztorch_sce.types import Report


def print_report(report: Report) -> None:
    """Print the numbers of a run and where its files are."""
    if rank() != 0:
        return
    table = Table(title=report.command, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in report.metrics.items():
        table.add_row(name, f"{value:.4f}".rstrip("0").rstrip("."))
    console = Console()
    console.print(table)
    console.print(f"written to {report.run_dir}", highlight=False, soft_wrap=True)


def print_recipes(recipes: dict[str, dict[str, str]]) -> None:
    """Print the recipes: name, command, source, expected number, hardware."""
    table = Table(title="eztorch-sce <command> recipe=NAME", title_justify="left")
    columns = ("command", "source", "expected", "hardware")
    table.add_column("recipe", no_wrap=True)
    for column in columns:
        table.add_column(column)
    for name, header in recipes.items():
        table.add_row(name, *(header.get(column, "") for column in columns))
    Console().print(table)
