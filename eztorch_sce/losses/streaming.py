"""Softmax over many keys, computed block by block: attention that also returns its log-sum-exp.

A contrastive loss needs the log-sum-exp of a query's similarities with all keys; its gradient and its target need the
softmax-weighted mean of the keys. One pass over blocks of keys that fit in the processor's cache computes both, so
memory does not grow with the number of keys.

Source: the running softmax of Milakov and Gimelshein, 2018, arXiv:1805.02867, as in memory-efficient attention
(Rabe and Staats, 2021, arXiv:2112.05682).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from eztorch_sce.precision import exact_float32

BLOCK_NUMBERS = 2**17  # similarities in a block: 512 KB in float32, within the second-level cache of most processors
BLOCK_NUMBERS_GPU = 2**24


class Keys(NamedTuple):
    """Keys to compare with.

    Attributes:
        rows: (N, D), of any floating-point type.
        own: Index of sample 0's own row; sample 1 owns the next row, and so on. A sample's own row is left out of its
            softmax. None to use every row.
    """

    rows: Float[Tensor, "N D"]
    own: int | None = None


def attend(
    anchors: Float[Tensor, "B D"], keys: Keys, temperature: float
) -> tuple[Float[Tensor, " B"], Float[Tensor, "B D"]]:
    """Return the log-sum-exp of the similarities over the temperature, and the softmax-weighted mean of the keys.

    Equal to `similarities.logsumexp(dim=1)` and `similarities.softmax(dim=1) @ keys` for
    `similarities = anchors @ keys.T / temperature`.

    Args:
        anchors: Queries or keys, float32 or float64; the results have the same type.
        keys: The keys, with at least one row per sample that is not its own.
        temperature: Divisor of the similarities.
    """
    scaled = anchors / temperature
    highest = scaled.new_full((len(scaled), 1), -torch.inf)
    total, mean = torch.zeros_like(highest), torch.zeros_like(scaled)
    for start, rows in _blocks(scaled, keys):
        similarities = _masked(scaled @ rows.T, keys.own, start)  # (B, n)
        previous, highest = highest, torch.maximum(highest, similarities.amax(dim=1, keepdim=True))
        weights = similarities.sub_(highest).exp_()
        shrink = (previous - highest).exp_()
        total.mul_(shrink).add_(weights.sum(dim=1, keepdim=True))
        mean.mul_(shrink).addmm_(weights, rows)
    return (highest + total.log()).squeeze(1), mean / total


def log_sum_exp(query: Float[Tensor, "B D"], keys: Keys, temperature: float) -> Float[Tensor, " B"]:
    """Return the log-sum-exp of similarities (B, N) over the temperature, differentiable in query and keys.

    Keys that do not require gradients may be changed in place before the backward pass, which does not read them. A
    double backward raises a RuntimeError.
    """
    result: Tensor = _LogSumExp.apply(query, keys.rows, keys.own, temperature)  # type: ignore[no-untyped-call]
    return result


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, rows: Tensor, own: int | None, temperature: float) -> Tensor:
        total, mean = attend(query, Keys(rows, own), temperature)
        ctx.own, ctx.temperature = own, temperature
        if rows.requires_grad:
            ctx.save_for_backward(mean, query, rows, total)
        else:
            ctx.save_for_backward(mean)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        with torch.no_grad(), exact_float32():
            for_query, for_rows = _LogSumExp.first_derivative(ctx, gradient)
        if torch.is_grad_enabled():  # with create_graph=True
            for_query, for_rows = _without_second_derivative(for_query), _without_second_derivative(for_rows)
        return for_query, for_rows, None, None

    @staticmethod
    def first_derivative(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of the query (B, D) and of the rows (N, D), None where not needed."""
        mean, *others = ctx.saved_tensors
        scaled_gradient = gradient[:, None] / ctx.temperature  # (B, 1)
        for_query = scaled_gradient * mean if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return for_query, None
        query, rows, total = others
        for_rows, keys = torch.empty_like(rows), Keys(rows, ctx.own)
        scaled = query / ctx.temperature
        for start, block in _blocks(scaled, keys):
            weights = _masked(scaled @ block.T, ctx.own, start).sub_(total[:, None]).exp_()  # (B, n)
            for_rows[start : start + len(block)] = weights.T @ (scaled_gradient * query)
        return for_query, for_rows


class _NoSecondDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise RuntimeError(
            "log_sum_exp has no second derivative, since it does not keep the similarities: for a double backward, "
            "write (query @ keys.T / temperature).logsumexp(dim=1)"
        )


def _without_second_derivative(gradient: Tensor | None) -> Tensor | None:
    if gradient is None:
        return None
    result: Tensor = _NoSecondDerivative.apply(gradient.requires_grad_())  # type: ignore[no-untyped-call]
    return result


def _blocks(anchors: Tensor, keys: Keys) -> Iterator[tuple[int, Tensor]]:
    """Yield blocks of keys in the type of the anchors, each with the index of its first row."""
    numbers = BLOCK_NUMBERS_GPU if anchors.is_cuda else BLOCK_NUMBERS
    size = max(64, numbers // max(1, len(anchors)))
    for start in range(0, len(keys.rows), size):
        yield start, keys.rows[start : start + size].to(anchors.dtype)


def _masked(similarities: Tensor, own: int | None, start: int) -> Tensor:
    """Set each sample's similarity with its own key to -inf, in a block that begins at row `start`; in place."""
    if own is not None and -len(similarities) < own - start < similarities.shape[1]:
        similarities.diagonal(own - start).fill_(-torch.inf)
    return similarities
