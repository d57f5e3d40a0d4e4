"""Linear support vector machines on frozen features, one for each class against the rest."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.metrics import Scores
from eztorch_sce.progress import track
from eztorch_sce.types import FeatureBank


def svm_precision(train: FeatureBank, test: FeatureBank, costs: Sequence[float], folds: int, seed: int) -> Scores:
    """Return the mean over the classes of the average precision on the test part, and each class's own, in [0, 1].

    As on VOC07: unit features; squared hinge loss with weight 2 on the records of the class; for each class the cost
    with the best average precision in cross-validation on the train part. Classes without a test record do not count.
    The features are copied to memory, in float64.

    Source: Goyal et al., ICCV 2019, arXiv:1905.01235, and VISSL's code after it, whose costs are settings too. Records
    have one label each here; those of VOC07 may have several.

    Args:
        train, test: The features.
        costs: What to choose from; higher fits the train part more closely.
        folds: Of the cross-validation.
        seed: Of the solver where there are fewer records than features; otherwise nothing is random.

    Raises:
        ConfigError: If scikit-learn is missing, or a class has fewer training records than folds.
    """
    cross_val_score, machine = import_scikit_learn()
    labels = test.labels.unique().tolist()
    _check_enough(train, labels, folds)
    x, x_test = (F.normalize(bank.features, dim=1).double().numpy() for bank in (train, test))

    by_class = {}
    for label in track(labels, len(labels), "svm, a class at a time"):
        own, own_test = (train.labels == label).int().numpy(), test.labels == label
        settings = {"class_weight": {0: 1, 1: 2}, "dual": "auto", "max_iter": 2000, "random_state": seed}
        machines = {cost: machine(C=cost, **settings) for cost in costs}
        precision = {
            cost: cross_val_score(machines[cost], x, own, cv=folds, scoring="average_precision").mean()
            for cost in costs
        }
        cost = max(costs, key=lambda cost: precision[cost])
        scores = torch.from_numpy(machines[cost].fit(x, own).decision_function(x_test))
        by_class[test.classes[label]] = {
            "queries": int(own_test.sum()),
            "AP": interpolated_precision(scores, own_test),
            "cost": cost,
        }
    return Scores({"svm_mAP": sum(scores["AP"] for scores in by_class.values()) / len(by_class)}, by_class)


def interpolated_precision(scores: Tensor, wanted: Tensor) -> float:
    """Return the area under the curve of precision over recall, of scores (N,) and whether each is wanted (N,).

    The precision at a recall is the highest at that or a higher one.

    Source: the Pascal VOC development kit from 2010 on, as VISSL has it; VOC07's own took eleven points of the curve.
    """
    ranked = wanted[scores.argsort(descending=True, stable=True)]
    precision = ranked.cumsum(dim=0).double() / torch.arange(1, len(ranked) + 1)
    return float(precision.flip(0).cummax(dim=0).values.flip(0)[ranked].mean())


def import_scikit_learn() -> tuple[Any, Any]:
    """Return `cross_val_score` and `LinearSVC`.

    Raises:
        ConfigError: If scikit-learn is not installed.
    """
    try:
        from sklearn.model_selection import cross_val_score
        from sklearn.svm import LinearSVC
    except ImportError:
        raise ConfigError(["svm needs scikit-learn: pip install 'eztorch-sce[svm]'"]) from None
    return cross_val_score, LinearSVC


def _check_enough(train: FeatureBank, labels: list[int], folds: int) -> None:
    counts = train.labels.bincount(minlength=max(labels) + 1)
    few = [f"{train.classes[label]} ({int(counts[label])})" for label in labels if counts[label] < folds]
    if few:
        raise ConfigError([f"folds={folds} needs as many training records of each class; too few: {', '.join(few)}"])
    if int((counts > 0).sum()) < 2:
        raise ConfigError(["svm separates classes, and the training part has one"])
