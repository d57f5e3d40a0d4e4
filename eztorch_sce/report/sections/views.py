"""Views: what the networks saw, with the random parameters of each view."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eztorch_sce.data.view_samples import TILES_FILE, VIEWS_FILE
from eztorch_sce.files import open_text
from eztorch_sce.report.run_files import RunFiles, all_runs
from eztorch_sce.report.section import Section
from eztorch_sce.report.shown import Paths

if TYPE_CHECKING:
    from eztorch_sce.report.media import Media

_MAX_RUNS = 4


def views(runs: Sequence[RunFiles], media: "Media | None") -> Section | None:
    """Return the views that the runs kept, those of trainings and of show-views."""
    section = views_of(runs)
    return section if section.data["runs"] else None


def views_of(runs: Sequence[RunFiles]) -> Section:
    """Return the views that the runs have kept so far."""
    shown: list[dict[str, Any]] = []
    images: dict[str, bytes] = {}
    for run in all_runs(runs):
        if len(shown) == _MAX_RUNS:
            break
        if (content := _content(run)) is not None:
            name = f"views-{len(shown)}"
            images[name] = (run.directory / TILES_FILE).read_bytes()
            shown.append({"name": run.name, "command": run.command, "image": name, **content})
    return Section("views", "What the network saw", {"runs": shown}, images=images)


def _content(run: RunFiles) -> dict[str, Any] | None:
    """Return the content of a run's `views.json`, None if it has none: it is written after its pictures."""
    file = run.directory / VIEWS_FILE
    if not file.is_file() or not (run.directory / TILES_FILE).is_file():
        return None
    with open_text(file) as stream:
        content: dict[str, Any] = json.load(stream)
    paths = Paths.of(record["path"] for record in content["records"])
    records = [record | {"path": name} for record, name in zip(content["records"], paths.names, strict=True)]
    return content | {"records": records}
