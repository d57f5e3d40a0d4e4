"""Linear support vector machines on frozen features, one per class against all others."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from eztorch_sce import signals
from eztorch_sce.data.shared_memory import in_units
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.banks import check_banks
from eztorch_sce.evaluation.base import EvaluationConfig, Scores
from eztorch_sce.evaluation.intervals import Interval, percentiles, resamples
from eztorch_sce.evaluation.search import unit_rows
from eztorch_sce.host_memory import total_bytes
from eztorch_sce.progress import track
from eztorch_sce.registry import register
from eztorch_sce.settings import setting
from eztorch_sce.types import FeatureBank, Predictions


@register("evaluation", "svm")
@dataclass
class SvmConfig(EvaluationConfig):
    """Rank the test records by a linear support vector machine per class."""

    costs: list[float] = setting(
        [0.01, 0.1, 1.0, 10.0],
        above=0,
        help="Values of C, the cost of training errors, to try; cross-validation chooses one for each class.",
    )
    folds: int = setting(3, at_least=2, help="Folds of the cross-validation.")

    def conflicts(self, prefix: str) -> list[str]:
        """Return a message if there is no cost to choose, or scikit-learn is missing."""
        messages = super().conflicts(prefix)
        if not self.costs:
            messages.append("costs=[] must hold at least one number greater than 0")
        if find_spec("sklearn") is None:
            messages.append(_MISSING)
        return messages

    def check_records(self, train: Tensor, test: Tensor, classes: Sequence[str]) -> None:
        """Raise ConfigError if a class has fewer train records than folds."""
        _check_enough_records(train, torch.unique(test).tolist(), classes, self.folds)

    def evaluate(self, train: FeatureBank, test: FeatureBank, device: torch.device) -> Scores:
        """Return `svm_mAP`, and the average precision and the chosen cost of each class. Computed on the CPU."""
        return svm_precision(train, test, self.costs, self.folds, self.seed)


def svm_precision(train: FeatureBank, test: FeatureBank, costs: Sequence[float], folds: int, seed: int) -> Scores:
    """Return the average precision on the test split, per class and its mean over the classes, in [0, 1].

    The VOC07 protocol: unit features; squared hinge loss with weight 2 on the records of the class; for each class the
    cost with the best average precision in cross-validation on the train split. Classes without a test record are
    omitted. The prediction is the class whose machine gives the highest decision value. The features are copied to
    memory, in float64.

    Source: Goyal et al., ICCV 2019, arXiv:1905.01235, and the authors' code in VISSL. Here each record has one label;
    records of VOC07 may have several.

    Args:
        train: Features to fit.
        test: Features to rank.
        costs: Costs to choose from; a higher one fits the train split more closely.
        folds: Folds of the cross-validation.
        seed: Seed of the solver, used if there are fewer records than features; otherwise the solver is deterministic.

    Raises:
        ConfigError: If scikit-learn is missing, a class has fewer train records than folds, or the features cannot be
            used; see `check_banks`.
    """
    cross_val_score, machine = _import_scikit_learn()
    check_banks(train, test)
    labels: list[int] = torch.unique(test.labels).tolist()
    _check_enough_records(train.labels, labels, train.classes, folds)
    _check_memory(train, test)
    order, test_order = train.in_order(), test.in_order()  # that of the data
    x, x_test = (unit_rows(rows).double().numpy() for rows in (train.features[order], test.features[:].clone()))
    train_labels = train.labels[order]

    by_class, scores = {}, []
    precisions = torch.zeros(len(test.labels), dtype=torch.float64)
    for label in track(labels, len(labels), "svm, classes"):
        is_class = (train_labels == label).int().numpy()
        settings = {"class_weight": {0: 1, 1: 2}, "dual": "auto", "max_iter": 2000, "random_state": seed}
        machines = {cost: machine(C=cost, **settings) for cost in costs}
        precision: dict[float, float] = {}
        for cost in costs:
            signals.poll()
            trials = cross_val_score(machines[cost], x, is_class, cv=folds, scoring="average_precision")
            precision[cost] = trials.mean()
        cost = max(costs, key=lambda cost: precision[cost])
        scores.append(torch.from_numpy(machines[cost].fit(x, is_class).decision_function(x_test)))
        rows = test.labels == label
        precisions[rows] = _precisions(scores[-1], rows)[rows]
        average = float(precisions[rows].mean())
        by_class[test.classes[label]] = {"queries": int(rows.sum()), "AP": average, "cost": cost}
    metrics = {"svm_mAP": sum(own["AP"] for own in by_class.values()) / len(by_class)}
    by_label = torch.stack(scores, dim=1)  # (N, labels)
    predictions = Predictions(torch.tensor(labels)[by_label.argmax(dim=1)], by_label.amax(dim=1))
    groups = None if test.groups is None else test.groups[test_order]
    intervals = {"svm_mAP": _interval(precisions[test_order], test.labels[test_order], groups)}
    return Scores(metrics, by_class, predictions=predictions, intervals=intervals)


def interpolated_precision(scores: Float[Tensor, " N"], is_class: Bool[Tensor, " N"]) -> float:
    """Return the area under the curve of interpolated precision over recall.

    Source: the Pascal VOC development kit from 2010 on, as in VISSL; VOC07 itself sampled the curve at eleven points.

    Args:
        scores: Score of each record, (N,).
        is_class: Whether each record is of the class, (N,).
    """
    return float(_precisions(scores, is_class)[is_class].mean())


def _precisions(scores: Float[Tensor, " N"], is_class: Bool[Tensor, " N"]) -> Float64[Tensor, " N"]:
    """Return the interpolated precision at the rank of each record: the highest at that recall or a higher one."""
    order = scores.argsort(descending=True, stable=True)
    precision = is_class[order].cumsum(dim=0).double() / torch.arange(1, len(order) + 1)
    return torch.empty_like(precision).index_copy_(0, order, precision.flip(0).cummax(dim=0).values.flip(0))


def _interval(
    precisions: Float64[Tensor, " N"], labels: Int64[Tensor, " N"], groups: Int64[Tensor, " N"] | None
) -> Interval:
    """Return the bootstrap interval of the mean over the classes of the mean precision of their records.

    Each record keeps its precision, as if it were ranked among the same other records. Copies of a record in one
    ranking would raise each other's precision. A class without a record in a resample is left out of its mean.
    """
    order = labels.argsort(stable=True).numpy()
    starts = np.flatnonzero(np.diff(labels.numpy()[order], prepend=-1))  # where each class begins
    by_class = precisions.numpy()[order]
    means = []
    for counts in resamples(len(labels), groups):  # (resamples, N)
        counts = counts[:, order]
        totals, sizes = (np.add.reduceat(each, starts, axis=1) for each in (counts * by_class, counts))
        means.append((totals / sizes.clip(min=1)).sum(axis=1) / (sizes > 0).sum(axis=1))
    return percentiles(np.concatenate(means))


def _check_memory(train: FeatureBank, test: FeatureBank) -> None:
    """Raise ConfigError if the features do not fit in memory, of which scikit-learn needs all at once."""
    needed = _BYTES_PER_NUMBER * (train.features.shape.numel() + test.features.shape.numel())
    if needed > (available := total_bytes()):
        records = f"{len(train.labels)} train and {len(test.labels)} test records"
        amounts = f"about {in_units(needed)} of memory for {records}, all of which scikit-learn reads at once, "
        cure = "use knn, retrieve or linear, or extract the features of fewer records (data.train_share)"
        raise ConfigError([f"svm needs {amounts}but this machine has {in_units(available)}: {cure}"])


_BYTES_PER_NUMBER = 24  # in float64, with copies for the folds and for the solver
_MISSING = "svm needs scikit-learn: pip install 'eztorch-sce[svm]'"


def _import_scikit_learn() -> tuple[Any, Any]:
    """Return `cross_val_score` and `LinearSVC`, or raise ConfigError if scikit-learn is not installed."""
    try:
        from sklearn.model_selection import cross_val_score
        from sklearn.svm import LinearSVC
    except ImportError:
        raise ConfigError([_MISSING]) from None
    return cross_val_score, LinearSVC


def _check_enough_records(train: Int64[Tensor, " N"], labels: list[int], classes: Sequence[str], folds: int) -> None:
    counts = train.bincount(minlength=max(labels) + 1)
    too_small = [f"{classes[label]} ({int(counts[label])})" for label in labels if counts[label] < folds]
    if too_small:
        raise ConfigError(
            [f"folds={folds} needs at least {folds} train records of each class; too few: {', '.join(too_small)}"]
        )
    if int((counts > 0).sum()) < 2:
        raise ConfigError(["svm needs at least two classes, but the train split has only one"])
