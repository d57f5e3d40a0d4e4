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


def shuffled(
    num_records: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1, batch_size: int = 1
) -> Iterator[int]:
    """Iterate over the records that one process takes in a random order of all records.

    Of every `world_size * batch_size` records, process r takes the r-th `batch_size`, so that the batches of all
    processes, one after the other, are the batch of a single process. The order depends on the seed, the epoch and the
    number of records only.

    >>> order = list(shuffled(6, seed=0, epoch=0))
    >>> list(shuffled(6, seed=0, epoch=0, rank=1, world_size=2, batch_size=2)) == order[2:4]
    True
    """
    if num_records <= _MAX_SHUFFLED:
        generator = generator_for(seed, epoch, 0, 0, "order")
        order = torch.randperm(num_records, generator=generator, dtype=torch.int32).numpy()
        for positions in _positions(num_records, rank, world_size, batch_size):
            yield from order[positions].tolist()
        return
    keys = [seed_for(seed, epoch, number, 0, "order") for number in range(_NUM_ROUNDS)]
    for positions in _positions(num_records, rank, world_size, batch_size):
        yield from permuted(positions, num_records, keys).tolist()


def _positions(num_records: int, rank: int, world_size: int, batch_size: int) -> Iterator[Numbers]:
    """Yield the positions that a process takes in an order of all records, some batches at a time."""
    num_batches = max(1, _BLOCK // batch_size)
    stride = world_size * batch_size
    within = np.arange(batch_size, dtype=np.uint64)
    for start in range(rank * batch_size, num_records, num_batches * stride):
        firsts = np.arange(start, start + num_batches * stride, stride, dtype=np.uint64)
        positions = (firsts[:, None] + within).reshape(-1)
        yield positions[positions < num_records]


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
