"""Shards: the records of a job by a hash of their keys, so that a record stays in its shard when others are added."""

import hashlib


def num_shards(num_records: int, per_shard: int) -> int:
    """Return the number of shards of a new job, at least 1.

    >>> num_shards(4001, per_shard=2000)
    3
    """
    return max(1, -(-num_records // per_shard))


def shard_of(key: bytes, count: int) -> int:
    """Return the shard of a record, from 0.

    Args:
        key: Key of the record, such as its path.
        count: Number of shards.

    >>> shard_of(b"a.mp4", 16), shard_of(b"a.mp4", 16), shard_of(b"b.mp4", 16)
    (4, 4, 2)
    """
    return hash_of(key) % count


def hash_of(key: bytes) -> int:
    """Return the hash that decides the shard of a record, in [0, 2^64)."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
