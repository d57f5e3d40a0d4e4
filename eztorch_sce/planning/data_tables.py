"""The plan of data work as tables and sentences on stdout."""

from rich.table import Table

from eztorch_sce.planning.data_plan import DataPlan
from eztorch_sce.printing import PlainConsole, in_bytes, print_line, print_wrapped


def print_data_plan(plan: DataPlan) -> None:
    """Print the hours and bytes of each command, what limits it, and the assumptions."""
    print_wrapped(plan.title)
    _print_table("hours that each would take alone", _hours(plan), plan)
    _print_table("amounts", _amounts(plan), plan)
    for line in plan.advice:
        print_wrapped(line)
    print_line("assumptions (the settings in them can be set):")
    for line in plan.assumptions:
        print_wrapped(f"- {line}")


def _hours(plan: DataPlan) -> dict[str, list[str]]:
    """Return the hours of each resource by stage; the largest is marked."""
    rows: dict[str, list[str]] = {}
    resources = dict.fromkeys(load.resource for stage in plan.stages for load in stage.loads)
    for resource in [*resources, "driver"]:
        rows[resource] = [""] * len(plan.stages)
        for column, stage in enumerate(plan.stages):
            for load in (*stage.loads, stage.driver):
                if load.resource == resource:
                    mark = "*" if load is stage.bottleneck else ""
                    rows[resource][column] = f"{mark}{_in_hours(load.hours)}"
    rows["total"] = [_in_hours(stage.hours) for stage in plan.stages]
    return rows


def _amounts(plan: DataPlan) -> dict[str, list[str]]:
    return {
        "records": [f"{stage.num_records:,.0f}" for stage in plan.stages],
        "read": [in_bytes(stage.bytes_read) for stage in plan.stages],
        "written": [in_bytes(stage.bytes_written) for stage in plan.stages],
        "requests": [f"{stage.num_requests:,.0f}" for stage in plan.stages],
        "shards, receipts": [f"{plan.num_shards:,}"] * len(plan.stages),
        "outputs of shards": [in_bytes(stage.output_bytes) for stage in plan.stages],
        "memory of the driver": [in_bytes(stage.driver_bytes) for stage in plan.stages],
    }


def _print_table(title: str, rows: dict[str, list[str]], plan: DataPlan) -> None:
    console = PlainConsole()
    console.print(title, style="italic")  # Table(title=...) would wrap it at the table's width
    table = Table("", *(stage.name for stage in plan.stages))
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for name, cells in rows.items():
        if name == "total":
            table.add_section()
        table.add_row(name, *cells)
    console.print(table)


def _in_hours(hours: float) -> str:
    """Return hours with two digits.

    >>> _in_hours(0.00012), _in_hours(3.14159), _in_hours(1234.5)
    ('< 0.01', '3.1', '1,234')
    """
    if 0 < hours < 0.01:
        return "< 0.01"
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"
