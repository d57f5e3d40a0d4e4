"""Tests of the order of the records in an epoch."""

from itertools import islice

import numpy as np
import pytest

from eztorch_sce.data import epoch_order
from eztorch_sce.data.epoch_order import permuted, shuffled


@pytest.mark.parametrize("size", [2, 3, 5, 64, 65, 1000, 4097])
def test_a_keyed_permutation_contains_every_number_once(size: int) -> None:
    values = permuted(np.arange(size, dtype=np.uint64), size, keys=[3, 1, 4, 1, 5, 9, 2, 6])
    assert sorted(values.tolist()) == list(range(size))


def test_neighbors_are_as_far_apart_in_a_keyed_permutation_as_in_a_random_one() -> None:
    size = 1 << 16
    values = permuted(np.arange(size, dtype=np.uint64), size, keys=list(range(8))).astype(np.int64)
    distances = np.abs(np.diff(values)) / size
    assert distances.mean() == pytest.approx(1 / 3, abs=0.01)  # of two uniform numbers
    assert np.corrcoef(values[:-1], values[1:])[0, 1] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("limit", [1, 1 << 24])
def test_processes_divide_the_order_of_one(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(epoch_order, "_MAX_SHUFFLED", limit)
    monkeypatch.setattr(epoch_order, "_BLOCK", 7)
    whole = list(shuffled(100, seed=3, epoch=5))
    assert sorted(whole) == list(range(100))
    assert [list(shuffled(100, 3, 5, rank, 3)) for rank in range(3)] == [whole[rank::3] for rank in range(3)]
    pairs = [list(shuffled(100, 3, 5, rank, 3, batch_size=2)) for rank in range(3)]  # 16 batches of each, and 4 records
    assert [pairs[0][32:], pairs[1][32:], pairs[2][32:]] == [whole[96:98], whole[98:], []]
    assert [index for each in range(0, 32, 2) for pair in pairs for index in pair[each : each + 2]] == whole[:96]
    assert whole != list(shuffled(100, seed=3, epoch=6))
    assert whole != list(shuffled(100, seed=4, epoch=5))


def test_the_first_records_of_a_billion_come_at_once() -> None:
    first = list(islice(shuffled(10**9, seed=0, epoch=0), 1000))
    assert len(set(first)) == 1000
    assert 0.45 < np.mean(first) / 1e9 < 0.55
    assert first[:3] == [536370139, 333903111, 517040744]  # the same on every machine
