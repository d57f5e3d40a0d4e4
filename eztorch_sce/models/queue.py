"""A queue of past keys."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn


class Queue(nn.Module):
    """Ring buffer of the last `size` keys; checkpoints include its position.

    It starts full of random unit vectors. New keys wait until the backward pass is over, because autograd may still
    need the old ones: `put` them after the forward pass, `update` after the backward pass.

    Args:
        size: Number of keys; > 0.
        dim: Dimension of a key.
    """

    keys: Float[Tensor, "size dim"]
    position: Int64[Tensor, ""]

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))
        self._waiting: Tensor | None = None

    def put(self, keys: Float[Tensor, "N D"]) -> None:
        """Hold any number of new keys until the next `update`."""
        self._waiting = keys.detach()

    def update(self) -> None:
        """Enqueue the waiting keys, if any."""
        if self._waiting is not None:
            self.enqueue(self._waiting)
            self._waiting = None

    @torch.no_grad()
    def enqueue(self, keys: Float[Tensor, "N D"]) -> None:
        """Replace the oldest keys immediately; if there are more than `size` new keys, use the last `size`."""
        size = len(self.keys)
        rows = (self.position + torch.arange(len(keys), device=self.keys.device)) % size
        self.keys[rows[-size:]] = keys[-size:].to(self.keys.dtype)
        self.position.add_(len(keys)).remainder_(size)
