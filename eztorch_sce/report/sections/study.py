"""The answer of a study: what pretraining gained, with which views, and what to run next."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eztorch_sce.progress import in_words
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.section import Section

if TYPE_CHECKING:
    from eztorch_sce.report.media import Media

_TITLES = {"knn_top1": "kNN", "linear_top1": "linear", "R@1": "R@1", "mAP": "mAP", "test_top1": "fine-tuned"}
_BADGES = {
    "better": ("good", "better"), "worse": ("bad", "worse"), "mixed": ("warn", "mixed"), "unknown": ("", "cannot tell")
}  # fmt: skip


def study(runs: Sequence[RunFiles], media: "Media | None") -> Section | None:
    """Return the section of the first study among the runs; None if there is none or it is not finished."""
    contents = [content for run in runs if "conclusion" in (content := run.study)]
    if not contents:
        return None
    content = contents[0]
    networks = content.get("networks", {})
    data = {
        **content["conclusion"],
        "counts": _counts(content["records"]),
        "notes": content["records"]["notes"],
        "metrics": _metrics(networks),
        "comparisons": [_comparison(each) for each in content.get("comparisons", [])],
        "stages": _stages(content),
        "minutes": content["settings"]["minutes"],
        "spent": in_words(content["spent_s"]),
    }
    return Section("study", "Does pretraining help?", data)


def _counts(records: Mapping[str, Any]) -> str:
    parts = [f"{records['train']} train", f"{records['test']} test"] if records["test"] else [f"{records['train']}"]
    classes = f", {len(records['classes'])} classes" if records["classes"] else ", no labels"
    return f"{' and '.join(parts)} {records['kind']}s{classes}"


def _metrics(networks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of all networks: titles, and a row per network with value and interval of each metric."""
    shown = [name for name in _TITLES if any(name in each["metrics"] for each in networks.values())]
    chance = {name: level for each in networks.values() for name, level in each["chance"].items()}
    guessed = [{"text": f"{chance[name]:.2f}", "interval": ""} if name in chance else {} for name in shown]
    rows: list[dict[str, Any]] = [{"name": "chance", "cells": guessed}]
    for network, each in networks.items():
        rows.append({"name": network, "cells": [_cell(each, name) for name in shown]})
    return {"titles": [_TITLES[name] for name in shown], "rows": rows if shown else []}


def _cell(network: Mapping[str, Any], name: str) -> dict[str, str]:
    if name not in network["metrics"]:
        return {}
    low, high = network["intervals"][name]
    return {"text": f"{network['metrics'][name]:.2f}", "interval": f"{low:.2f} to {high:.2f}"}


def _comparison(found: Mapping[str, Any]) -> dict[str, Any]:
    kind, word = _BADGES[found["verdict"]]
    differences = [
        {
            "title": _TITLES[each["metric"]],
            "text": f"{each['mean']:+.2f}",
            "interval": f"{each['low']:+.2f} to {each['high']:+.2f}",
            "needed": each["needed"],
        }
        for each in found["differences"]
    ]
    return {"first": found["first"], "second": found["second"], "kind": kind, "word": word, "differences": differences}


def _stages(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what was planned and what it took, in order."""
    stages, planned = content["stages"], {row["stage"]: row for row in content.get("plan", {}).get("rows", [])}
    rows = []
    for name in dict.fromkeys([*stages, *planned]):
        stage, row = stages.get(name, {}), planned.get(name, {})
        if name not in stages and row.get("seconds"):
            continue  # several stages in one row
        stopped = "stopped when the time was up" if stage.get("stopped") else ""
        rows.append(
            {
                "name": name,
                "planned": in_words(row["seconds"]) if row.get("seconds") else "–",
                "took": in_words(stage["took_s"]) if "took_s" in stage else "–",
                "note": stage.get("failed") or stopped or row.get("note", ""),
            }
        )
    return rows
