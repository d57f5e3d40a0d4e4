"""Results of subjects side by side: their metrics with intervals, chance and baselines, and the protocols behind."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from eztorch_sce.metric_facts import LOWER, facts_of
from eztorch_sce.report.evaluation_names import evaluation_order, evaluation_title, is_main
from eztorch_sce.report.finished_runs import flat
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.subjects import WITHOUT_NUMBERS, Subject
from eztorch_sce.settings import show

_ABOUT_WEIGHTS = ("weights.", "train.weights.", "seen_in_pretraining.", "recipe")
_ABOUT_DATA = ("data_summary.",)
_LARGER = 0.01  # than chance: the largest class of balanced classes says nothing new
_MOST_ITEMS = 8  # of a list in a protocol


class Aligned(NamedTuple):
    """Evaluations of one command, of one protocol of each subject.

    Attributes:
        command: The command.
        title: The evaluation in words, with what tells it from others of the command.
        runs: The evaluation of each subject, or None.
        untrained: The same of the network with random weights, or None.
    """

    command: str
    title: str
    runs: list[RunFiles | None]
    untrained: list[RunFiles | None]


def aligned_evaluations(subjects: Sequence[Subject]) -> list[Aligned]:
    """Return the evaluations that stand in the same rows, in the order of the page.

    If no subject has several evaluations of a command, they stand side by side. Otherwise those do that agree in the
    settings in which evaluations of one subject differ.
    """
    by_command: dict[str, list[list[RunFiles]]] = {}
    for number, subject in enumerate(subjects):
        baselines = [] if subject.runs() else subject.untrained
        for run in [*subject.runs(), *baselines]:
            if run.is_finished and _has_rates(run):
                columns = by_command.setdefault(run.report["command"], [[] for _ in subjects])
                columns[number].append(run)
    commands = sorted(by_command, key=evaluation_order)
    return [each for command in commands for each in _aligned(command, by_command[command], subjects)]


def _has_rates(run: RunFiles) -> bool:
    """Return whether a run measured how good its features are: a training without online evaluation did not."""
    return run.command not in WITHOUT_NUMBERS and (run.command != "pretrain" or bool(run.report.get("chance")))


def _aligned(command: str, columns: list[list[RunFiles]], subjects: Sequence[Subject]) -> list[Aligned]:
    cards = {run.directory: protocol_of(run) for column in columns for run in column}
    distinguishing = [
        name
        for name in dict.fromkeys(name for card in cards.values() for name in card)
        if any(len({cards[run.directory].get(name) for run in column}) > 1 for column in columns)
    ]
    found: dict[tuple[str | None, ...], list[RunFiles | None]] = {}
    for number, column in enumerate(columns):
        for run in column:
            key = tuple(cards[run.directory].get(name) for name in distinguishing)
            found.setdefault(key, [None] * len(columns))[number] = run
    title = evaluation_title(command)
    shown = [name for name in distinguishing if not name.startswith(_ABOUT_DATA)][:3]
    return [
        Aligned(
            command,
            ", ".join(
                [title, *(f"{name}={value}" for name, value in zip(distinguishing, key, strict=True) if name in shown)]
            ),
            runs,
            [_baseline(run, subject) for run, subject in zip(runs, subjects, strict=True)],
        )
        for key, runs in found.items()
    ]


def _baseline(run: RunFiles | None, subject: Subject) -> RunFiles | None:
    """Return the evaluation of the untrained network under the protocol of a run, or the only one of its command."""
    if run is None or run in subject.untrained:
        return None
    same = [each for each in subject.untrained if each.is_finished and each.report["command"] == run.report["command"]]
    card = protocol_of(run)
    return next((each for each in same if protocol_of(each) == card), same[0] if len(same) == 1 else None)


def protocol_of(run: RunFiles) -> dict[str, str]:
    """Return the entries of a protocol card as text, without those about the weights."""
    card = flat(run.report.get("protocol", {}))
    return {name: show_short(value) for name, value in card.items() if not name.startswith(_ABOUT_WEIGHTS)}


def show_short(value: Any) -> str:
    """Return a value as one would type it; a long list by its first items and their number.

    >>> show_short([1, 2]), show_short(list(range(100)))
    ('[1,2]', '[0,1,2,3,4,5,6,7,...] (100 values)')
    """
    if isinstance(value, (list, tuple)) and len(value) > _MOST_ITEMS:
        return f"{show(value[:_MOST_ITEMS])[:-1]},...] ({len(value)} values)"
    return show(value)


def group_of(aligned: Aligned) -> dict[str, Any]:
    """Return the rows of an evaluation as data of the page: main metrics, further metrics and protocols."""
    reports = [{} if run is None else run.report for run in aligned.runs]
    names = dict.fromkeys(name for report in reports for name in report.get("metrics", {}))
    rows: list[dict[str, Any]] = []
    more: list[dict[str, Any]] = []
    for name in names:
        facts = facts_of(name)
        label = f"{facts.title} (lower is better)" if facts.better == LOWER else facts.title
        (rows if is_main(aligned.command, name) else more).append({"label": label, **_row(name, aligned)})
    if not rows:
        rows, more = more, []
    return {
        "command": aligned.command,
        "title": aligned.title,
        "rows": rows,
        "more": more,
        "present": [number for number, run in enumerate(aligned.runs) if run is not None],
        "summaries": [None if run is None else summary_of(run) for run in aligned.runs],
        "runs": [None if run is None else run.name for run in aligned.runs],
        "protocol": _side_by_side([_card(run) for run in aligned.runs]),
    }


def _row(name: str, aligned: Aligned) -> dict[str, Any]:
    """Return the cells of a metric, its chance level and the number of its records."""
    cells = [_cell(name, run, baseline) for run, baseline in zip(aligned.runs, aligned.untrained, strict=True)]
    chances = [run.report.get("chance", {}).get(name, {}) for run in aligned.runs if run is not None]
    levels = dict.fromkeys(each["level"] for each in chances if each.get("level") is not None)
    counts = dict.fromkeys(f"{each['records']} {each.get('split', 'test')}" for each in chances if "records" in each)
    largest = [each["largest_class"] for each in chances if each.get("largest_class")]
    level = next(iter(levels), None)
    is_rate = all(
        0 <= value <= 1
        for cell in cells
        if cell
        for value in (cell["value"], cell["low"], cell["high"])
        if value is not None
    )
    return {
        "cells": cells,
        "chance": " / ".join(f"{level:.3f}" for level in levels),
        "chance_level": level,
        "largest": f"{largest[0]:.3f}" if largest and largest[0] > (level or 0.0) + _LARGER else "",
        "records": " / ".join(counts),
        "is_rate": is_rate and bool(levels),
    }


def _cell(name: str, run: RunFiles | None, baseline: RunFiles | None) -> dict[str, Any] | None:
    number = _number(name, run)
    if number is None:
        return None
    return number | {"untrained": _number(name, baseline)}


def _number(name: str, run: RunFiles | None) -> dict[str, Any] | None:
    """Return a metric of a run with its interval, as numbers and as text."""
    value = None if run is None else run.report["metrics"].get(name)
    if run is None or not isinstance(value, (int, float)):
        return None
    low, high = run.report.get("intervals", {}).get(name) or (None, None)
    interval = "" if low is None or high is None else f"{low:.2f} to {high:.2f}"
    return {"value": value, "text": number_text(value), "low": low, "high": high, "interval": interval}


def number_text(value: float) -> str:
    """Return a metric as text.

    >>> number_text(0.68046), number_text(24.0), number_text(1234.5), number_text(3e-5)
    ('0.680', '24', '1234', '3e-05')
    """
    if value == int(value) and abs(value) > 1:
        return str(int(value))
    return f"{value:.3f}" if 0.001 <= abs(value) < 100 or value == 0 else f"{value:.4g}"


def summary_of(run: RunFiles) -> str:
    """Return the protocol of an evaluation in a line: records, clips, crops, frames."""
    card = run.report.get("protocol", {})
    parts = [f"{card['records']} records"] if "records" in card else []
    spec = card.get("input") or {}
    if "clips" in card and spec.get("num_frames", 1) > 1:
        clips = card["clips"]
        parts.append(
            f"{_counted(clips, 'clip') if isinstance(clips, int) else f'clips: {clips}'} of {spec['num_frames']} frames"
        )
    if "crops" in card and spec:
        parts.append(f"{_counted(card['crops'], 'crop')} of {spec.get('size')} px")
    for name in ("k", "ways", "shots"):
        if name in card:
            parts.append(f"{name} = {card[name]}")
    weights = card.get("weights")
    if isinstance(weights, Mapping) and weights.get("sha256"):
        parts.append(f"weights {str(weights['sha256'])[:8]}")
    return " · ".join(map(str, parts))


def _counted(number: Any, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _card(run: RunFiles | None) -> dict[str, str] | None:
    return None if run is None else {name: show_short(value) for name, value in flat(run.report["protocol"]).items()}


def _side_by_side(cards: Sequence[Mapping[str, str] | None]) -> list[dict[str, Any]]:
    """Return the entries of protocol cards, one row each, and whether the cards that exist differ there."""
    names = dict.fromkeys(name for card in cards if card for name in card)
    rows = []
    for name in names:
        values = [None if card is None else card.get(name) for card in cards]
        present = [value for value, card in zip(values, cards, strict=True) if card is not None]
        rows.append({"name": name, "values": values, "differs": any(value != present[0] for value in present)})
    return rows
