"""Contract of the losses, and the pairs of views that they compare."""

from collections.abc import Callable
from dataclasses import Field
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor] | Callable[[Tensor, Tensor, Tensor], Tensor]
"""A loss of queries (B, D) and keys (B, D) of the same samples, and of negatives (K, D): any module or function.

It returns a scalar, the batch mean. `loss(query, key)` is enough without a queue. The third parameter receives the keys
of a queue; a loss for both is `loss(query, key, negatives=None)`. Two attributes are optional:

- `takes_unit_vectors = False`: the loss receives projections as they are, rather than unit vectors.
- `needs_negatives = True`: the loss cannot work without negatives, although its signature allows None.
"""


@runtime_checkable
class LossConfig(Protocol):
    """A config dataclass that builds a loss; `@register("loss", name)` makes it a choice.

    Its class may set `needs_negatives`: True if the loss cannot work without negatives, False if it ignores them.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def build(self) -> Loss:
        """Return the loss."""
        ...


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
        with_metrics: Whether the metrics are read; in steps that do not log, a loss need not compute them.
    """

    queries: list[Tensor]
    keys: list[Tensor]
    pairs: list[tuple[int, int]]
    negatives: Tensor | None = None
    batch_keys: list[Tensor] | None = None
    batch_offset: int = 0
    with_metrics: bool = True


class PairLosses(NamedTuple):
    """Mean loss over pairs of views.

    Attributes:
        loss: Scalar with its graph.
        metrics: Detached scalars to log; may be empty if the views are without `with_metrics`.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


@runtime_checkable
class PairsLoss(Protocol):
    """A loss that computes all pairs of views at once, to share work between them or to use the in-batch keys."""

    def over_pairs(self, views: ViewPairs) -> PairLosses:
        """Return the mean over pairs."""


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
