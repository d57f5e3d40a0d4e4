"""Few-shot classification on frozen features: many small tasks, each with a few labeled records of a few classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from eztorch_sce.errors import ConfigError
from eztorch_sce.progress import track
from eztorch_sce.seeding import generator_for
from eztorch_sce.types import FeatureBank


def few_shot_accuracy(
    train: FeatureBank, test: FeatureBank, ways: int, shots: int, queries: int, episodes: int, seed: int
) -> dict[str, float]:
    """Return the mean accuracy over episodes, in [0, 1], and half the width of its 95 % confidence interval.

    An episode draws classes, for each of them a centroid from records of the train part, and classifies records of the
    test part by the nearest centroid: the mean of unit features, compared by cosine.

    Source: Wang et al., SimpleShot, 2019, arXiv:1911.04623, whose L2N this is; there the classes are new, here they are
    those of the data set.

    Args:
        train, test: The features; may be memory-mapped, an episode reads its own rows.
        ways: Classes of an episode.
        shots: Training records of each.
        queries: Test records of each; all of a class that has fewer.
        episodes: 2 or more.
        seed: Of the draws.

    Raises:
        ConfigError: If fewer than `ways` classes have `shots` training records and a test record.
    """
    support, asked = _rows_by_class(train.labels), _rows_by_class(test.labels)
    classes = [label for label, rows in support.items() if len(rows) >= shots and label in asked]
    if len(classes) < ways:
        raise ConfigError(
            [
                f"ways={ways} is more than the {len(classes)} classes with {shots} training records (shots={shots}) "
                "and a test record"
            ]
        )
    accuracies = torch.zeros(episodes, dtype=torch.float64)
    for episode in track(range(episodes), episodes, "few-shot episodes"):
        generator = generator_for(seed, episode, 0, 0, "few-shot")
        chosen = [classes[number] for number in torch.randperm(len(classes), generator=generator)[:ways].tolist()]
        shown = torch.cat([_draw(support[label], shots, generator) for label in chosen])
        rows = [_draw(asked[label], queries, generator) for label in chosen]
        centroids = F.normalize(train.features[shown], dim=1).view(ways, shots, -1).mean(dim=1)  # (W, F)
        similarity = F.normalize(test.features[torch.cat(rows)], dim=1) @ F.normalize(centroids, dim=1).T
        right = torch.arange(ways).repeat_interleave(torch.tensor([len(part) for part in rows]))
        accuracies[episode] = (similarity.argmax(dim=1) == right).double().mean()
    half_width = 1.96 * accuracies.std() / episodes**0.5
    return {"few_shot_top1": float(accuracies.mean()), "few_shot_ci95": float(half_width)}


def _rows_by_class(labels: Tensor) -> dict[int, Tensor]:
    return {label: (labels == label).nonzero().flatten() for label in labels.unique().tolist()}


def _draw(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)[:count]]
