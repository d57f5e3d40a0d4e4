"""Few-shot classification on frozen features: many small tasks, each with a few labeled records of a few classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.banks import check_banks
from eztorch_sce.evaluation.base import EvaluationConfig, Scores
from eztorch_sce.evaluation.memory import on_device, take
from eztorch_sce.evaluation.search import CPU, unit_rows
from eztorch_sce.precision import exact_float32
from eztorch_sce.progress import track
from eztorch_sce.registry import register
from eztorch_sce.seeding import generator_for
from eztorch_sce.settings import setting
from eztorch_sce.transfers import to_device
from eztorch_sce.types import FeatureBank, StoredRows


@register("evaluation", "few-shot")
@dataclass
class FewShotConfig(EvaluationConfig):
    """Classify by the nearest centroid of a few records, in many small tasks."""

    ways: int = setting(5, at_least=2, help="Classes per task.")
    shots: int = setting(5, at_least=1, help="Labeled train records per class.")
    queries: int = setting(15, at_least=1, help="Test records per class; a class with fewer uses all of them.")
    episodes: int = setting(600, at_least=2, help="Number of tasks.")

    def check_records(self, train: Tensor, test: Tensor, classes: Sequence[str]) -> None:
        """Raise ConfigError if fewer than `ways` classes have `shots` train records and a test record."""
        _drawable_classes(_rows_by_class(train), _rows_by_class(test), self.ways, self.shots)

    def evaluate(self, train: FeatureBank, test: FeatureBank, device: torch.device) -> Scores:
        """Return `few_shot_top1`, the mean accuracy, and `few_shot_ci95`, half the width of its confidence interval."""
        drawn = self.ways, self.shots, self.queries, self.episodes, self.seed
        metrics = few_shot_accuracy(train, test, *drawn, device)
        mean, half_width = metrics["few_shot_top1"], metrics["few_shot_ci95"]
        interval = max(0.0, mean - half_width), min(1.0, mean + half_width)  # over the tasks
        return Scores(metrics, intervals={"few_shot_top1": interval})


@torch.no_grad()
@exact_float32()
def few_shot_accuracy(
    train: FeatureBank,
    test: FeatureBank,
    ways: int,
    shots: int,
    queries: int,
    episodes: int,
    seed: int,
    device: torch.device = CPU,
) -> dict[str, float]:
    """Return the mean accuracy over episodes, in [0, 1], and half the width of its 95% confidence interval.

    An episode draws classes, averages the unit features of a few train records of each class into a centroid, and
    assigns each test record to the centroid with the highest cosine.

    Source: Wang et al., SimpleShot, 2019, arXiv:1911.04623, variant L2N. In the paper, the backbone was trained on
    other classes; here the tasks use the classes of the data set.

    Args:
        train: Features to average into centroids; may be in files, since an episode reads only its own rows.
        test: Features to classify, likewise.
        ways: Classes per episode.
        shots: Train records per class.
        queries: Test records per class; a class with fewer uses all of them.
        episodes: Number of episodes, 2 or more.
        seed: Seed of the draws.
        device: The device to compute on.

    Raises:
        ConfigError: If fewer than `ways` classes have `shots` train records and a test record, or the features cannot
            be used; see `check_banks`.
    """
    check_banks(train, test)
    train_rows, test_rows = (_listed_rows_by_class(bank) for bank in (train, test))
    classes = _drawable_classes(train_rows, test_rows, ways, shots)
    supports, queried_from = (on_device(bank.features, device) for bank in (train, test))
    accuracies = torch.zeros(episodes, dtype=torch.float64, device=device)
    for episode in track(range(episodes), episodes, "few-shot episodes"):
        generator = generator_for(seed, episode, 0, 0, "few-shot")
        drawn = [classes[number] for number in torch.randperm(len(classes), generator=generator)[:ways].tolist()]
        support = torch.cat([_draw(train_rows[label], shots, generator) for label in drawn])
        queried = [_draw(test_rows[label], queries, generator) for label in drawn]
        answers = torch.arange(ways).repeat_interleave(torch.tensor([len(rows) for rows in queried]))
        centroids = unit_rows(_take(supports, support, device)).view(ways, shots, -1).mean(dim=1)  # (W, F)
        similarity = unit_rows(_take(queried_from, torch.cat(queried), device)) @ F.normalize(centroids, dim=1).T
        accuracies[episode] = (similarity.argmax(dim=1) == to_device(answers, device)).double().mean()
    accuracies = accuracies.cpu()  # the only time that the host waits for the device
    half_width = 1.96 * accuracies.std() / episodes**0.5
    return {"few_shot_top1": float(accuracies.mean()), "few_shot_ci95": float(half_width)}


def _drawable_classes(train_rows: dict[int, Tensor], test_rows: dict[int, Tensor], ways: int, shots: int) -> list[int]:
    """Return the classes with enough records for an episode, or raise ConfigError if they are fewer than `ways`."""
    classes = [label for label, rows in train_rows.items() if len(rows) >= shots and label in test_rows]
    if len(classes) < ways:
        raise ConfigError(
            [
                f"ways={ways} is more than the {len(classes)} classes with {shots} train records (shots={shots}) "
                "and a test record"
            ]
        )
    return classes


def _rows_by_class(labels: Tensor) -> dict[int, Tensor]:
    return {label: (labels == label).nonzero().flatten() for label in torch.unique(labels).tolist()}


def _listed_rows_by_class(bank: FeatureBank) -> dict[int, Tensor]:
    """Return the rows of each class in the order of the data, so that the draws depend on nothing else."""
    order = bank.in_order()
    return {label: order[rows] for label, rows in _rows_by_class(bank.labels[order]).items()}


def _take(rows: Tensor | StoredRows, index: Tensor, device: torch.device) -> Tensor:
    return take(rows, index, to_device(index, device), device)


def _draw(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)[:count]]
