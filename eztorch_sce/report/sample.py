"""The records of a run that its report shows: a fixed choice of both splits, with their features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from eztorch_sce.files import replacing
from eztorch_sce.types import FeatureBank

MAX_RECORDS = 5000
_SEED = 0  # of every run, so that evaluations of the same records show the same ones
_LARGEST, _SMALLEST = 2.0**14, 2.0**-8  # largest value of features that are stored in float16 as they are


class SampleRows(NamedTuple):
    """The rows of both splits that a report shows, in ascending order.

    Attributes:
        train: Rows of the train split, int64.
        test: Rows of the test split, int64.
    """

    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def sample_rows(train_labels: npt.ArrayLike, test_labels: npt.ArrayLike, most: int = MAX_RECORDS) -> SampleRows:
    """Choose at most `most` records, up to half of them of the test split, and of each split evenly over its classes.

    A split with fewer records than its half leaves its room to the other. The choice is the same in every run.

    Args:
        train_labels: Class index of each train record, -1 if unlabeled; empty if there is no train split.
        test_labels: The same of the test split.
        most: Number of records to choose.

    >>> rows = sample_rows([0, 0, 0, 0, 1], [0, 1], most=4)
    >>> len(rows.train), 4 in rows.train, rows.test.tolist()
    (2, True, [0, 1])
    """
    train, test = np.asarray(train_labels, np.int64), np.asarray(test_labels, np.int64)
    num_test = min(len(test), max(most // 2, most - len(train)))
    generator = np.random.default_rng(_SEED)
    of_test = _balanced(test, num_test, generator)
    return SampleRows(_balanced(train, most - num_test, generator), of_test)


def _balanced(labels: npt.NDArray[np.int64], count: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return `count` rows, or all if they are fewer: the first of each class, then the second, in a random order."""
    shuffled = generator.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    place = np.arange(len(labels)) - np.repeat(starts, sizes)  # of each row within its class
    return np.sort(by_class[np.lexsort((generator.random(len(labels)), place))[:count]])


def write_sample(run_dir: Path, train: FeatureBank | None, test: FeatureBank | None) -> None:
    """Write `sample.pt`: the records of `sample_rows`, train before test, for `torch.load(..., weights_only=True)`.

    The file holds a dictionary: `features` float16 (N, F), to be multiplied by `scale` where their size matters;
    `labels` int64 (N,), -1 if unlabeled; `paths`; `index` int64 (N,), the row of each record in its split, which tells
    records of one file apart; `segments` float64 (N, 2), start and end in seconds or NaN, None if all records are whole
    files; `split` uint8 (N,), 0 for train and 1 for test; and `classes`. The row in its split is
    that of the data as the config of the run opens them or, with `features=`, the config of the run of `extract`.
    """
    labels = [np.empty(0, np.int64) if bank is None else bank.labels.numpy() for bank in (train, test)]
    rows = [torch.from_numpy(of_split) for of_split in sample_rows(labels[0], labels[1])]
    parts = [(bank, of_split) for bank, of_split in zip((train, test), rows, strict=True) if bank is not None]
    features = torch.cat([bank.features[of_split] for bank, of_split in parts]).float()
    scale = _scale(features)
    content: dict[str, Any] = {
        "features": (features / scale).half(),
        "scale": scale,
        "labels": torch.cat([bank.labels[of_split] for bank, of_split in parts]),
        "paths": [bank.paths[row] for bank, of_split in parts for row in of_split.tolist()],
        "index": torch.cat(rows),
        "segments": joined_segments([(len(each), _segments(bank, each)) for bank, each in parts]),
        "split": torch.cat([torch.full((len(each),), split, dtype=torch.uint8) for split, each in enumerate(rows)]),
        "classes": parts[0][0].classes,
    }
    with replacing(run_dir / "sample.pt") as partial:
        torch.save(content, partial)


def _segments(bank: FeatureBank, rows: torch.Tensor) -> torch.Tensor | None:
    return None if bank.segments is None else bank.segments[rows]


def joined_segments(parts: Sequence[tuple[int, torch.Tensor | None]]) -> torch.Tensor | None:
    """Return the segments of the records of several splits, float64 (N, 2), or None if all are whole files.

    Args:
        parts: Number of records of each split, and their segments.
    """
    if all(segments is None for _, segments in parts):
        return None
    whole = float("nan")
    return torch.cat([torch.full((n, 2), whole).double() if each is None else each for n, each in parts])


def _scale(features: torch.Tensor) -> float:
    """Return the power of two by which features are divided so that they keep their precision in float16."""
    largest = float(features.abs().max()) if features.numel() else 0.0
    if largest == 0 or _SMALLEST <= largest <= _LARGEST:
        return 1.0
    return float(2.0 ** np.floor(np.log2(largest)))
