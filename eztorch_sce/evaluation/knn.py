"""k nearest neighbours on frozen features."""

import torch
import torch.nn.functional as F

from eztorch_sce.evaluation.metrics import top_accuracies
from eztorch_sce.types import FeatureBank

_CHUNK = 1024  # queries compared at once: bounds the memory of the similarities


def knn_accuracy(train: FeatureBank, test: FeatureBank, k: int, temperature: float) -> dict[str, float]:
    """Return top-1 and top-5 accuracy in [0, 1] of the weighted k-nearest-neighbour vote.

    Each of the k most similar training records (cosine) votes for its class with weight exp(similarity / temperature).

    Source: Wu et al., CVPR 2018, arXiv:1805.01978.
    """
    k = min(k, len(train.features))
    bank = F.normalize(train.features, dim=1)  # (N, F)
    num_classes = int(train.labels.max()) + 1
    votes = []
    for features in test.features.split(_CHUNK):
        similarity, nearest = (F.normalize(features, dim=1) @ bank.T).topk(k)  # (Q, k)
        weight = ((similarity - similarity[:, :1]) / temperature).exp()  # relative to the nearest: no overflow
        votes.append(torch.zeros(len(features), num_classes).scatter_add_(1, train.labels[nearest], weight))
    return top_accuracies(torch.cat(votes), test.labels, "knn")
