"""Top-1 and top-5 accuracy."""

from jaxtyping import Bool, Float, Int64
from torch import Tensor


def top_accuracies(scores: Float[Tensor, "N C"], labels: Int64[Tensor, " N"], name: str) -> dict[str, float]:
    """Return the fraction of rows whose label has the highest score, or one of the five highest scores.

    Args:
        scores: A score per class, (N, C).
        labels: Class indices, (N,).
        name: Prefix of the metrics, as in `knn_top1`.
    """
    num_candidates = min(5, scores.shape[1])
    top1 = scores.argmax(dim=1) == labels
    top5 = (scores.topk(num_candidates, dim=1).indices == labels[:, None]).any(dim=1)
    return {f"{name}_top1": _fraction(top1), f"{name}_top5": _fraction(top5)}


def _fraction(hits: Bool[Tensor, " N"]) -> float:
    return float(hits.sum().float() / len(hits))
