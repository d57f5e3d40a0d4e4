"""Top-1 and top-5 accuracy."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def top_accuracies(scores: Float[Tensor, "N C"], labels: Int64[Tensor, " N"], name: str) -> dict[str, float]:
    """Return the fraction of rows whose label has the highest score, or one of the five highest scores.

    Args:
        scores: A score per class, (N, C).
        labels: Class indices, (N,).
        name: Prefix of the metrics, as in `knn_top1`.
    """
    top1, top5 = top_fractions(scores, labels).tolist()
    return {f"{name}_top1": top1, f"{name}_top5": top5}


def top_fractions(scores: Float[Tensor, "N C"], labels: Int64[Tensor, " N"]) -> Float[Tensor, "2"]:
    """Return both numbers of `top_accuracies` in one tensor on the device of the scores, which is not waited for."""
    num_candidates = min(5, scores.shape[1])
    top1 = scores.argmax(dim=1) == labels
    top5 = (scores.topk(num_candidates, dim=1).indices == labels[:, None]).any(dim=1)
    return torch.stack([top1, top5]).sum(dim=1).float() / len(labels)
