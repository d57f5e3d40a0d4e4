"""Similarities of a batch of embeddings with what they are compared to, as the losses of this package share them."""

import torch
from torch import Tensor


def similarities(
    anchors: Tensor, key: Tensor, negatives: Tensor | None, batch_keys: Tensor | None, batch_offset: int
) -> Tensor:
    """Return cosines (B, 1 + K + G): with the own key first, then the negatives, then the keys of the batch.

    An anchor's own row of `batch_keys` is its positive again, so it is masked with -inf.

    Args:
        anchors: Unit vectors (B, D).
        key: The positives, unit vectors (B, D).
        negatives: Unit vectors (K, D), or None.
        batch_keys: All keys of the global batch (G, D), rows batch_offset to batch_offset + B being `key`, or None.
        batch_offset: Row of `batch_keys` where `key` begins.

    Raises:
        ValueError: If shapes do not fit, or there is nothing to contrast with.
    """
    if anchors.ndim != 2 or anchors.shape != key.shape:
        raise ValueError(f"query and key must both be (B, D): got {tuple(anchors.shape)} and {tuple(key.shape)}")
    columns = [(anchors * key).sum(dim=1, keepdim=True)]  # (B, 1)
    for name, others in (("negatives", negatives), ("batch_keys", batch_keys)):
        if others is not None and (others.ndim != 2 or others.shape[1] != anchors.shape[1]):
            raise ValueError(f"{name} must be (N, {anchors.shape[1]}) like the query: got {tuple(others.shape)}")
    if negatives is not None:
        columns.append(anchors @ negatives.T)  # (B, K)
    if batch_keys is not None:
        own = torch.arange(len(anchors), device=anchors.device)
        in_batch = anchors @ batch_keys.T  # (B, G)
        in_batch = in_batch.index_put((own, own + batch_offset), in_batch.new_tensor(-torch.inf))
        columns.append(in_batch)
    if sum(column.shape[1] for column in columns) - (batch_keys is not None) < 2:
        raise ValueError("nothing to contrast with: give negatives (a queue) or the keys of a batch larger than 1")
    return torch.cat(columns, dim=1)


def detached(x: Tensor | None) -> Tensor | None:
    """Return `x` without its graph: only queries learn."""
    return None if x is None else x.detach()
