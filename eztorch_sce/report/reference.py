"""Reference bands: the curves of real trainings that went well, stored with the package.

`benchmarks/reference.py` measures them and writes `reference/NAME.json`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.training_log import Curve, TrainingLog

GRID = np.linspace(0, 1, 41)  # fractions of a training
_SMOOTHED = 5  # logged values
_SAME = ("command", "method", "loss", "kind", "input")
_OF_LOSS = ("queue_size", "batch_size", "temperature", "target_temperature", "positive_weight")
# Scales of these curves depend on the machine, the optimizer and the network: other values are no sign of a problem.
_WITHOUT_BAND = (
    *("views_per_s", "lr", "momentum", "data_wait", "host_memory_gib", "gpu_memory_gib", "online_s", "queue_age"),
    *("grad_norm", "epoch"),
)


class Band(NamedTuple):
    """The lowest, middle and highest value of a curve among several runs, at each fraction of `GRID`."""

    low: Float64[NDArray[np.float64], " G"]
    middle: Float64[NDArray[np.float64], " G"]
    high: Float64[NDArray[np.float64], " G"]


@dataclass(frozen=True)
class Reference:
    """Curves of several trainings that differ in their seed.

    Attributes:
        name: Name of its file.
        title: What was trained on, for readers of a page.
        command: The command that was run, without its seed.
        kind_of_run: What a run must have in common to be compared, see `kind_of_run`.
        seeds: Seeds of the runs.
        epochs: Epochs of each.
        versions: Versions of the packages.
        bands: By name of the curve.
    """

    name: str
    title: str
    command: str
    kind_of_run: Mapping[str, Any]
    seeds: Sequence[int]
    epochs: int
    versions: Mapping[str, str]
    bands: Mapping[str, Band]

    def words(self) -> dict[str, Any]:
        """Return what a reader needs to know of it."""
        return {"title": self.title, "command": self.command, "runs": len(self.seeds), "epochs": self.epochs}

    def band(self, name: str, run: RunFiles) -> Band | None:
        """Return the band of a curve; that of the loss only if the loss of a run has the same scale."""
        own = kind_of_run(run)
        if name == "loss" and any(own[key] != self.kind_of_run.get(key) for key in _OF_LOSS):
            return None
        return self.bands.get(name)

    def steps_for(self, run: RunFiles, log: TrainingLog) -> NDArray[np.float64]:
        """Return the steps of `GRID` in a run, whose length is that of its settings, or what it has logged."""
        epochs, per_epoch = run.settings.get("trainer.max_epochs"), log.steps_per_epoch()
        total = epochs * per_epoch if isinstance(epochs, int) and per_epoch else log.num_steps
        return GRID * max(1, total - 1)


def kind_of_run(run: RunFiles) -> dict[str, Any]:
    """Return what decides whether the curves of two runs can be compared."""
    settings = run.settings
    frames = settings.get("data.num_frames")
    return {
        "command": run.command,
        "method": settings.get("method.name"),
        "loss": settings.get("loss.name"),
        "kind": "image" if frames == 1 else "video",
        "input": settings.get("views.0.input"),
        "queue_size": settings.get("method.queue_size"),
        "batch_size": settings.get("data.batch_size"),
        "temperature": settings.get("loss.temperature"),
        "target_temperature": settings.get("loss.target_temperature"),
        "positive_weight": settings.get("loss.positive_weight"),
    }


def matching(run: RunFiles, log: TrainingLog) -> Reference | None:
    """Return the reference of the same command, method, loss, kind of data and input; None if there is none.

    Of several, that with more of the settings of the loss in common.
    """
    own = kind_of_run(run)
    fitting = [each for each in references() if all(each.kind_of_run.get(key) == own[key] for key in _SAME)]
    if run.command != "pretrain":
        return None
    return max(fitting, key=lambda each: sum(each.kind_of_run.get(key) == own[key] for key in _OF_LOSS), default=None)


@cache
def references() -> list[Reference]:
    """Return the references of the package."""
    folder = resources.files("eztorch_sce.report").joinpath("reference")
    files = sorted((each for each in folder.iterdir() if each.name.endswith(".json")), key=lambda each: each.name)
    return [_parsed(json.loads(each.read_text(encoding="utf-8"))) for each in files]


def _parsed(content: dict[str, Any]) -> Reference:
    bands = {name: Band(*(np.array(row, dtype=np.float64) for row in rows)) for name, rows in content["bands"].items()}
    return Reference(**(content | {"bands": bands}))


def reference_of(name: str, title: str, command: str, runs: Sequence[tuple[RunFiles, TrainingLog]]) -> dict[str, Any]:
    """Return the content of a file of `references`, from finished runs that differ in their seed."""
    first, _ = runs[0]
    names = [name for name in runs[0][1].curves if name not in _WITHOUT_BAND and not name.startswith("online")]
    bands = {}
    for curve in names:
        rows = np.stack([_over_grid(log.curves[curve], log.num_steps) for _, log in runs])
        quantiles = (rows.min(axis=0), np.median(rows, axis=0), rows.max(axis=0))
        bands[curve] = [[float(f"{value:.4g}") for value in row] for row in quantiles]
    return {
        "name": name,
        "title": title,
        "command": command,
        "kind_of_run": kind_of_run(first),
        "seeds": [run.settings["seed"] for run, _ in runs],
        "epochs": first.settings["trainer.max_epochs"],
        "versions": {name: first.versions[name] for name in ("eztorch_sce", "torch", "python")},
        "bands": bands,
    }


def _over_grid(curve: Curve, num_steps: int) -> NDArray[np.float64]:
    """Return a curve at the fractions of `GRID`, as the running median of its values."""
    width = min(_SMOOTHED, len(curve.values))
    padded = np.pad(curve.values, (width // 2, (width - 1) // 2), mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)
    return np.interp(GRID, curve.steps / max(1, num_steps - 1), smooth)
