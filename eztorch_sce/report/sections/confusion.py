"""Confusion section: which classes are mistaken for which, and the most confident mistakes."""

import csv
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from eztorch_sce.files import open_text
from eztorch_sce.report.evaluation_names import evaluation_title
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.samples import TEST
from eztorch_sce.report.section import Section
from eztorch_sce.report.shown import Paths, Shown, predicting, shown_networks

if TYPE_CHECKING:
    from eztorch_sce.report.media import Media

_IN_PLACE = 20  # classes whose whole table is shown at once
_NUM_PAIRS, _NUM_WORST = 12, 12


def confusion(runs: Sequence[RunFiles], media: "Media | None") -> Section | None:
    """Return the confusion of each evaluation that predicts classes, or None if there is none."""
    evaluations: list[dict[str, Any]] = []
    columns: dict[str, npt.NDArray[np.generic]] = {}
    images: dict[str, bytes] = {}
    networks = shown_networks(runs, media)
    for network in networks:
        for run in predicting(network.sample):
            classes, counts = _read(run)
            if not classes:
                continue
            number = len(evaluations)
            title = evaluation_title(run.command)
            title += f", {network.sample.name}" if len(networks) > 1 else ""
            evaluations.append({"title": title, "number": number} | _data_of(network, run, classes, counts))
            images |= network.image_files()
            if len(classes) > _IN_PLACE:
                columns[f"confusion-{number}"] = counts.ravel()
    if not evaluations:
        return None
    return Section("confusion", "Confusion between classes", {"evaluations": evaluations}, columns, images)


def _read(run: RunFiles) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the classes and the counts (C, C) in `confusion.csv`, by class and predicted class."""
    file = run.directory / "confusion.csv"
    if not file.is_file():
        return [], np.zeros((0, 0), np.int64)
    with open_text(file) as stream:
        header, *rows = csv.reader(stream)
    return header[1:], np.array([[int(cell) for cell in row[1:]] for row in rows], np.int64)


def _data_of(network: Shown, run: RunFiles, classes: list[str], counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    totals = counts.sum(axis=1)
    share = counts / np.maximum(totals, 1)[:, None]
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:_NUM_PAIRS]
    places = [divmod(place, len(classes)) for place in order.tolist() if mistakes.ravel()[place]]
    total, correct = int(counts.sum()), int(np.trace(counts))
    return {
        "total": total,
        "correct": correct,
        "classes": classes,
        "rows": _rows(classes, counts, share) if len(classes) <= _IN_PLACE else None,
        "pairs": [
            {
                "label": classes[label],
                "prediction": classes[guess],
                "count": int(counts[label, guess]),
                "of": int(totals[label]),
            }
            for label, guess in places
        ],
        "worst": _worst(network, run),
    }


def _rows(classes: list[str], counts: npt.NDArray[np.int64], share: npt.NDArray[np.float64]) -> list[dict[str, Any]]:
    """Return the rows of the table: counts, and how strongly a cell is tinted."""
    cells = [
        [
            {"count": int(count), "heat": round(float(part), 3), "is_correct": row == column}
            for column, (count, part) in enumerate(zip(counts[row], share[row], strict=True))
        ]
        for row in range(len(classes))
    ]
    return [{"name": name, "cells": row} for name, row in zip(classes, cells, strict=True)]


def _worst(network: Shown, run: RunFiles) -> list[dict[str, Any]]:
    """Return the wrong predictions, the most confident first."""
    wrong = [row for row in run.predictions if row.get("prediction") and row["prediction"] != row.get("label")]
    wrong.sort(key=lambda row: -float(row.get("score", "nan")))
    wrong, rows = wrong[:_NUM_WORST], network.sample.rows_by_key()
    paths = Paths.of(row.get("record", "") for row in run.predictions)
    return [
        {
            "path": row.get("record", "").removeprefix(paths.folder),
            "label": row.get("label", ""),
            "prediction": row["prediction"],
            "score": float(row.get("score", "nan")),
            "place": network.tile(rows.get((TEST, int(row["index"])))),
        }
        for row in wrong
    ]
