"""What an evaluation says of each test record: `predictions.csv`, `by_record.csv`, `confusion.csv` and `worst.csv`.

The files are UTF-8; names may hold commas, quotes, line ends and bytes that are not UTF-8, see `files.open_text`.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from eztorch_sce.evaluation.search import NUM_SHOWN
from eztorch_sce.files import open_text, replacing
from eztorch_sce.types import FeatureBank, Predictions

_NUM_WORST = 50


def write_predictions(run_dir: Path, predictions: Predictions, train: FeatureBank | None, test: FeatureBank) -> None:
    """Write what an evaluation says of each test record.

    - `predictions.csv`: a row per test record, in the order of the test split. `index` is its row in the split,
      `record` its path, `label` its class and `prediction` the predicted class, "" for none. `score` is the confidence
      of the prediction, see `types.Predictions`. `nearest_1` to `nearest_5` are the paths of the nearest train records
      and `nearest_index_1` to `nearest_index_5` their rows in the train split, if the evaluation searches.
    - `worst.csv`: the wrong rows with the highest scores, at most 50.
    - `confusion.csv`: the number of test records of each class, by row, for which each class was predicted, by column.

    The last two are written only if there are predictions.
    """
    rows = _rows(predictions, train, test)
    columns = ["index", "record", "label", "prediction", "score"]
    if predictions.nearest is not None and train is not None:
        numbers = range(1, min(NUM_SHOWN, predictions.nearest.shape[1]) + 1)
        columns += [f"nearest_{number}" for number in numbers] + [f"nearest_index_{number}" for number in numbers]
    _write(run_dir / "predictions.csv", columns, rows)
    predicted, labels = predictions.predicted.numpy(), test.labels.numpy()
    if (predicted < 0).all():
        return
    wrong = np.flatnonzero((predicted != labels) & (predicted >= 0))
    confident_first = wrong[np.argsort(-predictions.score.double().numpy()[wrong], kind="stable")]
    _write(run_dir / "worst.csv", columns, [rows[row] for row in confident_first[:_NUM_WORST].tolist()])
    counts = confusion(labels, predicted, len(test.classes))
    cells = ([name, *row] for name, row in zip(test.classes, counts.tolist(), strict=True))
    _write(run_dir / "confusion.csv", ["class", *test.classes], cells)


def write_by_record(run_dir: Path, by_record: Mapping[str, Tensor]) -> None:
    """Write the values of each test record, whose means are the metrics of these names, to `by_record.csv`.

    The rows are those of `predictions.csv`. Two runs on the same test records can be compared pair by pair.
    """
    columns = [values.double().tolist() for values in by_record.values()]
    rows = ([index, *(f"{value:.6g}" for value in row)] for index, row in enumerate(zip(*columns, strict=True)))
    _write(run_dir / "by_record.csv", ["index", *by_record], rows)


def confusion(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], num_classes: int
) -> npt.NDArray[np.int64]:
    """Return how often each class (row) was predicted as each class (column), (C, C), without records of either -1.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, -1]), num_classes=2).tolist()
    [[1, 1], [0, 0]]
    """
    known = (labels >= 0) & (predicted >= 0)
    cells = labels[known] * num_classes + predicted[known]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def _rows(predictions: Predictions, train: FeatureBank | None, test: FeatureBank) -> list[list[Any]]:
    classes = [*test.classes, ""]  # -1 is the last
    labels, predicted = test.labels.tolist(), predictions.predicted.tolist()
    scores = (f"{score:.6g}" for score in predictions.score.tolist())
    firsts = enumerate(zip(test.paths, labels, predicted, scores, strict=True))
    rows = [[index, path, classes[label], classes[guess], score] for index, (path, label, guess, score) in firsts]
    if predictions.nearest is None or train is None:
        return rows
    nearest: list[list[int]] = predictions.nearest[:, :NUM_SHOWN].tolist()
    return [[*row, *(train.paths[each] for each in near), *near] for row, near in zip(rows, nearest, strict=True)]


def _write(file: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with replacing(file) as partial, open_text(partial, "w") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
