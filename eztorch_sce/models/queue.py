"""A queue of past keys."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn


class Queue(nn.Module):
    """The last `size` keys; it starts full of random ones. Checkpoints include its position.

    Read it before the loss, and enqueue after it: `loss = criterion(query, key, queue.keys); queue.enqueue(key)`.

    Args:
        size: Number of keys; > 0.
        dim: Dimension of a key.
        normalize: Whether the random keys are unit vectors; otherwise they have a normal distribution.
    """

    keys: Float[Tensor, "size dim"]
    position: Int64[Tensor, ""]

    def __init__(self, size: int, dim: int, normalize: bool = True) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"Queue({size}, {dim}): size and dim must be at least 1")
        keys = torch.randn(size, dim)
        self.register_buffer("keys", F.normalize(keys, dim=1) if normalize else keys)
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest keys by new ones (N, D) of the whole batch; if N is larger than the queue, by the last.

        `keys` becomes another tensor: autograd may still need the one that the loss has read. With several processes,
        pass the keys of all of them, so that their queues are the same.

        Raises:
            ValueError: If the keys have another dimension than the queue.
        """
        size, dim = self.keys.shape
        if keys.ndim != 2 or keys.shape[1] != dim:
            raise ValueError(f"keys must be (N, {dim}), like the queue: got {tuple(keys.shape)}")
        rows = (self.position + torch.arange(len(keys), device=self.keys.device)) % size
        latest = self.keys.clone()
        latest[rows[-size:]] = keys[-size:].to(latest)
        self.keys = latest
        self.position.add_(len(keys)).remainder_(size)
