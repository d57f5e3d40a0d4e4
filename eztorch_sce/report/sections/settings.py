"""Settings of the runs, with what differs from the recipe and from the defaults."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eztorch_sce.report.evaluation_names import evaluation_order
from eztorch_sce.report.run_files import RunFiles, all_runs
from eztorch_sce.report.section import Section
from eztorch_sce.report.setting_rows import setting_table

if TYPE_CHECKING:
    from eztorch_sce.report.media import Media


def settings(runs: Sequence[RunFiles], media: "Media | None") -> Section | None:
    """Return a table of the settings for each command, with its runs side by side."""
    by_command: dict[str, list[RunFiles]] = {}
    for run in all_runs(runs):
        if run.settings and run.command:
            by_command.setdefault(run.command, []).append(run)
    commands = sorted(by_command, key=lambda command: (command != "pretrain", evaluation_order(command)))
    tables = [setting_table(command, by_command[command]) for command in commands]
    return Section("settings", "Settings", {"tables": tables}) if tables else None
