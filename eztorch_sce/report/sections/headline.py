"""Headline: how good the features are, under which protocol."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eztorch_sce.errors import typed
from eztorch_sce.report.run_files import RunFiles, all_runs
from eztorch_sce.report.section import Section
from eztorch_sce.report.side_by_side import aligned_evaluations, group_of
from eztorch_sce.report.subjects import Subject, subjects_of
from eztorch_sce.report.unfinished import command_to_go_on

if TYPE_CHECKING:
    from eztorch_sce.report.media import Media

_MOST_COLUMNS = 4  # more subjects are rows
_EVALUATIONS = ("knn", "linear", "retrieve")


def headline(runs: Sequence[RunFiles], media: "Media | None") -> Section | None:
    """Return the numbers of the evaluations of each subject, side by side, and the protocols behind them."""
    subjects = subjects_of(runs)
    groups = [group_of(aligned) for aligned in aligned_evaluations(subjects)]
    data = {
        "subjects": [_subject(subject) for subject in subjects],
        "layout": "columns" if len(subjects) <= _MOST_COLUMNS else "rows",
        "groups": groups,
        "has_titles": _is_ambiguous(groups),
        "has_intervals": any(cell["interval"] for cell in _cells(groups)),
        "has_untrained": any(cell["untrained"] for cell in _cells(groups)),
        "unfinished": [_unfinished(run) for run in all_runs(runs) if run.command and not run.is_finished],
        "differences": _differences(groups),
        "missing": _missing_commands(subjects),
        "baselines": _baseline_commands(subjects),
    }
    return Section("headline", "Results", data)


def _is_ambiguous(groups: Sequence[dict[str, Any]]) -> bool:
    """Return whether metrics of several evaluations have the same name, so that each needs its title."""
    labels = [row["label"] for group in groups for row in group["rows"]]
    return len(set(labels)) < len(labels)


def _cells(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [cell for group in groups for row in group["rows"] for cell in row["cells"] if cell]


def _subject(subject: Subject) -> dict[str, Any]:
    run = subject.run or next(iter(subject.evaluations or subject.untrained), None)
    return {"name": subject.name, "command": "" if run is None else run.command}


def _unfinished(run: RunFiles) -> dict[str, str]:
    """Return what is known of a run without a report."""
    steps = run.metrics.get("step", np.empty(0))
    steps = steps[np.isfinite(steps)]
    where = f"last logged step {int(steps[-1])}" if len(steps) else "nothing logged yet"
    return {"name": run.name, "command": run.command, "where": where, "again": command_to_go_on(run.directory)}


def _differences(groups: Sequence[dict[str, Any]]) -> list[str]:
    """Return the titles of evaluations whose protocols differ between the subjects, with the entries that do."""
    texts = []
    for group in groups:
        names = [
            row["name"]
            for row in group["protocol"]
            if row["differs"] and not row["name"].startswith(("weights.", "train.weights.", "training."))
        ]
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            texts.append(f"{group['title']}: {', '.join(names[:5])}{more}")
    return texts


def _missing_commands(subjects: Sequence[Subject]) -> list[str]:
    """Return the commands that evaluate the pretrainings that nothing has evaluated."""
    return [
        f"eztorch-sce {command} {words}"
        for subject in subjects
        if (words := _words(subject)) and not _done(subject)
        for command in _EVALUATIONS
    ]


def _baseline_commands(subjects: Sequence[Subject]) -> list[str]:
    """Return the commands that evaluate the networks of pretrainings before training."""
    return [
        f"eztorch-sce {_done(subject)[0]} {words} untrained=true"
        for subject in subjects
        if (words := _words(subject)) and _done(subject) and not subject.untrained
    ]


def _done(subject: Subject) -> list[str]:
    commands = {run.command for run in subject.evaluations if run.is_finished}
    return [command for command in _EVALUATIONS if command in commands]


def _words(subject: Subject) -> str:
    """Return the settings of an evaluation of a finished pretraining on its data; empty if there is none."""
    run = subject.run
    if run is None or not run.is_finished or run.command != "pretrain":
        return ""
    names = ("data.layout", "data.root", "data.list", "data.test_root", "data.test_list", "data.annotations")
    data = [(name, run.settings[name]) for name in names if run.settings.get(name) not in (None, "auto")]
    return typed(("weights", run.directory), *data)
