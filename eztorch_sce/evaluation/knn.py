"""k-nearest-neighbor classification on frozen features."""

from dataclasses import dataclass, replace

import torch

from eztorch_sce.evaluation.banks import check_banks
from eztorch_sce.evaluation.base import EvaluationConfig, Scores
from eztorch_sce.evaluation.memory import on_device
from eztorch_sce.evaluation.metrics import classification_scores
from eztorch_sce.evaluation.search import CPU, NUM_SHOWN, nearest_neighbors
from eztorch_sce.registry import register
from eztorch_sce.settings import setting
from eztorch_sce.types import FeatureBank, Predictions

NUM_NEIGHBORS, TEMPERATURE = 20, 0.07  # the defaults of the command and of the online evaluation


@register("evaluation", "knn")
@dataclass
class KnnConfig(EvaluationConfig):
    """Classify by the weighted vote of the nearest neighbors, with and without centering."""

    k: int = setting(NUM_NEIGHBORS, at_least=1, help="Number of neighbors that vote.")
    temperature: float = setting(
        TEMPERATURE, above=0, help="Temperature of the votes; a lower value favors the nearest neighbors."
    )

    def evaluate(self, train: FeatureBank, test: FeatureBank, device: torch.device) -> Scores:
        """Return `knn_top1` and `knn_top5`, and the same for centered features with the suffix `_centered`."""
        check_banks(train, test)
        train = replace(train, features=on_device(train.features, device))
        plain, centered = (_vote(train, test, self.k, self.temperature, device, center) for center in (False, True))
        metrics = plain.metrics | {f"{name}_centered": value for name, value in centered.metrics.items()}
        by_record = plain.by_record | {f"{name}_centered": values for name, values in centered.by_record.items()}
        return Scores(metrics, by_record=by_record, predictions=plain.predictions)


def knn_accuracy(
    train: FeatureBank,
    test: FeatureBank,
    k: int = NUM_NEIGHBORS,
    temperature: float = TEMPERATURE,
    device: torch.device = CPU,
    centered: bool = False,
) -> dict[str, float]:
    """Return top-1 and top-5 accuracy in [0, 1] of the weighted k-nearest-neighbor vote.

    Each of the k most similar train records (all of them if there are fewer) votes for its class with weight
    exp(cosine / temperature). A class without a vote is never among the five of the top-5 accuracy.

    Source: Wu et al., CVPR 2018, arXiv:1805.01978.

    Args:
        train: Features that vote.
        test: Features to classify.
        k: Number of neighbors.
        temperature: Temperature of the weights.
        device: The device to compute on.
        centered: Subtract the mean of each split from its features first.

    Raises:
        ConfigError: If the features cannot be used; see `check_banks`.
    """
    check_banks(train, test)
    return _vote(train, test, k, temperature, device, centered).metrics


def _vote(
    train: FeatureBank, test: FeatureBank, k: int, temperature: float, device: torch.device, centered: bool
) -> Scores:
    similarity, nearest = nearest_neighbors(train.features, test.features, k, centered, device)  # (Q, k)
    weight = ((similarity - similarity[:, :1]) / temperature).exp()  # relative to the nearest, against overflow
    num_classes = int(max(train.labels.max(), test.labels.max())) + 1
    votes = torch.zeros(len(similarity), num_classes).scatter_add_(1, train.labels[nearest], weight)
    has_vote = (train.labels[nearest] == test.labels[:, None]).any(dim=1)
    answers = test.labels.where(has_vote, -1)  # no class without a vote is among the five
    scores = classification_scores(votes, answers, "knn")
    predicted, score = votes.argmax(dim=1), votes.amax(dim=1) / votes.sum(dim=1)  # the fraction of the votes
    return replace(scores, predictions=Predictions(predicted, score, nearest[:, :NUM_SHOWN]))
