"""Uniform random numbers of many seeds at once, equal to those of one `torch.Generator` per seed."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

_STATE_WORDS, _SHIFT_WORDS = 624, 397  # of the Mersenne Twister MT19937
_FEW = 96  # seeds up to which generators of torch are faster


def uniform_numbers(seeds: Sequence[int] | NDArray[np.uint64], count: int) -> NDArray[np.float64]:
    """Return the first `count` numbers in [0, 1) of a CPU generator with each seed, (N, count).

    They are those of `torch.rand(count, generator=generator, dtype=torch.float64)`, bit for bit.

    >>> generator = torch.Generator().manual_seed(7)
    >>> float(torch.rand(1, generator=generator, dtype=torch.float64)) == float(uniform_numbers([7], 1)[0, 0])
    True
    """
    if len(seeds) > _FEW and 2 * count <= _STATE_WORDS - _SHIFT_WORDS:
        return _to_unit_interval(_mersenne_twister(_low_words(seeds), 2 * count))
    generator = torch.Generator()
    numbers = torch.empty(len(seeds), count, dtype=torch.float64)
    for row, seed in zip(numbers, seeds, strict=True):
        torch.rand(count, generator=generator.manual_seed(int(seed)), out=row)
    return numbers.numpy()


def _low_words(seeds: Sequence[int] | NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Return the lower 32 bits of each seed: torch initializes its Mersenne Twister with no more."""
    if isinstance(seeds, np.ndarray):
        return seeds.astype(np.uint32)
    return np.array([seed & 0xFFFFFFFF for seed in seeds], dtype=np.uint32)


def _mersenne_twister(seeds: NDArray[np.uint32], count: int) -> NDArray[np.uint32]:
    """Return the first outputs of MT19937 for all seeds, (count, N): the words of one seed stand in a column.

    Only the part of the state that these outputs depend on is computed. Source: Matsumoto and Nishimura, 1998, with the
    initialization of 2002.
    """
    state = np.empty((_SHIFT_WORDS + count, len(seeds)), dtype=np.uint32)
    state[0] = seeds
    multiplier, shift = np.array(1812433253, np.uint32), np.array(30, np.uint32)
    numbers = np.arange(len(state), dtype=np.uint32)[:, None]
    previous = state[0]
    for word, number in zip(state[1:], numbers[1:], strict=True):
        np.right_shift(previous, shift, word)
        np.bitwise_xor(word, previous, word)
        np.multiply(word, multiplier, word)
        np.add(word, number, word)
        previous = word
    joined = (state[:count] & np.uint32(0x80000000)) | (state[1 : count + 1] & np.uint32(0x7FFFFFFF))
    output: NDArray[np.uint32] = (
        state[_SHIFT_WORDS:] ^ (joined >> np.uint32(1)) ^ ((joined & np.uint32(1)) * np.uint32(0x9908B0DF))
    )
    output ^= output >> np.uint32(11)
    output ^= (output << np.uint32(7)) & np.uint32(0x9D2C5680)
    output ^= (output << np.uint32(15)) & np.uint32(0xEFC60000)
    output ^= output >> np.uint32(18)
    return output


def _to_unit_interval(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Join words (2 count, N) in pairs to numbers in [0, 1) of 53 bits, (N, count)."""
    pairs = words[0::2].astype(np.uint64) << np.uint64(32) | words[1::2]
    numbers: NDArray[np.float64] = (pairs & np.uint64(2**53 - 1)).astype(np.float64).T * 2.0**-53
    return numbers
