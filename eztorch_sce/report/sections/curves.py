"""Curves: every number that trainings log, over their steps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from eztorch_sce.report.health import METRICS
from eztorch_sce.report.reference import Reference, matching
from eztorch_sce.report.run_files import RunFiles, all_runs
from eztorch_sce.report.section import Section
from eztorch_sce.report.training_log import Curve, TrainingLog, read_log, thinned

if TYPE_CHECKING:
    from eztorch_sce.report.media import Media

_NUM_POINTS = 800  # of a drawn curve: two for each pixel of the widest chart
_MAX_RUNS = 8  # colors of the page
_WORDS = {  # title and explanation, in the order of the page
    "loss": ("Loss", "of the logged batches"),
    "train_accuracy": ("Train accuracy", "of the logged batches, under augmentation"),
    "online_knn_top1": ("Online kNN", "nearest-neighbor accuracy during training"),
    "online_linear_top1": ("Online linear probe", "accuracy of a linear classifier during training"),
    "lr": ("Learning rate", "of the optimizer"),
    "grad_norm": ("Gradient norm", "of all weights, before clipping"),
    "spread": ("Spread", "of the embeddings: 1 on the whole sphere, 0 at one point"),
    "effective_rank": ("Effective rank", "number of dimensions the embeddings use"),
    "uniformity": ("Uniformity", "0 at one point, about -4 on the whole sphere"),
    "views_per_s": ("Throughput", "views per second"),
    "clips_per_s": ("Throughput", "clips per second"),
    "data_wait": ("Data wait", "fraction of the time spent waiting for data"),
    "host_memory_gib": ("Host memory", "of the first process and all that it has started, in GiB"),
    "gpu_memory_gib": ("GPU memory", "most that the first GPU has held in tensors so far, in GiB"),
    "momentum": ("Momentum", "of the momentum encoder"),
    "skipped_steps": ("Skipped steps", "so far, of which the loss or the gradients were not finite"),
    "alignment": ("Alignment", "squared distance between two views of a record"),
    "positive_mass": ("Positive mass", "probability assigned to the positive"),
    "target_entropy": ("Target entropy", "of the momentum encoder's similarities, in nats"),
    "target_neighbors": ("Target neighbors", "exp(target entropy): how many keys share the target"),
    "queue_age": ("Queue age", "age of the oldest key in the queue, in steps"),
}
_HIDDEN = ("epoch", "step")


def curve_words(name: str) -> tuple[str, str]:
    """Return what the page calls a logged quantity, and what it is."""
    return _WORDS.get(name, (name.replace("_", " ").capitalize(), ""))


def trainings(runs: Sequence[RunFiles]) -> list[tuple[RunFiles, TrainingLog]]:
    """Return the runs that logged a training, and what they logged; those of pages before those that belong to them."""
    logs = [(run, read_log(run.directory / METRICS)) for run in all_runs(runs)]
    return [(run, log) for run, log in logs if set(log.curves) - set(_HIDDEN)]


def curves(runs: Sequence[RunFiles], media: "Media | None") -> Section | None:
    """Return the curves of the trainings among the runs, by command."""
    found = trainings(runs)
    return curves_of(found) if found else None


def curves_of(found: Sequence[tuple[RunFiles, TrainingLog]]) -> Section:
    """Return the curves of trainings, which may be none yet."""
    columns: dict[str, npt.NDArray[np.generic]] = {}
    by_command: dict[str, list[tuple[RunFiles, TrainingLog]]] = {}
    for run, log in found:
        by_command.setdefault(run.command or "training", []).append((run, log))
    groups = [_group(command, members, columns) for command, members in by_command.items()]
    return Section("curves", "Training curves", {"groups": groups}, columns)


def _group(
    command: str, members: Sequence[tuple[RunFiles, TrainingLog]], columns: dict[str, npt.NDArray[np.generic]]
) -> dict[str, Any]:
    shown = members[:_MAX_RUNS]
    names = dict.fromkeys(name for _, log in shown for name in log.curves if name not in _HIDDEN)
    reference = matching(*shown[0])
    charts = []
    for name in sorted(names, key=_place):
        series = []
        for number, (_, log) in enumerate(shown):
            if (curve := log.curves.get(name)) is not None:
                series.append({"run": number, **_stored(f"curves-{command}-{name}-{number}", curve, columns)})
        title, about = curve_words(name)
        band = None if reference is None else _band(reference, name, shown[0], columns)
        charts.append({"name": name, "title": title, "about": about, "series": series, "band": band})
    return {
        "command": command,
        "hidden": [run.name for run, _ in members[_MAX_RUNS:]],
        "reference": None if reference is None else reference.words(),
        "runs": [
            {
                "name": run.name,
                "per_epoch": log.steps_per_epoch(),
                "steps": log.num_steps,
                "resumed_at": log.resumed_at or run.history.resumed_at,
            }
            for run, log in shown
        ],
        "charts": charts,
    }


def _place(name: str) -> tuple[int, str]:
    order = list(_WORDS)
    base = "lr" if name.startswith("lr_") else name
    return (order.index(base) if base in order else len(order), name)


def _stored(name: str, curve: Curve, columns: dict[str, npt.NDArray[np.generic]]) -> dict[str, Any]:
    """Store the points of a curve, and return their name with what the table says of the whole curve."""
    drawn, finite = thinned(curve, _NUM_POINTS), curve.finite
    columns[f"{name}-x"] = drawn.steps.astype(np.int32)
    columns[f"{name}-y"] = drawn.values.astype(np.float32)
    summary = (finite[0], finite[-1], finite.min(), finite.max()) if len(finite) else (None,) * 4
    return {
        "column": name,
        **dict(zip(("first", "last", "min", "max"), summary, strict=True)),
        "not_finite": int(len(curve.values) - len(finite)),
    }


def _band(
    reference: Reference, name: str, of: tuple[RunFiles, TrainingLog], columns: dict[str, npt.NDArray[np.generic]]
) -> str | None:
    """Store the band of a reference, over the steps of a run, and return its name; None if it has none."""
    if (band := reference.band(name, of[0])) is None:
        return None
    column = f"curves-{of[0].command}-{name}-band"
    columns[f"{column}-x"] = reference.steps_for(*of)
    columns[f"{column}-low"], columns[f"{column}-high"] = band.low.astype(np.float32), band.high.astype(np.float32)
    return column
