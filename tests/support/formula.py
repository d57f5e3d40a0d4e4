"""Weights from names, by the formula in tests/vectors/backbones.json."""

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def hash_sym(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return numbers in [-1, 1) from a name."""
    mask = np.uint64(0xFFFFFFFF)
    x = np.arange(int(np.prod(shape)), dtype=np.uint64) * np.uint64(2654435761) + np.uint64(zlib.crc32(name.encode()))
    x &= mask
    x ^= x >> np.uint64(16)
    x = x * np.uint64(0x85EBCA6B) & mask
    x ^= x >> np.uint64(13)
    x = x * np.uint64(0xC2B2AE35) & mask
    x ^= x >> np.uint64(16)
    numbers: Tensor = torch.from_numpy(2 * (x / 2.0**32) - 1)
    return numbers.reshape(shape)


def filled(key: str, shape: tuple[int, ...]) -> Tensor:
    """Return a parameter or buffer from its public key, in float64."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    s: Tensor = hash_sym(key, shape)
    if key.endswith("running_mean"):
        return 0.1 * s
    if key.endswith("running_var"):
        return 1 + 0.5 * s
    if len(shape) >= 2:
        return s * math.sqrt(6 * shape[0] / s.numel())
    return 1 + 0.2 * s if key.endswith("weight") else 0.05 * s


def filled_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return a state dict in the types that networks have, from the shapes of its keys."""
    state = {key: filled(key, shape) for key, shape in shapes.items()}
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
