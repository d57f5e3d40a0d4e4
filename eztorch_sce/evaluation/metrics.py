"""Top-1 and top-5 accuracy, overall and per record."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from eztorch_sce.evaluation.base import Scores
from eztorch_sce.types import Predictions


def top_hits(scores: Float[Tensor, "N C"], labels: Int64[Tensor, " N"]) -> Bool[Tensor, "2 N"]:
    """Return whether each label has the highest score, and whether it has one of the five highest scores, (2, N)."""
    num_candidates = min(5, scores.shape[1])
    top1 = scores.argmax(dim=1) == labels
    top5 = (scores.topk(num_candidates, dim=1).indices == labels[:, None]).any(dim=1)
    return torch.stack([top1, top5])


def classification_scores(scores: Float[Tensor, "N C"], labels: Int64[Tensor, " N"], name: str) -> Scores:
    """Return top-1 and top-5 accuracy, overall and per record, and the class with the highest score of each record.

    Args:
        scores: A score per class, (N, C), such as its probability.
        labels: Class indices, (N,).
        name: Prefix of the metrics, as in `knn_top1`.
    """
    return scores_of_hits(top_hits(scores, labels), scores.argmax(dim=1), scores.amax(dim=1), name)


def scores_of_hits(
    hits: Bool[Tensor, "2 N"], predicted: Int64[Tensor, " N"], score: Float[Tensor, " N"], name: str
) -> Scores:
    """Return the same from the result of `top_hits`, the predictions and their scores."""
    names = (f"{name}_top1", f"{name}_top5")
    fractions = hits.sum(dim=1).float() / hits.shape[1]
    metrics = dict(zip(names, fractions.tolist(), strict=True))
    by_record = dict(zip(names, hits.float(), strict=True))
    return Scores(metrics, by_record=by_record, predictions=Predictions(predicted, score))
