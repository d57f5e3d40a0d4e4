"""Figures of a report."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eztorch_sce.data.decoders.base import Decoder
from eztorch_sce.evaluation.search import nearest_neighbors
from eztorch_sce.files import open_text
from eztorch_sce.printing import visible
from eztorch_sce.types import ClipSpan, FeatureBank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUM_QUERIES = 4
_NUM_NEIGHBORS = 3
_STRIP_FRAMES = 4


def plot_demo(
    file: Path,
    metrics_file: Path,
    untrained: FeatureBank,
    test: FeatureBank,
    bank: FeatureBank,
    decoder: Decoder,
    clip_s: float,
) -> None:
    """Draw the loss, the features before and after training, and test clips with their nearest training clips.

    Args:
        file: PNG file to write.
        metrics_file: `metrics.csv` of the pretraining.
        untrained: Features of the test split before training.
        test: Features of the test split after training.
        bank: Features of the train split after training.
        decoder: Decoder for the clips shown.
        clip_s: Duration of a clip in seconds.
    """
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False}):  # a dollar sign in a class name is no formula
        figure = _draw_demo(metrics_file, untrained, test, bank, decoder, clip_s)
        figure.savefig(file, dpi=110)


def _draw_demo(
    metrics_file: Path, untrained: FeatureBank, test: FeatureBank, bank: FeatureBank, decoder: Decoder, clip_s: float
) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9.5), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display
    halves: Any = figure.subfigures(2, height_ratios=[1, 1.3])
    top, bottom = halves
    curve, before, after = top.subplots(1, 3)
    steps, losses = _column(metrics_file, "loss")
    curve.plot(steps, losses)
    curve.set(title="pretraining without labels", xlabel="step", ylabel="loss")
    for axes, features, title in ((before, untrained, "untrained"), (after, test, "pretrained")):
        points = principal_components(features.features)
        for label, name in enumerate(features.classes):
            chosen = points[features.labels == label]
            axes.scatter(chosen[:, 0], chosen[:, 1], s=14, label=visible(name))
        axes.set(title=f"test clips, {title} features", xticks=[], yticks=[])
    after.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    _draw_neighbors(bottom, test, bank, decoder, clip_s)
    return figure


def principal_components(features: Tensor, count: int = 2) -> Tensor:
    """Return the coordinates (N, count) along the directions of largest variance of unit-norm features (N, F)."""
    unit = torch.nn.functional.normalize(features - features.mean(dim=0), dim=1)
    _, _, directions = torch.linalg.svd(unit, full_matrices=False)
    coordinates: Tensor = unit @ directions[:count].T
    return coordinates


def _draw_neighbors(figure: Any, test: FeatureBank, bank: FeatureBank, decoder: Decoder, clip_s: float) -> None:
    labels = torch.linspace(0, len(test.classes) - 1, _NUM_QUERIES).long()
    rows = (test.labels[None] == labels[:, None]).int().argmax(dim=1)  # the first test clip of each of these classes
    nearest = nearest_neighbors(bank.features, test.features, _NUM_NEIGHBORS, centered=True).indices
    grid = figure.subplots(_NUM_QUERIES, 1 + _NUM_NEIGHBORS)
    figure.suptitle(
        "test clips (left) and their nearest training clips by pretrained features; time runs from left to right"
    )
    for line, row in zip(grid, rows.tolist(), strict=True):
        query_label = int(test.labels[row])
        cells = [(test.paths[row], query_label), *((bank.paths[i], int(bank.labels[i])) for i in nearest[row].tolist())]
        for number, (axes, (path, label)) in enumerate(zip(line, cells, strict=True)):
            clip = decoder.read(path, [ClipSpan(0.0, clip_s)], _STRIP_FRAMES)[0].frames  # (3, T, H, W)
            axes.imshow(torch.cat(list(clip.unbind(1)), dim=2).movedim(0, -1).numpy())
            color = "black" if number == 0 else "green" if label == query_label else "red"
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{'query: ' if number == 0 else ''}{visible(bank.classes[label])}", color=color, fontsize=9)
            for side in axes.spines.values():
                side.set(color=color, linewidth=2)


def _column(metrics_file: Path, name: str) -> tuple[list[int], list[float]]:
    with open_text(metrics_file) as stream:
        rows = [row for row in csv.DictReader(stream) if row.get(name)]
    return [int(row["step"]) for row in rows], [float(row[name]) for row in rows]
