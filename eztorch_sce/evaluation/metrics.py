"""Scores of an evaluation, and accuracies of ranked classes."""

from typing import NamedTuple

from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy


class Scores(NamedTuple):
    """What an evaluation found: numbers by name, and for each class by name its own; rates are in [0, 1]."""

    metrics: dict[str, float]
    by_class: dict[str, dict[str, float]]


def top_accuracies(scores: Tensor, labels: Tensor, name: str) -> dict[str, float]:
    """Return the shares of rows (N, classes) whose label (N,) is the best, and among the best five, in [0, 1]."""
    num_classes = scores.shape[1]
    return {
        f"{name}_top{k}": float(
            multiclass_accuracy(scores, labels, num_classes, average="micro", top_k=min(k, num_classes))
        )
        for k in (1, 5)
    }
