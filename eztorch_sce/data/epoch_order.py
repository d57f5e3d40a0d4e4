"""The order of the records in an epoch: a function of (seed, epoch), for any number of records."""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from eztorch_sce.seeding import generator_for, seed_for

Numbers: TypeAlias = npt.NDArray[np.uint64]

_MAX_SHUFFLED = 1 << 24  # records whose order is held in memory, 4 bytes each
_BLOCK = 1 << 16  # positions computed at a time
_NUM_ROUNDS = 8


def shuffled(num_records: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1) -> Iterator[int]:
    """Iterate over the records that one process takes in a random order of all records.

    Process r of W takes every W-th record from the r-th on. The order depends on the seed, the epoch and the number of
    records only.

    >>> order = list(shuffled(5, seed=0, epoch=0))
    >>> sorted(order), list(shuffled(5, seed=0, epoch=0, rank=1, world_size=2)) == order[1::2]
    ([0, 1, 2, 3, 4], True)
    """
    if num_records <= _MAX_SHUFFLED:
        generator = generator_for(seed, epoch, 0, 0, "order")
        order = torch.randperm(num_records, generator=generator, dtype=torch.int32).numpy()[rank::world_size]
        for start in range(0, len(order), _BLOCK):
            yield from order[start : start + _BLOCK].tolist()
        return
    keys = [seed_for(seed, epoch, number, 0, "order") for number in range(_NUM_ROUNDS)]
    for start in range(rank, num_records, world_size * _BLOCK):
        positions = np.arange(start, min(start + world_size * _BLOCK, num_records), world_size, dtype=np.uint64)
        yield from permuted(positions, num_records, keys).tolist()


def permuted(positions: Numbers, size: int, keys: list[int]) -> Numbers:
    """Return the values of a keyed permutation of range(size) at some positions, without computing the others.

    A Feistel network permutes the numbers of as many bits as `size` needs; values beyond `size` are permuted again
    until they fall below it (cycle walking: Black and Rogaway, CT-RSA 2002).

    Args:
        positions: Distinct numbers below `size`.
        size: Number of values, at least 2.
        keys: One key per round.
    """
    num_bits = (size - 1).bit_length()
    values = _feistel(positions, num_bits, keys)
    while (outside := values >= size).any():
        values[outside] = _feistel(values[outside], num_bits, keys)
    return values


def _feistel(values: Numbers, num_bits: int, keys: list[int]) -> Numbers:
    low_bits = np.uint64(num_bits // 2)
    low_mask = np.uint64((1 << (num_bits // 2)) - 1)
    high_mask = np.uint64((1 << (num_bits - num_bits // 2)) - 1)
    low, high = values & low_mask, values >> low_bits
    for number, key in enumerate(keys):
        if number % 2:
            low = low ^ (_mixed(high, key) & low_mask)
        else:
            high = high ^ (_mixed(low, key) & high_mask)
    result: Numbers = (high << low_bits) | low
    return result


def _mixed(values: Numbers, key: int) -> Numbers:
    """Return 64 pseudorandom bits per value: the finalizer of SplitMix64 (Steele et al., OOPSLA 2014) of the sum."""
    values = values + np.uint64(key)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    values = values ^ (values >> np.uint64(31))
    return values
