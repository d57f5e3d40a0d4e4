"""Bootstrap confidence intervals of metrics that are means over the test records."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
from jaxtyping import Int64
from torch import Tensor

from eztorch_sce.progress import track

NUM_RESAMPLES = 1000
_CONFIDENCE = 0.95
_AT_ONCE = 2**21  # counts of one block of resamples; limits the memory
_SEED = 0

Interval = tuple[float, float]


def bootstrap_intervals(by_record: Mapping[str, Tensor], groups: Int64[Tensor, " N"] | None) -> dict[str, Interval]:
    """Return the 95% percentile interval of the mean of each metric over the test records.

    The test records are drawn anew with replacement 1000 times, with a fixed seed. The train split and the network stay
    as they are, so the interval says how much the choice of the test records matters, and not how much the seed of a
    training does.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Args:
        by_record: Values of each metric, (N,), by its name.
        groups: Group of each record, (N,), which are drawn as a whole; None draws single records.
    """
    if not by_record:
        return {}
    values = np.stack([each.double().numpy() for each in by_record.values()], axis=1)  # (N, metrics)
    means = np.concatenate(
        [counts @ values / counts.sum(axis=1, keepdims=True) for counts in resamples(len(values), groups)]
    )  # (resamples, metrics)
    return {name: percentiles(means[:, number]) for number, name in enumerate(by_record)}


def resamples(num_records: int, groups: Int64[Tensor, " N"] | None) -> Iterator[npt.NDArray[np.float64]]:
    """Yield how often each record is drawn in each resample, in blocks (resamples, N), 1000 resamples in all.

    Args:
        num_records: Number of records (N).
        groups: Group of each record, (N,), which are drawn as a whole; None draws single records.
    """
    generator = np.random.default_rng(_SEED)
    group_of = None if groups is None else np.unique(groups.numpy(), return_inverse=True)[1]
    num_drawn = num_records if group_of is None else int(group_of.max()) + 1
    block = max(1, min(NUM_RESAMPLES, _AT_ONCE // num_records))
    starts = range(0, NUM_RESAMPLES, block)
    for start in track(starts, len(starts), "confidence intervals"):
        counts = np.empty((min(block, NUM_RESAMPLES - start), num_drawn))
        for row in counts:
            row[:] = np.bincount(generator.integers(num_drawn, size=num_drawn), minlength=num_drawn)
        yield counts if group_of is None else counts[:, group_of]


def percentiles(statistics: npt.NDArray[np.float64]) -> Interval:
    """Return the interval that holds the middle 95% of the values of a statistic in all resamples."""
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(statistics, [tail, 1 - tail])
    return float(low), float(high)
