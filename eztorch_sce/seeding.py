"""Random numbers that depend on what is drawn for, never on who draws or when."""

import hashlib
import struct

import torch


def seed_for(seed: int, epoch: int, record: int, view: int, purpose: str) -> int:
    """Return the seed of one draw, a 63-bit integer.

    The same five values give the same seed on every machine, in every process, in any order of work; `purpose`
    ("clip", "crop", "pixels") keeps the draws of the stages independent of each other.
    """
    packed = struct.pack("<4q", seed, epoch, record, view) + purpose.encode()
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


def generator_for(seed: int, epoch: int, record: int, view: int, purpose: str) -> torch.Generator:
    """Return a CPU generator seeded by `seed_for`."""
    return torch.Generator().manual_seed(seed_for(seed, epoch, record, view, purpose))
