"""A queue of past keys."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Queue(nn.Module):
    """The last `size` keys, a ring that is saved and resumed with its position.

    It starts full of random unit vectors. Read it before the current keys are enqueued.

    Args:
        size: Number of keys; > 0.
        dim: Dimensions of a key.
    """

    keys: Tensor
    position: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest rows by `keys` (N, D), any N; of more than `size` the last ones stay."""
        size = len(self.keys)
        rows = (self.position + torch.arange(len(keys), device=self.keys.device)) % size
        self.keys[rows[-size:]] = keys[-size:].to(self.keys.dtype)
        self.position.add_(len(keys)).remainder_(size)
