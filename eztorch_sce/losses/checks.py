"""Checks of the inputs of a loss, with errors that name the tensor and its shape or values."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eztorch_sce.losses.pairs import ViewPairs, at_least_float32

NORM_TOLERANCE = 0.05  # bfloat16 and finite-difference steps stay below it


class NotFiniteError(ValueError):
    """An embedding has NaN or infinite values."""


_collected: list[NotFiniteError] | None = None  # within `collected`


@contextmanager
def collected() -> Iterator[list[NotFiniteError]]:
    """Yield a list that receives each `NotFiniteError` in this context, instead of raising it.

    A loss that is not finite is then returned with its graph, so that all processes still take part in the exchanges of
    the backward pass, and decide together what follows.
    """
    global _collected
    before, _collected = _collected, []
    try:
        yield _collected
    finally:
        _collected = before


class UnitVectorLoss(nn.Module):
    """A loss of unit vectors.

    Args:
        normalize: Whether the arguments of `forward` are normalized first; methods pass unit vectors.
    """

    def __init__(self, normalize: bool) -> None:
        super().__init__()
        self.normalize = normalize
        self._norms_checked = False
        self._norms_on_the_way: NormsOnTheWay | None = None

    def extra_repr(self) -> str:
        """Return the settings that are shown when the loss is printed."""
        return "normalize=True" if self.normalize else ""

    def unit(self, rows: Tensor) -> Tensor:
        """Return rows (..., D) normalized in at least float32 if the loss normalizes, else as they are."""
        return F.normalize(at_least_float32(rows), dim=-1) if self.normalize else rows

    def check_norms_once(self, embeddings: list[tuple[str, Tensor]]) -> None:
        """Check that all embeddings are unit vectors, in the first call only: the norms of a large queue are costly.

        The host does not wait for a GPU: a later call checks what the first one measured, as soon as it has arrived.
        """
        if self._norms_on_the_way is not None and self._norms_on_the_way.have_arrived():
            norms, self._norms_on_the_way = self._norms_on_the_way, None
            norms.check()
        if self._norms_checked or self.normalize:
            return
        if embeddings[0][1].is_cuda:
            self._norms_on_the_way = NormsOnTheWay(embeddings)
        else:
            for name, rows in embeddings:
                check_norms(name, rows)
        self._norms_checked = True


class NormsOnTheWay:
    """Ranges of the norms of embeddings that a GPU is computing, on their way to the host, which does not wait."""

    def __init__(self, embeddings: list[tuple[str, Tensor]]) -> None:
        self.sizes = [(name, rows[..., 0].numel()) for name, rows in embeddings]
        ranges = torch.stack([_norm_range(rows) for _, rows in embeddings])
        self.ranges = torch.empty(ranges.shape, dtype=ranges.dtype, pin_memory=True).copy_(ranges, non_blocking=True)
        self.arrival = torch.cuda.Event()
        self.arrival.record()

    def have_arrived(self) -> bool:
        """Return whether the ranges can be read without waiting."""
        return bool(self.arrival.query())

    def check(self) -> None:
        """Check that the embeddings are unit vectors; raises the errors of `check_norms`."""
        for (name, num_rows), norm_range in zip(self.sizes, self.ranges.tolist(), strict=True):
            _check_range(name, num_rows, norm_range)


def check_views(views: ViewPairs) -> list[tuple[str, Tensor]]:
    """Check shapes and types, and return every embedding with the name of its argument.

    Raises:
        ValueError: If a shape or type is invalid, or if there are no negatives.
    """
    queries, keys, query = views.queries, views.keys, views.queries[0]
    for other in queries:
        check_pair(other, keys[0])
    for key in keys:
        check_pair(query, key)
    others = [] if views.negatives is None else [("negatives", views.negatives)]
    others += [("batch_keys", rows) for rows in views.batch_keys or []]
    for name, rows in others:
        _check_rows(name, rows, query, views.batch_offset)
    if views.negatives is None and not any(rows.shape[-2] > 1 for _, rows in others):
        raise ValueError("there are no negatives: pass negatives (K, D), such as a queue, or at least 2 samples")
    embeddings = [("query", query), *[("key", x) for x in keys], *[("query", x) for x in queries[1:]], *others]
    for name, rows in embeddings:
        if not rows.is_floating_point():
            raise ValueError(f"{name} must be of a floating-point type: got {rows.dtype}")
    return embeddings


def check_pair(query: Tensor, key: Tensor) -> None:
    """Check that query and key have the same shape (B, D) and are not empty.

    Raises:
        ValueError: If the shapes differ or are empty; the message gives both.
    """
    if query.ndim != 2 or query.shape != key.shape:
        raise ValueError(f"query and key must both be (B, D): got {tuple(query.shape)} and {tuple(key.shape)}")
    if len(query) == 0:
        raise ValueError(f"query and key are empty, {tuple(query.shape)}: skip the batch")


def check_finite(loss: Tensor, embeddings: list[tuple[str, Tensor]]) -> None:
    """Check that the loss is finite, on a CPU only: on a GPU, the check would wait for the device.

    Raises:
        NotFiniteError: If an embedding (..., D) is the cause; names it and counts its invalid rows.
    """
    if loss.is_cuda or bool(loss.isfinite()):
        return
    for name, rows in embeddings:
        finite_fraction, *_ = _norm_range(rows).tolist()
        _check_range(name, rows[..., 0].numel(), [finite_fraction, 1.0, 1.0])  # whatever the norms


def check_norms(name: str, rows: Tensor) -> None:
    """Check that rows (..., D) are finite unit vectors.

    Raises:
        ValueError: If a norm is not 1; the message gives the range of the norms.
    """
    _check_range(name, rows[..., 0].numel(), _norm_range(rows).tolist())


def _check_rows(name: str, rows: Tensor, query: Tensor, batch_offset: int) -> None:
    """Check the shape of negatives (K, D) or batch keys (G, D) or (V, G, D)."""
    dimensions = (2,) if name == "negatives" else (2, 3)
    if rows.ndim not in dimensions or rows.shape[-1] != query.shape[1]:
        raise ValueError(f"{name} must be (N, {query.shape[1]}) like the query: got {tuple(rows.shape)}")
    if name == "negatives" and len(rows) == 0:
        raise ValueError(f"negatives is empty, {tuple(rows.shape)}: pass None, or fill the queue")
    if name == "batch_keys" and not 0 <= batch_offset <= rows.shape[-2] - len(query):
        raise ValueError(
            f"batch_offset={batch_offset}: the {len(query)} samples of the query must lie within the "
            f"{rows.shape[-2]} rows of batch_keys"
        )


def _check_range(name: str, num_rows: int, norm_range: list[float]) -> None:
    """Raise the errors of `check_norms` from the numbers of `_norm_range`."""
    finite_fraction, lowest, highest = norm_range
    if num_invalid := num_rows - round(finite_fraction * num_rows):
        error = NotFiniteError(f"{name} has NaN or infinite values in {num_invalid} of {num_rows} rows")
        if _collected is None:
            raise error
        return _collected.append(error)
    if max(abs(lowest - 1), abs(highest - 1)) > NORM_TOLERANCE:
        raise ValueError(
            f"{name} must hold unit vectors, but its norms range from {lowest:.3g} to {highest:.3g}: "
            "pass normalize=True to the loss, or normalize first (F.normalize)"
        )


def _norm_range(rows: Tensor) -> Tensor:
    """Return the fraction of rows (..., D) with a finite norm, the lowest norm and the highest, float64 (3,)."""
    norms = rows.detach().norm(dim=-1)  # not in float32: converting a large queue would copy it
    finite = (norms < torch.inf).double().mean()  # NaN is not less
    return torch.stack([finite, *(extreme.double() for extreme in norms.aminmax())])
