"""Seeds that depend only on the purpose of a draw, never on the process or the order of work."""

import hashlib
import os
import random
import struct

import numpy as np
import torch


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


def generator_for(seed: int, epoch: int, record: int, view: int, purpose: str) -> torch.Generator:
    """Return a CPU generator seeded by `seed_for`."""
    return torch.Generator().manual_seed(seed_for(seed, epoch, record, view, purpose))
