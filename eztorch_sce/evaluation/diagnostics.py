"""Diagnostics of embeddings: whether they spread over many dimensions or collapse to a point or a line."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from eztorch_sce.precision import exact_float32
from eztorch_sce.transfers import to_host

MAX_ROWS = 256  # only this many rows of a batch are used, so the cost stays far below that of a training step
NAMES = ("spread", "effective_rank", "uniformity")


class EmbeddingStatistics(NamedTuple):
    """What a device computes of embeddings, and from which the host computes their diagnostics.

    Attributes:
        spread, uniformity: As in `embedding_diagnostics`.
        gram: The smaller of the two Gram matrices of the centered embeddings, whose eigenvalues are the squared
            singular values. A GPU would make the host wait for its eigenvalues, and has no kernel for 16 bits.
    """

    spread: Float[Tensor, ""]
    uniformity: Float[Tensor, ""]
    gram: Float[Tensor, "n n"]


def embedding_diagnostics(embeddings: Float[Tensor, "B D"]) -> dict[str, Float[Tensor, ""]]:
    """Return scalars that measure how embeddings (B, D) are spread. They are NaN if an embedding is not finite.

    Embeddings are normalized, unless they are unit vectors.

    `spread`: mean over dimensions of the standard deviation, times sqrt(D). 1 on the whole sphere, 0 for one point.
    `effective_rank`: exponential of the entropy of the normalized singular values of the centered embeddings (Roy and
    Vetterli, EUSIPCO 2007). The number of dimensions in use, at most min(B - 1, D).
    `uniformity`: logarithm of the mean of exp(-2 ||x - y||^2) over pairs (Wang and Isola, ICML 2020). 0 for one point,
    about -4 on the whole sphere in many dimensions.

    The scalars are on the CPU. A GPU sends what they need in one copy.
    """
    return diagnostics_of(EmbeddingStatistics(*to_host(embedding_statistics(embeddings))))


@torch.no_grad()
def embedding_statistics(embeddings: Float[Tensor, "B D"]) -> EmbeddingStatistics:
    """Return what `diagnostics_of` needs of embeddings (B, D), on their device, without waiting for it.

    Computed in float32 even under autocast: 16-bit products blur the small singular values that show a collapse.
    """
    with exact_float32():
        rows = embeddings[:MAX_ROWS].float()
        norms = rows.norm(dim=1, keepdim=True)
        rows = torch.where((norms - 1).abs() < 1e-3, rows, rows / norms.clamp_min(1e-12))
        return EmbeddingStatistics(_spread(rows), _uniformity(rows), _gram(rows))


@torch.no_grad()
def diagnostics_of(statistics: EmbeddingStatistics) -> dict[str, Float[Tensor, ""]]:
    """Return the scalars of `embedding_diagnostics` from statistics on the CPU."""
    spread, uniformity, gram = statistics
    if not bool(gram.isfinite().all()):  # the eigenvalue routine would fail
        return dict.fromkeys(NAMES, spread.new_tensor(torch.nan))
    with exact_float32():
        return dict(zip(NAMES, (spread, _effective_rank(gram), uniformity), strict=True))


def _spread(rows: Tensor) -> Tensor:
    spread: Tensor = rows.std(dim=0).mean() * rows.shape[1] ** 0.5
    return spread


def _gram(rows: Tensor) -> Tensor:
    centered = rows - rows.mean(dim=0)
    return centered @ centered.T if rows.shape[0] <= rows.shape[1] else centered.T @ centered


def _effective_rank(gram: Tensor) -> Tensor:
    singular_values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    fractions = singular_values / singular_values.sum().clamp_min(1e-12)
    rank: Tensor = torch.special.entr(fractions).sum().exp()
    return rank


def _uniformity(rows: Tensor) -> Tensor:
    squared_distances = (2 - 2 * rows @ rows.T).clamp_min(0)
    num_pairs = len(rows) * (len(rows) - 1)
    # Each row paired with itself contributes exp(0) = 1, which is subtracted.
    mean: Tensor = ((-2 * squared_distances).exp().sum() - len(rows)) / num_pairs
    return mean.clamp_min(1e-12).log()
