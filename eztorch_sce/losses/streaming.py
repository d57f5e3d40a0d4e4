"""Softmax over many keys without ever holding it: attention that also returns its log-sum-exp.

The prediction of a loss of this package needs the log-sum-exp of a query's similarities with all keys; its gradient,
and the target of the query, need the mean of the keys weighted by that softmax. Both come from one pass over blocks of
keys, which stay in the processor's cache: memory does not grow with the number of keys.

Source: the running softmax of Milakov and Gimelshein, 2018, arXiv:1805.02867, as in memory-efficient attention
(Rabe and Staats, 2021, arXiv:2112.05682).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_NUMBERS = 2**17  # of a block of similarities: 512 KB in float32, within the second-level cache of most processors
BLOCK_NUMBERS_GPU = 2**24


class Keys(NamedTuple):
    """Rows to compare with.

    Attributes:
        rows: (N, D).
        own: The row that belongs to sample 0, the next to sample 1 and so on, and which their softmax leaves out; None
            where every row counts.
    """

    rows: Tensor
    own: int | None = None

    @property
    def are_none(self) -> bool:
        """Whether nothing is left to compare with."""
        return len(self.rows) - (self.own is not None) < 1


def attend(anchors: Tensor, keys: Keys, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the log-sum-exp (B,) of the similarities over the temperature, and the softmax mean of the keys (B, D).

    Args:
        anchors: (B, D), float32 or float64, which the result has as well.
        keys: What to compare with, of any floating-point type; at least one row that is not a sample's own.
        temperature: Divides the similarities.
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


def log_sum_exp(query: Tensor, keys: Keys, temperature: float) -> Tensor:
    """Return the log-sum-exp (B,) of similarities (B, N) / temperature; query and keys may take gradients, once.

    Keys without gradient may change in place before the backward pass: it does not read them.
    """
    result: Tensor = _LogSumExp.apply(query, keys.rows, keys.own, temperature)
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
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        mean, *others = ctx.saved_tensors
        scaled_gradient = gradient[:, None] / ctx.temperature  # (B, 1)
        for_query = scaled_gradient * mean if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return for_query, None, None, None
        query, rows, total = others
        for_rows, keys = torch.empty_like(rows), Keys(rows, ctx.own)
        scaled = query / ctx.temperature
        for start, block in _blocks(scaled, keys):
            weights = _masked(scaled @ block.T, ctx.own, start).sub_(total[:, None]).exp_()  # (B, n)
            for_rows[start : start + len(block)] = weights.T @ (scaled_gradient * query)
        return for_query, for_rows, None, None


def _blocks(anchors: Tensor, keys: Keys) -> Any:
    """Yield (row of the first key, keys in the type of the anchors)."""
    numbers = BLOCK_NUMBERS_GPU if anchors.is_cuda else BLOCK_NUMBERS
    size = max(64, numbers // max(1, len(anchors)))
    for start in range(0, len(keys.rows), size):
        yield start, keys.rows[start : start + size].to(anchors.dtype)


def _masked(similarities: Tensor, own: int | None, start: int) -> Tensor:
    """Take each sample's own key out of a block that begins at key `start`."""
    if own is not None and -len(similarities) < own - start < similarities.shape[1]:
        similarities.diagonal(own - start).fill_(-torch.inf)
    return similarities
