"""Networks of a study: measured, pretrained and evaluated through the commands, each in a run directory of its own."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eztorch_sce import api
from eztorch_sce.config.parts import EvaluationViewsConfig
from eztorch_sce.config.schema import FinetuneConfig, PretrainConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.evaluation.base import ExtractConfig
from eztorch_sce.evaluation.knn import KnnConfig
from eztorch_sce.evaluation.linear import LinearConfig
from eztorch_sce.evaluation.retrieval import RetrieveConfig
from eztorch_sce.files import open_text
from eztorch_sce.studies.conclusion import TITLES
from eztorch_sce.training.config import RunConfig
from eztorch_sce.training.time_limit import TimeLimit
from eztorch_sce.types import FeatureBank

MEASURED_STEPS = 10
"""Steps that `measure` takes, if they take little time."""
_MEASURED_S = 12.0
_FEWEST_MEASURED = 5  # the first ones start worker processes and say nothing about the others
_EVALUATIONS = ("knn", "linear", "retrieve")


@dataclass
class Measured:
    """What the first steps of a pretraining took.

    Attributes:
        step_s: Seconds of an optimizer step.
        num_steps: Steps that were measured.
    """

    step_s: float
    num_steps: int


def measure(config: PretrainConfig, directory: Path) -> Measured:
    """Train for a few steps; the run directory then holds a weights file that describes the network."""
    shutil.rmtree(directory, ignore_errors=True)
    limit = TimeLimit(_MEASURED_S, MEASURED_STEPS, _FEWEST_MEASURED)
    api.pretrain(
        replace(config, run=RunConfig(dir=str(directory), log_every_n_steps=_FEWEST_MEASURED)), callbacks=[limit]
    )
    return Measured(limit.step_s(), limit.num_steps)


def pretrain(config: PretrainConfig, directory: Path, seconds: float, beat: Callable[[], None]) -> TimeLimit:
    """Pretrain, or continue an interrupted pretraining, for a limited time.

    Args:
        config: The settings.
        directory: The run directory.
        seconds: Seconds after which the training stops where it is.
        beat: Called after every step.
    """
    limit = TimeLimit(seconds, beat=beat)
    api.pretrain(replace(config, run=_saving_often(directory)), callbacks=[limit])
    return limit


def _saving_often(directory: Path) -> RunConfig:
    """Return the settings of the directory of a training: studies are short, so that minutes count."""
    return RunConfig(dir=str(directory), save_every_minutes=1.0)


@dataclass
class Evaluation:
    """Numbers of a network.

    Attributes:
        metrics: Metrics of all evaluations by name.
        intervals: Their confidence intervals.
        chance: What they would be by guessing, or by always giving the largest class if that is higher.
    """

    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    chance: dict[str, float]


def evaluate(
    weights: Path, directory: Path, data: DataConfig, views: EvaluationViewsConfig, seed: int, untrained: bool
) -> Evaluation:
    """Extract the features of a network once, and evaluate them by kNN, a linear probe and retrieval.

    Steps that an interrupted study has finished are not repeated.

    Args:
        weights: Run directory of the pretraining.
        directory: Folder of the run directories of the evaluations.
        data: The data of the study.
        views: Clips and crops of each record.
        seed: Seed of the study.
        untrained: Take the network as it was before the training.
    """
    features = directory / "features"
    extract = ExtractConfig(
        data=replace(data, num_frames=None, clip_s=None, frame_stride=None, near_power=None),
        weights=str(weights), untrained=untrained, test=views, seed=seed, run=RunConfig(dir=str(features)),
    )  # fmt: skip
    if _is_new(features):
        api.extract(extract)
    result = Evaluation({}, {}, {})
    for name in _EVALUATIONS if data.test_list else ():
        run = directory / name
        if _is_new(run):
            config = {"knn": KnnConfig, "linear": LinearConfig, "retrieve": RetrieveConfig}[name]
            api.evaluate(config(features=str(features), seed=seed, run=RunConfig(dir=str(run))))
        _add_report(result, run)
    return result


def finetune(
    weights: Path, directory: Path, data: DataConfig, views: EvaluationViewsConfig, epochs: int, seed: int,
    untrained: bool, seconds: float, beat: Callable[[], None],
) -> tuple[Evaluation, TimeLimit]:  # fmt: skip
    """Train a classifier from pretrained or untrained weights, and test it.

    An interrupted fine-tuning is continued. The arguments are those of `evaluate` and `pretrain`.
    """
    config = FinetuneConfig(
        data=replace(data, num_frames=None, clip_s=None, frame_stride=None, near_power=None, batch_size=None),
        weights=str(weights), untrained=untrained, probe_first=True, dropout=0.5, test=views, seed=seed,
        run=_saving_often(directory),
    )  # fmt: skip
    config.trainer = replace(config.trainer, max_epochs=epochs, devices=1)
    config.views = [
        replace(view, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, gray=0.0, flip=0.0)
        for view in config.views
    ]
    limit = TimeLimit(seconds, beat=beat)
    api.finetune(config, callbacks=[limit])
    result = Evaluation({}, {}, {})
    _add_report(result, directory)
    return result, limit


def _is_new(directory: Path) -> bool:
    """Return whether a run is to be done, after removing what an interrupted one has left."""
    if (directory / "report.json").is_file():
        return False
    shutil.rmtree(directory, ignore_errors=True)
    return True


def _add_report(result: Evaluation, run: Path) -> None:
    with open_text(run / "report.json") as stream:
        report = json.load(stream)
    shown = [name for name in TITLES if name in report["metrics"]]
    result.metrics |= {name: report["metrics"][name] for name in shown}
    result.intervals |= {name: list(report["intervals"][name]) for name in shown}
    for name in shown:
        level = report["chance"][name]
        result.chance[name] = max(level["level"], level["largest_class"] or 0.0)


def outcomes(directory: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Return the value of each test record, (N,), by metric, from the evaluations of a network."""
    found: dict[str, npt.NDArray[np.float64]] = {}
    for name in (*_EVALUATIONS, "finetune"):
        file = directory / name / "by_record.csv"
        if not file.is_file():
            continue
        with open_text(file) as stream:
            rows = list(csv.DictReader(stream))
        for metric in TITLES:
            if metric in rows[0]:
                found[metric] = np.array([float(row[metric]) for row in rows])
    return found


def diagnostics(directory: Path) -> dict[str, float]:
    """Return the metrics of a pretraining, which include the diagnostics of its embeddings."""
    with open_text(directory / "report.json") as stream:
        metrics: dict[str, float] = json.load(stream)["metrics"]
    return metrics


def test_groups(directory: Path) -> npt.NDArray[np.int64] | None:
    """Return the group of each test record, (N,), or None if the data name no groups."""
    groups = FeatureBank.load(directory / "features" / "features_test.pt").groups
    return None if groups is None else groups.numpy()
