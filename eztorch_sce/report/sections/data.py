"""Data of the runs: records, classes and their balance, what was left out."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eztorch_sce.data.sources.summary import counts_in_words, ignored_in_words
from eztorch_sce.report.run_files import RunFiles, all_runs
from eztorch_sce.report.section import Section
from eztorch_sce.report.tables import seen_line

if TYPE_CHECKING:
    from eztorch_sce.report.media import Media

_MOST_UNREADABLE = 50
_NO_CLASSES = "none: the records have no labels, or labels were not read"


def data(runs: Sequence[RunFiles], media: "Media | None") -> Section | None:
    """Return what the runs understood of their data, once for all runs that understood the same."""
    found: dict[str, dict[str, Any]] = {}
    for run in all_runs(runs):
        summary = run.report.get("protocol", {}).get("data_summary")
        if not summary or run.command in ("demo", "study"):
            continue
        key = json.dumps([summary["records"], summary["classes"].get("number"), summary.get("origin")])
        if key not in found:
            found[key] = _described(summary, run)
        found[key]["runs"].append(run.name)
    data = {
        "sets": list(found.values()),
        "seen": _seen(all_runs(runs)),
        "unreadable": [each for run in all_runs(runs) if (each := _unreadable(run))],
    }
    return Section("data", "Data", data) if any(data.values()) else None


def _described(summary: dict[str, Any], run: RunFiles) -> dict[str, Any]:
    classes = summary["classes"]
    rows = [{"name": split, "text": counts_in_words(by_kind)} for split, by_kind in summary["records"].items()]
    rows.append({"name": "classes", "text": str(classes["number"]) if classes["number"] else _NO_CLASSES})
    smallest, largest = classes.get("smallest"), classes.get("largest")
    if smallest and largest and smallest[1] == largest[1]:
        rows.append({"name": "each class", "text": f"{largest[1]} train records"})
    elif smallest and largest:
        rows.append({"name": "smallest class", "text": f"{smallest[0]}, {smallest[1]} train records"})
        rows.append({"name": "largest class", "text": f"{largest[0]}, {largest[1]} train records"})
    settings = [(name, run.settings.get(name)) for name in ("data.root", "data.list", "data.test_list")]
    rows += [{"name": name, "text": str(value)} for name, value in settings if value]
    ignored = [line.removeprefix("ignored: ") for line in ignored_in_words(summary.get("ignored", {}))]
    rows += [{"name": "split", "text": summary["origin"]}] if summary.get("origin") else []
    rows += [{"name": "ignored", "text": text} for text in ignored]
    rows += [{"name": "note", "text": text} for text in summary.get("notes", [])]
    return {
        "runs": [],
        "rows": rows,
        "classes": [str(name) for name in classes.get("names", [])],
        "train": list(classes.get("train", [])),
        "test": list(classes.get("test", [])),
    }


def _seen(runs: Sequence[RunFiles]) -> list[dict[str, Any]]:
    """Return how many test records of evaluations their weights were trained on, in words."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        card = run.report.get("protocol", {}).get("seen_in_pretraining")
        if (
            card
            and run.command not in ("demo", "study")
            and not (run.report["protocol"].get("weights") or {}).get("untrained")
        ):
            text = seen_line(card).partition(": ")[2]
            line = found.setdefault(text, {"text": text, "runs": [], "warns": card.get("seen") != 0})
            line["runs"].append(run.name)
    return list(found.values())


def _unreadable(run: RunFiles) -> dict[str, Any] | None:
    """Return the records that a training could not read."""
    if not run.unreadable:
        return None
    rows = [{"path": row.get("path", ""), "reason": row.get("reason", "")} for row in run.unreadable[:_MOST_UNREADABLE]]
    return {"run": run.name, "number": len(run.unreadable), "rows": rows}
