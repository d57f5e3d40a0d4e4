"""Whether embeddings are healthy: spread out over many dimensions, or collapsing to a point or a line."""

import math

import torch
from torch import Tensor

MAX_ROWS = 256  # of a batch that are looked at: the cost stays far below that of a training step


@torch.no_grad()
def embedding_diagnostics(embeddings: Tensor) -> dict[str, Tensor]:
    """Return scalars that say how unit vectors (B, D) are spread.

    `spread`: the mean over dimensions of the standard deviation, times sqrt(D): 1 on the whole sphere, 0 in one point.
    `effective_rank`: exp of the entropy of the singular values of the centered embeddings (Roy and Vetterli, EUSIPCO
    2007): the number of dimensions in use, at most min(B - 1, D).
    `uniformity`: log of the mean of exp(-2 ||x - y||^2) over pairs (Wang and Isola, ICML 2020): 0 in one point, about
    -4 on the whole sphere of many dimensions. All are NaN where an embedding is not finite.
    """
    rows = embeddings[:MAX_ROWS].float()
    if not bool(rows.isfinite().all()):  # there are no singular values then, and torch says so in its own words
        return dict.fromkeys(("spread", "effective_rank", "uniformity"), rows.new_tensor(torch.nan))
    centered = rows - rows.mean(dim=0)
    spread = rows.std(dim=0).mean() * rows.shape[1] ** 0.5
    # The squares of the singular values, from the smaller of the two products.
    product = centered @ centered.T if rows.shape[0] <= rows.shape[1] else centered.T @ centered
    singular = torch.linalg.eigvalsh(product).clamp_min(0).sqrt()
    shares = singular / singular.sum().clamp_min(1e-12)
    rank = torch.special.entr(shares).sum().exp()
    distances = (2 - 2 * rows @ rows.T).clamp_min(0)
    num_pairs = len(rows) * (len(rows) - 1)
    uniformity = (((-2 * distances).exp().sum() - len(rows)) / num_pairs).clamp_min(1e-12).log()
    return {"spread": spread, "effective_rank": rank, "uniformity": uniformity}


def verdict(metrics: dict[str, float]) -> str | None:
    """Say in words what is wrong with embeddings of these `embedding_diagnostics`; None if nothing is."""
    spread, rank = metrics.get("spread", 1.0), metrics.get("effective_rank", float("inf"))
    if math.isnan(spread):
        return "the embeddings hold NaN: lower optimizer.lr, warm up longer, or train in trainer.precision=32-true"
    if spread < 0.1:
        return (
            f"collapsed: all embeddings are nearly one point (spread {spread:.3f}; 1 is healthy). Lower optimizer.lr, "
            "keep a predictor or negatives, or raise loss.temperature"
        )
    if rank < 2:
        return (
            f"collapsing: the embeddings use {rank:.1f} dimensions. Look at the views (too alike, or one easy cue in "
            "both), at loss.positive_weight and at optimizer.lr"
        )
    return None
