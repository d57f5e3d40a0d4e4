"""Tests that numbers of many seeds are those that torch draws from each of them."""

import numpy as np
import pytest
import torch

from eztorch_sce.augment.uniform import uniform_numbers
from eztorch_sce.seeding import seed_for, seeds_for


@pytest.mark.parametrize("count", [1, 15, 40])
@pytest.mark.parametrize("num_seeds", [0, 1, 500])
def test_numbers_of_many_seeds_equal_those_of_one_generator_each(num_seeds: int, count: int) -> None:
    seeds = np.random.default_rng(0).integers(2**63, size=num_seeds, dtype=np.uint64)
    seeds[:3] = [0, 2**32 - 1, 2**63 - 1][:num_seeds]
    numbers = uniform_numbers(seeds, count)
    assert numbers.shape == (num_seeds, count)
    for row, seed in zip(numbers, seeds.tolist(), strict=True):
        generator = torch.Generator().manual_seed(seed)
        assert row.tolist() == torch.rand(count, generator=generator, dtype=torch.float64).tolist()
    assert (uniform_numbers(seeds.tolist(), count) == numbers).all()


def test_seeds_of_a_batch_equal_those_of_its_samples() -> None:
    epochs, records = [0, 3, 3], [7, 0, 2**40]
    expected = [seed_for(5, epoch, record, 1, "crop") for epoch, record in zip(epochs, records, strict=True)]
    assert seeds_for(5, epochs, records, 1, "crop").tolist() == expected
    assert seeds_for(5, 3, records, 1, "crop").tolist() == [seed_for(5, 3, record, 1, "crop") for record in records]
