"""The interface of evaluations on frozen features, and the settings they have in common.

An evaluation is one module: a config dataclass with `@register("evaluation", name)` and a method `evaluate`, beside the
metric it computes. Its name is the command.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from eztorch_sce.config.choice_types import BackboneChoice
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
from eztorch_sce.precision import PRECISIONS
from eztorch_sce.registry import wrong_result
from eztorch_sce.settings import PathSetting, choice, setting, show
from eztorch_sce.types import FeatureBank

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
    """Metrics of an evaluation, overall and per class. Rates are in [0, 1].

    Attributes:
        metrics: Metrics by name.
        by_class: Metrics of each class, by class name; empty if the evaluation has none.
    """

    metrics: dict[str, float]
    by_class: dict[str, dict[str, float]] = field(default_factory=dict)


def checked_scores(config: object, scores: object) -> Scores:
    """Return the scores of an evaluation, with scalar tensors and NumPy numbers as floats.

    Raises:
        ConfigError: If it returned anything else than scores, or scores that are not numbers.
    """
    if not isinstance(scores, Scores):
        raise wrong_result(config, "evaluate", scores, "Scores, as in Scores({'accuracy': 0.5})")
    values = [scores.metrics, *scores.by_class.values()]
    invalid = [f"{name}={value!r}" for each in values for name, value in each.items() if not _is_number(value)]
    if invalid:
        messages = [f"{type(config).__name__}.evaluate returned {each}, which is not a number" for each in invalid]
        raise ConfigError(messages)
    by_class = {label: _as_floats(metrics) for label, metrics in scores.by_class.items()}
    return Scores(_as_floats(scores.metrics), by_class)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) or (isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0)


def _as_floats(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: value if isinstance(value, (int, float)) else float(value) for name, value in metrics.items()}


@dataclass
class FeaturesConfig(CommandConfig):
    """Source of the features of a data set: a backbone and the data, or files written by `extract`."""

    data: DataConfig = field(default_factory=DataConfig)
    weights: PathSetting = setting(
        None, is_path=True, help="Weights file of the backbone, or the run directory that contains it."
    )
    backbone: BackboneChoice = choice(
        "backbone", None, help="Network to use instead of a weights file, as it is initialized, such as a baseline."
    )
    features: PathSetting = setting(
        None, is_path=True, help="Run directory of `extract` whose features are used instead of weights."
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
        messages = [*accelerator_conflicts(self.accelerator), *precision_conflicts(self.precision, self.accelerator)]
        if self.features is not None:
            return messages + self._without_effect()
        if self.weights is None and self.backbone is None:
            messages.append(
                "weights is not set: give the run directory of a pretraining, or its backbone.pt (weights=...)"
            )
        elif self.weights is not None and self.backbone is not None:
            messages.append(f"weights={self.weights} and backbone are both set: remove one of them")
        return messages

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
        ignored = f"has no effect on features={self.features}, which were extracted with their own; remove one of them"
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
            train: Features of the train split; may be memory-mapped.
            test: Features of the test split; may be memory-mapped.
            device: The device to compute on.
        """
