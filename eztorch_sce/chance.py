"""Chance levels: what a metric would be by guessing, and on how many records it was measured."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

_TOP = re.compile(r"(?:^|_)top(\d+)(?:$|[_@])")
_RECALL = re.compile(r"^R@(\d+)(?:$|_)")
_CERTAIN = 1 - 1e-9  # a level of 1, but for rounding
_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chance:
    """What a metric would be by guessing, and on how many records it was measured.

    Attributes:
        level: Expected value of a uniform guess or, for a ranking, of a random order.
        records: Number of records that were scored.
        largest_class: Accuracy of always giving the largest class (for top-k, the k largest), or None if it is not
            higher than `level`.
        split: "test" or "train": the split that was scored.
    """

    level: float
    records: int
    largest_class: float | None = None
    split: str = "test"

    def __str__(self) -> str:
        """Return the text that stands beside the metric.

        >>> str(Chance(0.1, 69)), str(Chance(0.125, 80, largest_class=0.5))
        ('chance 0.1, 69 test records', 'chance 0.125, largest class 0.5, 80 test records')
        """
        level, largest, records = self.cells()
        return f"chance {level}{f', largest class {largest}' if largest else ''}, {records} records"

    def cells(self) -> tuple[str, str, str]:
        """Return the level, the accuracy of the largest class ("" for none) and the number of records, for a table.

        >>> Chance(0.125, 80, largest_class=0.5).cells()
        ('0.125', '0.5', '80 test')
        """
        largest = "" if self.largest_class is None else f"{self.largest_class:.3g}"
        return f"{self.level:.3g}", largest, f"{self.records} {self.split}"


def chance_levels(
    metrics: Iterable[str],
    train_labels: npt.ArrayLike,
    test_labels: npt.ArrayLike,
    num_classes: int,
    ways: int | None = None,
) -> dict[str, Chance]:
    """Return the chance level of each metric that has one.

    Accuracies: the expected accuracy of a uniform guess, k / C for the k best of C classes; and that of always giving
    the k largest classes, if it is higher. R@k and mAP: the expected value if the records of the bank are ranked at
    random. `svm_mAP`: the same for the ranking of the test records, averaged over their classes. (The interpolation of
    its precision adds a little that is left out.)

    Source of the expected average precision: Bestgen, "Exact Expected Average Precision of the Random Baseline for
    System Evaluation", 2015.

    Args:
        metrics: Names of the metrics.
        train_labels: Class index of each train record, (N,).
        test_labels: Class index of each test record, (N,).
        num_classes: Number of classes to choose from (C).
        ways: Classes of a few-shot task, which replace `num_classes`.

    >>> chance_levels(["knn_top1", "knn_lr"], [0, 0, 1, 1], [0, 0, 0, 1], num_classes=2)
    {'knn_top1': Chance(level=0.5, records=4, largest_class=0.75, split='test')}
    """
    train, test = (np.bincount(np.asarray(labels), minlength=num_classes) for labels in (train_labels, test_labels))
    levels: dict[str, Chance] = {}
    for name in metrics:
        if "validation" in name:
            continue  # measured on train records that were held out to choose a setting
        if match := _TOP.search(name):
            if "train" in name:
                levels[name] = _accuracy(train, int(match[1]), ways, "train")
            else:
                levels[name] = _accuracy(test, int(match[1]), ways, "test")
        elif match := _RECALL.search(name):
            levels[name] = Chance(_mean_over_queries(test, _recall(train, int(match[1]))), int(test.sum()))
        elif name.startswith("svm_mAP"):
            levels[name] = Chance(float(_average_precision(test)[test > 0].mean()), int(test.sum()))
        elif name.startswith("mAP"):
            levels[name] = Chance(_mean_over_queries(test, _average_precision(train)), int(test.sum()))
    return levels


def without_certain(metrics: Mapping[str, float], chance: Mapping[str, Chance]) -> dict[str, float]:
    """Return the metrics without those that chance alone brings to 1, such as the top-5 accuracy of five classes.

    >>> without_certain({"knn_top1": 0.5, "knn_top5": 1.0}, {"knn_top1": Chance(0.2, 9), "knn_top5": Chance(1.0, 9)})
    {'knn_top1': 0.5}
    """
    return {name: value for name, value in metrics.items() if name not in chance or chance[name].level < _CERTAIN}


def _accuracy(counts: _Counts, k: int, ways: int | None, split: str) -> Chance:
    """Return the chance level of a top-k accuracy on records with these numbers per class, (C,)."""
    num_records, num_choices = int(counts.sum()), ways or len(counts)
    level = min(k, num_choices) / num_choices
    largest = float(np.sort(counts)[::-1][:k].sum() / num_records)
    has_larger = ways is None and largest > level  # the queries of few-shot tasks are balanced
    return Chance(level, num_records, largest if has_larger else None, split)


def _recall(bank: _Counts, k: int) -> npt.NDArray[np.float64]:
    """Return the probability that k random records of a bank include one of the class, for each class, (C,)."""
    others, num_records = bank.sum() - bank, int(bank.sum())
    missed = prod(
        (np.maximum(others - drawn, 0) / (num_records - drawn) for drawn in range(min(k, num_records))),
        start=np.ones(len(bank)),
    )
    return np.asarray(1 - missed, np.float64)


def _average_precision(counts: _Counts) -> npt.NDArray[np.float64]:
    """Return the expected average precision of a random ranking of the records, for each class, (C,)."""
    num_records = int(counts.sum())
    harmonic = float((1 / np.arange(1, num_records + 1)).sum())
    others = (num_records - harmonic) * (counts - 1) / max(num_records - 1, 1)
    return np.where(counts > 0, (harmonic + others) / num_records, 0.0)


def _mean_over_queries(queries: _Counts, by_class: npt.NDArray[np.float64]) -> float:
    return float((queries * by_class).sum() / queries.sum())
