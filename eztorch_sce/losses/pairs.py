"""What every objective on pairs of views is: a loss of one pair, and the mean over the pairs of a batch."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


class PairLosses(NamedTuple):
    """The mean loss over pairs, a scalar with its graph, and detached scalars worth logging."""

    loss: Tensor
    metrics: dict[str, Tensor]


@runtime_checkable
class Loss(Protocol):
    """A loss that a method can train with: a module that averages over the pairs of views of a batch."""

    def over_pairs(
        self,
        queries: list[Tensor],
        keys: list[Tensor],
        pairs: list[tuple[int, int]],
        negatives: Tensor | None = None,
        batch_keys: list[Tensor] | None = None,
        batch_offset: int = 0,
    ) -> PairLosses:
        """Return the mean over pairs (query number, key number) of views."""


class PairLoss(nn.Module, ABC):
    """A loss of queries and the keys of the same samples.

    A new one defines `forward`; methods call `over_pairs`, which a loss may override to share work between pairs.
    """

    @abstractmethod
    def forward(
        self,
        query: Tensor,
        key: Tensor,
        negatives: Tensor | None = None,
        batch_keys: Tensor | None = None,
        batch_offset: int = 0,
    ) -> Tensor:
        """Return the batch mean, a scalar.

        Args:
            query: Online embeddings, unit vectors (B, D).
            key: Embeddings of another view of the same samples, unit vectors (B, D).
            negatives: Unit vectors (K, D), usually a queue.
            batch_keys: All keys of the global batch (G, D), or of several of its views (V, G, D), as negatives of
                each other; a sample's own are left out.
            batch_offset: Row of `batch_keys` where the samples of `query` begin.
        """

    def over_pairs(
        self,
        queries: list[Tensor],
        keys: list[Tensor],
        pairs: list[tuple[int, int]],
        negatives: Tensor | None = None,
        batch_keys: list[Tensor] | None = None,
        batch_offset: int = 0,
    ) -> PairLosses:
        """Return the mean over pairs (number of the query, number of the key) of views.

        Args:
            queries, keys: One (B, D) per view.
            pairs: Which query is compared with which key.
            negatives, batch_offset: As in `forward`.
            batch_keys: As in `forward`, one per key view.
        """
        terms = [
            self(queries[i], keys[j], negatives, None if batch_keys is None else batch_keys[j], batch_offset)
            for i, j in pairs
        ]
        aligned = [squared_distance(queries[i].detach(), keys[j].detach()).mean() for i, j in pairs]
        return PairLosses(torch.stack(terms).mean(), {"alignment": torch.stack(aligned).mean()})

    def set_progress(self, progress: float) -> None:
        """Move scheduled settings to where they are at `progress` in [0, 1] of training; most losses have none."""


def accurate(x: Tensor) -> Tensor:
    """Return float32, or float64 as it is: similarities are divided by small temperatures."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def squared_distance(query: Tensor, key: Tensor) -> Tensor:
    """Return the squared distances (B,) of unit vectors (B, D) from (B, D)."""
    return 2 - 2 * (accurate(query) * accurate(key)).sum(dim=1)


def check_pair(query: Tensor, key: Tensor) -> None:
    """Refuse a query and a key that are not of one shape (B, D), or empty.

    Raises:
        ValueError: With both shapes.
    """
    if query.ndim != 2 or query.shape != key.shape:
        raise ValueError(f"query and key must both be (B, D): got {tuple(query.shape)} and {tuple(key.shape)}")
    if len(query) == 0:
        raise ValueError(f"query and key are empty, {tuple(query.shape)}: skip such a batch")


def check_finite(loss: Tensor, embeddings: list[tuple[str, Tensor]]) -> None:
    """Refuse a loss that is no number, on a CPU: reading it back from a GPU would stop that.

    Raises:
        ValueError: Naming which of the embeddings (name, (..., D)) holds NaN or infinite numbers, and in how many rows.
    """
    if loss.is_cuda or bool(loss.isfinite()):
        return
    for name, rows in embeddings:
        _norms(name, rows)


def check_norms(name: str, rows: Tensor) -> None:
    """Refuse rows (..., D) that are not finite, or not of unit norm to 5 %, which bf16 and small steps are.

    Raises:
        ValueError: With the norms seen.
    """
    norms = _norms(name, rows)
    if bool(((norms - 1).abs() > 0.05).any()):
        seen = f"{norms.min().item():.3g} to {norms.max().item():.3g}"
        raise ValueError(f"{name} must hold unit vectors, and its norms go from {seen}: normalize (F.normalize) first")


def _norms(name: str, rows: Tensor) -> Tensor:
    """Return the norms (...,) of finite rows (..., D)."""
    norms = rows.detach().norm(dim=-1)  # in their own type: a million rows are not copied to float32
    if bad := int((~norms.isfinite()).sum()):
        raise ValueError(f"{name} holds NaN or infinite numbers in {bad} of {norms.numel()} rows")
    return norms
