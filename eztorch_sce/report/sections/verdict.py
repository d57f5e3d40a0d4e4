"""Verdict: whether the trainings are normal, without labels."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from eztorch_sce.report.health import health, progress_of, state_of
from eztorch_sce.report.reference import Reference, matching
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.section import Section
from eztorch_sce.report.sections.curves import curve_words, trainings
from eztorch_sce.report.training_log import TrainingLog

if TYPE_CHECKING:
    from eztorch_sce.report.media import Media

_FEWEST = 5  # logged values of a curve whose place in a band means something


def verdict(runs: Sequence[RunFiles], media: "Media | None") -> Section | None:
    """Return the findings about the trainings among the runs."""
    found = trainings(runs)
    return verdict_of(found) if found else None


def verdict_of(found: Sequence[tuple[RunFiles, TrainingLog]]) -> Section:
    """Return the findings about each training, none if nothing was trained."""
    return Section("verdict", "Is this normal?", {"runs": [_judged(run, log) for run, log in found]})


def _judged(run: RunFiles, log: TrainingLog) -> dict[str, Any]:
    reference = matching(run, log)
    return {
        "name": run.name,
        "command": run.command,
        "state": state_of(run),
        "progress": progress_of(run.settings, log),
        "findings": [asdict(finding) for finding in health(run, log)],
        "reference": None if reference is None else reference.words(),
        "inside": [] if reference is None else _inside(run, log, reference),
    }


def _inside(run: RunFiles, log: TrainingLog, reference: Reference) -> list[dict[str, Any]]:
    """Return the title of each curve and the fraction of its logged values that lie in the band of a reference.

    The band is widened by half of its height on both sides, and a twentieth of its range: few runs measured it.
    """
    fractions: list[dict[str, Any]] = []
    steps = reference.steps_for(run, log)
    for name, curve in log.curves.items():
        if (band := reference.band(name, run)) is None or len(curve.steps) < _FEWEST:
            continue
        low, high = np.interp(curve.steps, steps, band.low), np.interp(curve.steps, steps, band.high)
        margin = (high - low) / 2 + (band.high.max() - band.low.min()) / 20
        fraction = float(np.mean((curve.values >= low - margin) & (curve.values <= high + margin)))
        fractions.append({"title": curve_words(name)[0].lower(), "fraction": fraction})
    return fractions
