"""Headline: how good the features are, under which protocol."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.section import Section

if TYPE_CHECKING:
    from eztorch_sce.report.media import Media


def headline(runs: Sequence[RunFiles], media: "Media | None") -> Section | None:
    """Return the numbers of the runs and of the evaluations of their weights."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        for each in [run, *run.evaluations]:
            if each.is_finished:
                intervals, chance = each.report.get("intervals", {}), each.report.get("chance", {})
                rows += [
                    {"run": each.name, "metric": name, "value": value, "interval": intervals.get(name)}
                    | {"chance": chance.get(name, {}).get("level")}
                    for name, value in each.report["metrics"].items()
                ]
    return Section("headline", "Results", {"rows": rows}) if rows else None
