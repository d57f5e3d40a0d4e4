"""The interface of evaluations on frozen features, and the settings they have in common.

An evaluation is one module: a config dataclass with `@register("evaluation", name)` and a method `evaluate`, beside the
metric it computes. Its name is the command.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from eztorch_sce.config.choice_types import BackboneChoice, RunnerChoice
from eztorch_sce.config.parts import (
    ACCELERATORS,
    PRECISION_HELP,
    CommandConfig,
    EvaluationViewsConfig,
    accelerator_conflicts,
    precision_conflicts,
)
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.jobs.runners.local import LocalConfig
from eztorch_sce.precision import PRECISIONS
from eztorch_sce.registry import wrong_result
from eztorch_sce.settings import PathSetting, choice, setting, show
from eztorch_sce.types import FeatureBank, Predictions

_SUBSET = ("train_share", "train_subset")
_LOADING = (
    "batch_size",
    "num_workers",
    "prefetch",
    "timeout_s",
    "decoder",
    "canvas",
)  # say how data are loaded, not which
_DIVISION = ("test_fraction", "group")


@dataclass
class Scores:
    """Metrics of an evaluation, overall, per class and per record. Rates are in [0, 1].

    Attributes:
        metrics: Metrics by name.
        by_class: Metrics of each class, by class name; empty if the evaluation has none.
        by_record: Values of each test record, float (N,), whose mean is the metric of the same name: 0 or 1 for an
            accuracy, the average precision for mAP. The confidence intervals come from them.
        predictions: What the evaluation says of each test record, or None.
        intervals: Confidence intervals of metrics that are no means over the test records, by name.
    """

    metrics: dict[str, float]
    by_class: dict[str, dict[str, float]] = field(default_factory=dict)
    by_record: dict[str, Float[Tensor, " N"]] = field(default_factory=dict)
    predictions: Predictions | None = None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


def checked_scores(config: object, scores: object, train: FeatureBank, test: FeatureBank) -> Scores:
    """Return the scores of an evaluation, with scalar tensors and NumPy numbers as floats.

    Args:
        config: The config of the evaluation.
        scores: What it returned.
        train: Features of the train split.
        test: Features of the test split.

    Raises:
        ConfigError: If it returned anything else than scores, scores that are not numbers, or values per record that do
            not fit the records, with one message per reason.
    """
    if not isinstance(scores, Scores):
        raise wrong_result(config, "evaluate", scores, "Scores, as in Scores({'accuracy': 0.5})")
    values = [scores.metrics, *scores.by_class.values()]
    invalid = [f"{name}={value!r}" for each in values for name, value in each.items() if not _is_number(value)]
    messages = [f"{each}, which is not a number" for each in invalid]
    if not messages:
        by_class = {label: _as_floats(metrics) for label, metrics in scores.by_class.items()}
        scores = replace(scores, metrics=_as_floats(scores.metrics), by_class=by_class)
        messages = [
            message for name in scores.by_record for message in _record_messages(name, scores, len(test.labels))
        ]
        messages += _prediction_messages(scores.predictions, train, test)
    if messages:
        raise ConfigError([f"{type(config).__name__}.evaluate returned {each}" for each in messages])
    return _on_host(scores)


def _on_host(scores: Scores) -> Scores:
    """Return the scores with all tensors on the CPU."""
    by_record = {name: values.detach().cpu() for name, values in scores.by_record.items()}
    predictions = scores.predictions
    if predictions is not None:
        nearest = None if predictions.nearest is None else predictions.nearest.cpu()
        predictions = Predictions(predictions.predicted.cpu(), predictions.score.detach().cpu(), nearest)
    return replace(scores, by_record=by_record, predictions=predictions)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) or (isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0)


def _as_floats(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: value if isinstance(value, (int, float)) else float(value) for name, value in metrics.items()}


def _record_messages(name: str, scores: Scores, num_records: int) -> list[str]:
    """Return one message per reason why the values of a metric per record cannot be used."""
    where, values = f"by_record[{name!r}]", scores.by_record[name]
    if messages := _column_messages(where, values, (num_records,)):
        return messages
    if name not in scores.metrics:
        return [f"{where}, but metrics has no {name}: give its mean in metrics"]
    mean = float(values.double().mean())
    if abs(mean - scores.metrics[name]) > 1e-4 * max(1.0, abs(mean)):
        return [f"{where} with the mean {mean:.6g}, but metrics[{name!r}]={scores.metrics[name]:.6g}: they must agree"]
    return []


def _prediction_messages(predictions: object, train: FeatureBank, test: FeatureBank) -> list[str]:
    """Return one message per reason why the predictions cannot be used."""
    if predictions is None:
        return []
    if not isinstance(predictions, Predictions):
        return [f"predictions of the class {type(predictions).__name__}, which must be Predictions(predicted, score)"]
    num_records = len(test.labels)
    shapes = {"predicted": (num_records,), "score": (num_records,), "nearest": (num_records, None)}
    ends = {"predicted": (-1, len(test.classes)), "nearest": (0, len(train.labels))}
    messages = []
    for name, values in predictions._asdict().items():
        if name == "nearest" and values is None:
            continue
        where = f"predictions.{name}"
        wrong = _column_messages(where, values, shapes[name])
        if not wrong and name in ends and values.numel():
            low, end = ends[name]
            if values.is_floating_point() or int(values.min()) < low or int(values.max()) >= end:
                wrong = [f"{where}, which must hold integers from {low} to {end - 1}"]
        messages += wrong
    return messages


def _column_messages(where: str, values: Any, shape: tuple[int | None, ...]) -> list[str]:
    """Return a message if values are no tensor with a row per test record, or not finite. A size of None is free."""
    wanted = " x ".join("any" if size is None else str(size) for size in shape)
    if not isinstance(values, Tensor):
        return [f"{where} of the class {type(values).__name__}, which must be a tensor of {wanted}, a row per record"]
    fits = values.ndim == len(shape) and all(
        size in (None, actual) for size, actual in zip(shape, values.shape, strict=True)
    )
    if not fits:
        actual = " x ".join(map(str, values.shape)) or "one number"
        return [f"{where} of shape {actual}, which must be {wanted}: a row per test record"]
    bad = (~values.isfinite()).flatten(start_dim=1).any(dim=1) if values.ndim > 1 else ~values.isfinite()
    if bad.any():
        return [f"{where} with NaN or infinity for {int(bad.sum())} of {len(values)} test records"]
    return []


@dataclass
class FeaturesConfig(CommandConfig):
    """Source of the features of a data set: a backbone and the data, or files written by `extract`."""

    data: DataConfig = field(default_factory=DataConfig)
    weights: PathSetting = setting(
        None, is_path=True, help="Weights file of the backbone, its run directory, or a checkpoint of other code."
    )
    backbone: BackboneChoice = choice(
        "backbone", None, help="Network to evaluate as initialized, without a weights file, such as a baseline."
    )
    features: PathSetting = setting(
        None,
        is_path=True,
        help="Run directory of `extract`, or the folder or URL that it wrote (out), whose features are used instead of "
        "weights.",
    )
    untrained: bool = setting(False, help="Initialize the backbone at random, as a baseline under the same protocol.")
    test: EvaluationViewsConfig = field(default_factory=EvaluationViewsConfig)
    accelerator: str = setting("auto", choices=ACCELERATORS, help="Hardware to run on; auto uses a GPU if available.")
    precision: str | None = setting(None, choices=PRECISIONS, help=PRECISION_HELP)

    def unused_settings(self) -> tuple[str, ...]:
        """Return ("data", "weights") if the features are read from files."""
        return () if self.features is None else ("data", "weights")

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per conflict between the features, the data and the machine."""
        messages = self.machine_conflicts()
        if self.features is not None:
            return messages + self._without_effect()
        if self.weights is None and self.backbone is None:
            messages.append(
                "weights is not set: give the run directory of a pretraining, or its backbone.safetensors (weights=...)"
            )
        elif self.weights is not None and self.backbone is not None:
            messages.append(f"weights={self.weights} and backbone are both set: remove one of them")
        return messages

    def machine_conflicts(self) -> list[str]:
        """Return one message per conflict with the hardware of this machine."""
        return [*accelerator_conflicts(self.accelerator), *precision_conflicts(self.precision, self.accelerator)]

    def _without_effect(self) -> list[str]:
        """Return one message per setting that has no effect on features that were extracted before."""
        subset = f"selects a subset of the data, but features={self.features} were extracted from all of it"
        division = f"chooses what is held out, but features={self.features} were divided when they were extracted"
        reasons = {f"data.{name}": f"{subset}: set weights and data.root instead of features" for name in _SUBSET}
        reasons |= {f"data.{name}": f"{division}: pass it to `extract`" for name in _DIVISION}
        reasons["untrained"] = (
            f"initializes a network, but features={self.features} were already extracted from one: run `extract` with "
            "untrained=true"
        )
        ignored = f"has no effect on features={self.features}, which were extracted before; remove one of them"
        settings = [(name, getattr(self, name)) for name in ("weights", "backbone", "untrained", "precision")]
        settings += [(f"test.{name}", value) for name, value in _changed(self.test)]
        settings += [(f"data.{name}", value) for name, value in _changed(self.data) if name not in _LOADING]
        return [
            f"{name}{'' if name == 'backbone' else f'={show(value)}'} {reasons.get(name, ignored)}"
            for name, value in settings
            if value
        ]


def _changed(config: Any) -> list[tuple[str, Any]]:
    """Return the settings of a config that differ from their defaults."""
    default = type(config)()
    values = [(item.name, getattr(config, item.name)) for item in fields(config)]
    return [(name, value) for name, value in values if value != getattr(default, name)]


@dataclass
class ExtractConfig(FeaturesConfig):
    """Write the features of the train and test splits to files that the evaluations can read."""

    runner: RunnerChoice = choice(
        "runner", LocalConfig(), resumable=True, help="Where the features are computed: on this machine or a cluster."
    )
    unreadable: str = setting(
        "stop",
        choices=["stop", "omit"],
        resumable=True,
        help="Handling of files that cannot be read, all of which failed.csv names in the end: stop ends the command "
        "with an error and without features, omit writes the features of the others.",
    )

    out: PathSetting = setting(
        None,
        is_path=True,
        help="Folder or URL (s3://, gs://, hf://, ...) in which the features stay in shards; null writes "
        "features_train.pt and features_test.pt to run.dir or, if they take more than half of the memory, leaves their "
        "shards there.",
    )

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per conflict, and one if features are set, which this command computes."""
        if self.features is not None:
            return [f"features={self.features} were extracted before: set weights and data.root, or remove features"]
        return super().conflicts(prefix)

    def machine_conflicts(self) -> list[str]:
        """Return one message per conflict with the hardware, unless it is that of other machines, which check it."""
        return super().machine_conflicts() if isinstance(self.runner, LocalConfig) else []


@dataclass
class EvaluationConfig(FeaturesConfig, ABC):
    """Base class of evaluations, which score test features by labeled train features."""

    def check_records(self, train: Int64[Tensor, " N"], test: Int64[Tensor, " M"], classes: Sequence[str]) -> None:
        """Raise ConfigError if records with these labels cannot be evaluated, such as too few of a class.

        Called before features are extracted or read.

        Args:
            train: Class index of each train record.
            test: Class index of each test record.
            classes: Class names.
        """

    @abstractmethod
    def evaluate(self, train: FeatureBank, test: FeatureBank, device: torch.device) -> Scores:
        """Return the scores of the test features, using the labeled train features.

        Args:
            train: Features of the train split; may be memory-mapped or `StoredRows`, to be read by chunks.
            test: Features of the test split, likewise.
            device: The device to compute on.
        """
