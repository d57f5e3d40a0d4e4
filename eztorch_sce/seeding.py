"""Random numbers that depend on their purpose alone, never on the process or the order of work."""

import hashlib
import struct

import torch


def seed_for(seed: int, epoch: int, record: int, view: int, purpose: str) -> int:
    """Return the seed of one draw, a non-negative integer of 63 bits.

    The same values give the same seed on every machine and in every process.

    Args:
        seed: Seed of the run.
        epoch: Epoch of the sample.
        record: Index of the record in its manifest.
        view: Index of the view.
        purpose: Stage that draws, such as "clip", "crop" or "pixels"; stages are independent of each other.
    """
    packed = struct.pack("<4q", seed, epoch, record, view) + purpose.encode()
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


def generator_for(seed: int, epoch: int, record: int, view: int, purpose: str) -> torch.Generator:
    """Return a CPU generator seeded by `seed_for`."""
    return torch.Generator().manual_seed(seed_for(seed, epoch, record, view, purpose))
