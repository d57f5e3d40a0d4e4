"""k nearest neighbors on frozen features."""

import torch

from eztorch_sce.evaluation.metrics import top_accuracies
from eztorch_sce.evaluation.search import CPU, nearest_neighbors
from eztorch_sce.types import FeatureBank

NUM_NEIGHBORS, TEMPERATURE = 20, 0.07
"""What votes, and how its votes are weighted, where nobody says otherwise."""


def knn_accuracy(
    train: FeatureBank, test: FeatureBank, k: int, temperature: float, device: torch.device = CPU
) -> dict[str, float]:
    """Return top-1 and top-5 accuracy in [0, 1] of the weighted k-nearest-neighbor vote.

    Each of the k most similar training records (cosine; all of them if there are fewer) votes for its class with weight
    exp(similarity / temperature).

    Source: Wu et al., CVPR 2018, arXiv:1805.01978.
    """
    similarity, nearest = nearest_neighbors(train.features, test.features, k, device=device)  # (Q, k)
    weight = ((similarity - similarity[:, :1]) / temperature).exp()  # relative to the nearest: no overflow
    num_classes = int(max(train.labels.max(), test.labels.max())) + 1
    votes = torch.zeros(len(similarity), num_classes).scatter_add_(1, train.labels[nearest], weight)
    return top_accuracies(votes, test.labels, "knn")
