"""Contract of the losses, and the mean of a loss over pairs of views."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


class ViewPairs(NamedTuple):
    """Embeddings of the views of a batch, and the pairs of views to compare.

    Attributes:
        queries: Online embeddings, one (B, D) of unit vectors per query view.
        keys: Target embeddings of the same samples, one (B, D) of unit vectors per key view.
        pairs: Indices (query view, key view), one pair per term of the loss.
        negatives: Negatives shared by all queries, unit vectors (K, D), usually a queue; or None.
        batch_keys: For each key view, the keys of the global batch, (G, D), or (V, G, D) for keys of several views; the
            keys of the other samples are negatives. None for no in-batch negatives.
        batch_offset: Row of `batch_keys` that belongs to the first sample of this process.
    """

    queries: list[Tensor]
    keys: list[Tensor]
    pairs: list[tuple[int, int]]
    negatives: Tensor | None = None
    batch_keys: list[Tensor] | None = None
    batch_offset: int = 0


class PairLosses(NamedTuple):
    """Mean loss over pairs of views.

    Attributes:
        loss: Scalar with its graph.
        metrics: Detached scalars to log.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


@runtime_checkable
class Loss(Protocol):
    """A loss of queries and of keys of the same samples: any module or function with this signature."""

    def __call__(
        self,
        query: Float[Tensor, "B D"],
        key: Float[Tensor, "B D"],
        negatives: Float[Tensor, "K D"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the batch mean from unit vectors; `negatives` is the queue, or None if the method has none."""


@runtime_checkable
class PairsLoss(Loss, Protocol):
    """A loss that computes all pairs of views at once, to share work between them or to use the in-batch keys."""

    def over_pairs(self, views: ViewPairs) -> PairLosses:
        """Return the mean over pairs."""


def over_pairs_of(loss: Loss) -> Callable[[ViewPairs], PairLosses]:
    """Return the function that averages a loss over pairs of views: its own `over_pairs` if it has one.

    A loss without `over_pairs` is called once per pair, with the queue as negatives. It does not receive
    `views.batch_keys`; the keys of its own process are in `key`.
    """
    return loss.over_pairs if isinstance(loss, PairsLoss) else partial(_one_call_per_pair, loss)


def _one_call_per_pair(loss: Loss, views: ViewPairs) -> PairLosses:
    terms = [loss(views.queries[i], views.keys[j], views.negatives) for i, j in views.pairs]
    return PairLosses(torch.stack(terms).mean(), {"alignment": alignment(views)})


@torch.no_grad()
def alignment(views: ViewPairs) -> Tensor:
    """Return the mean squared distance between query and key, a scalar in [0, 4] (Wang and Isola, arXiv:2005.10242)."""
    distances = [squared_distance(views.queries[i], views.keys[j]).mean() for i, j in views.pairs]
    return torch.stack(distances).mean()


def squared_distance(query: Float[Tensor, "B D"], key: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
    """Return the squared distance between the unit vectors of each pair."""
    return 2 - 2 * (at_least_float32(query) * at_least_float32(key)).sum(dim=1)


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32, since similarities are divided by small temperatures; keep float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
