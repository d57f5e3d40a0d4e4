"""Environment of the runs: versions, machine, hashes of weights and times."""

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eztorch_sce.errors import counted, shorten
from eztorch_sce.report.run_files import RunFiles, all_runs
from eztorch_sce.report.section import Section
from eztorch_sce.report.side_by_side import number_text, show_short

if TYPE_CHECKING:
    from eztorch_sce.report.media import Media

_MACHINE = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.precision", "accelerator")
_RATES = {
    "views_per_s": "views/s",
    "data_wait": "fraction of the time spent waiting for data",
    "host_memory_gib": "memory of the host, in GiB",
    "gpu_memory_gib": "most memory of a GPU, in GiB",
}


def environment(runs: Sequence[RunFiles], media: "Media | None") -> Section | None:
    """Return where, when and with what each run was made."""
    listed = [run for run in all_runs(runs) if run.command]
    if not listed:
        return None
    data = {
        "runs": [{"name": run.name, "command": run.command, "facts": _facts(run)} for run in listed],
        "versions": _versions(listed),
    }
    return Section("environment", "Environment", data)


def _facts(run: RunFiles) -> list[dict[str, str]]:
    card = run.report.get("protocol", {})
    weights = card.get("weights") or {}
    took, metrics = run.report.get("seconds"), run.report.get("metrics", {})
    facts = {
        "directory": str(run.directory.resolve()),
        "state": "finished" if run.is_finished else "unfinished: no report.json",
        "finished": _finished(run),
        "time": "" if took is None else f"{_duration(float(took))}{_in_sessions(run)}",
        "weights": str(weights.get("file") or ""),
        "hash of the weights": str(weights.get("sha256") or ""),
        "weights are": "random: an untrained baseline" if weights.get("untrained") else "",
        "seed": show_short(run.config["seed"]) if "seed" in run.config else "",
        "determinism": _determinism(run.report.get("determinism") or {}),
    }
    facts |= {name: show_short(run.settings[name]) for name in _MACHINE if run.settings.get(name) is not None}
    facts |= {title: number_text(metrics[name]) for name, title in _RATES.items() if name in metrics}
    return [{"name": name, "text": text} for name, text in facts.items() if text]


def _determinism(card: Mapping[str, Any]) -> str:
    """Return whether a training was deterministic, and why not; an empty text if it was not asked for.

    >>> _determinism({"deterministic": True, "threads": 4, "operations": []})
    'deterministic, with 4 threads'
    >>> operation = {"operation": "put_", "layers": ["online.backbone.stem"]}
    >>> _determinism({"deterministic": False, "operations": [operation], "cure": "use another"})
    'not deterministic: put_ in online.backbone.stem; use another'
    """
    if not card:
        return ""
    if card["deterministic"]:
        return f"deterministic, with {counted(card['threads'], 'thread')}"
    operations = (f"{each['operation']} in {shorten(each['layers']) or '?'}" for each in card["operations"])
    return f"not deterministic: {'; '.join(operations).replace(' in ?', '')}; {card['cure']}"


def _finished(run: RunFiles) -> str:
    """Return when a run wrote its report; for one of an earlier version, the time of the file."""
    text = run.report.get("finished")
    if text:
        return str(text)
    file = run.directory / "report.json"
    if not file.is_file():
        return ""
    written = datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.timezone.utc)
    return f"{written:%Y-%m-%d %H:%M} UTC"


def _in_sessions(run: RunFiles) -> str:
    """Return in how many sessions a run was made, if there were several."""
    sessions = run.report.get("sessions", 1)
    return f", in {sessions} sessions (history.json)" if sessions > 1 else ""


def _duration(seconds: float) -> str:
    """Return a time in words.

    >>> _duration(42.3), _duration(600), _duration(9000)
    ('42 s', '10 min', '2 h 30 min')
    """
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _versions(runs: Sequence[RunFiles]) -> list[dict[str, Any]]:
    """Return the versions of each package, in groups of runs that agree in all of them."""
    groups: dict[str, dict[str, Any]] = {}
    for run in runs:
        versions = run.versions or run.report.get("versions") or {}
        group = groups.setdefault(repr(sorted(versions.items())), {"runs": [], "versions": versions})
        group["runs"].append(run.name)
    columns = [group for group in groups.values() if group["versions"]]
    names = dict.fromkeys(name for group in columns for name in group["versions"])
    rows = []
    for name in names:
        values = [group["versions"].get(name) for group in columns]
        rows.append({"name": name, "values": values, "differs": any(value != values[0] for value in values)})
    return [{"columns": [group["runs"] for group in columns], "rows": rows}] if rows else []
