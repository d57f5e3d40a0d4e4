"""Seeds that depend only on the purpose of a draw, never on the process or the order of work."""

import hashlib
import os
import random
import struct

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch, as Lightning's function of the same name does."""
    os.environ |= {"PL_GLOBAL_SEED": str(seed), "PL_SEED_WORKERS": "0"}  # read by the processes that Lightning starts
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_for(seed: int, epoch: int, record: int, view: int, purpose: str) -> int:
    """Return the seed of one draw, a non-negative integer of 63 bits.

    The same values give the same seed on every machine and in every process.

    Args:
        seed: Seed of the run.
        epoch: Epoch of the sample.
        record: Index of the record in its manifest.
        view: Index of the view.
        purpose: Stage that uses the seed, such as "clip", "crop" or "pixels"; stages are independent of each other.
    """
    packed = struct.pack("<4q", seed, epoch, record, view) + purpose.encode()
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


def seeds_for(seed: int, epochs: ArrayLike, records: ArrayLike, view: int, purpose: str) -> NDArray[np.uint64]:
    """Return `seed_for` of each epoch with its record, (N,), faster than one by one.

    Args:
        seed, view, purpose: As in `seed_for`.
        epochs: One epoch per sample (N,), or one for all.
        records: Index of the record of each sample (N,).
    """
    records = np.asarray(records, dtype=np.int64)
    packed = np.empty((len(records), 4), dtype="<i8")
    packed[:, 0], packed[:, 1], packed[:, 2], packed[:, 3] = seed, epochs, records, view
    data, suffix, size = packed.tobytes(), purpose.encode(), packed.strides[0]
    digests = [
        hashlib.blake2b(data[start : start + size] + suffix, digest_size=8).digest()
        for start in range(0, len(data), size)
    ]
    seeds: NDArray[np.uint64] = np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64) >> np.uint64(1)
    return seeds


def generator_for(seed: int, epoch: int, record: int, view: int, purpose: str) -> torch.Generator:
    """Return a CPU generator seeded by `seed_for`."""
    return torch.Generator().manual_seed(seed_for(seed, epoch, record, view, purpose))
