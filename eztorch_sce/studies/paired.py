"""Paired comparisons of networks on the same test records, with intervals that hold for all comparisons at once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from eztorch_sce.evaluation.intervals import resamples

CONFIDENCE = 0.95
"""Probability that all intervals of a family hold."""

MIN_RECORDS = 20
"""Test records, or groups of them, below which a bootstrap interval is too narrow to be trusted."""
RELEVANT = 0.02
"""Difference of a rate below which a network is not called better, however sure it is."""
_POWER_Z = 0.84  # quantile of the normal distribution for a chance of 80% to find a difference
_MOST_NEEDED = 1_000_000

Outcomes = Mapping[str, npt.NDArray[np.float64]]
"""One value per test record, (N,), by the name of the metric that is their mean."""


@dataclass(frozen=True)
class Difference:
    """Difference of a metric between two networks on the same test records.

    Attributes:
        metric: Name of the metric.
        mean: First minus second.
        low, high: Ends of its interval. All intervals of a family hold together with 95% confidence.
        needed: Test records with which a difference of this size would be found in four of five tries; None if it is
            found already, or if there is no difference to find.
    """

    metric: str
    mean: float
    low: float
    high: float
    needed: int | None = None

    @property
    def is_sure(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """Comparison of two networks by several metrics.

    Attributes:
        first, second: Names of the networks.
        differences: One per metric.
    """

    first: str
    second: str
    differences: tuple[Difference, ...]

    @property
    def verdict(self) -> str:
        """The first network is "better", "worse", "mixed" or "unknown" beside the second.

        It is better if some metric surely is, by more than `RELEVANT`, none is surely lower, and the mean of all
        metrics is higher.
        """
        mean = sum(each.mean for each in self.differences)
        better = any(each.low > 0 and each.mean >= RELEVANT for each in self.differences)
        worse = any(each.high < 0 and each.mean <= -RELEVANT for each in self.differences)
        if better and worse:
            return "mixed"
        if better and mean > 0:
            return "better"
        return "worse" if worse and mean < 0 else "unknown"


def compare(
    outcomes: Mapping[str, Outcomes],
    pairs: Sequence[tuple[str, str]],
    groups: npt.NDArray[np.int64] | None = None,
) -> list[Comparison]:
    """Compare pairs of networks on every metric that both networks have.

    Test records are drawn with replacement, the same ones for both networks of a pair and in whole groups. The
    intervals are simultaneous: their common half-width, in standard errors, is the 95% quantile of the largest
    deviation among all differences (the max-t bootstrap; Romano and Wolf, Econometrica 2005). So the more is
    compared, the wider they are, and the probability that any of them misses is 5%.

    The intervals cover the choice of test records. They do not cover the randomness of the training.

    Args:
        outcomes: Outcomes of each network, on the same records in the same order.
        pairs: Names of the networks to compare.
        groups: Group of each record, (N,); None if the records are independent.

    >>> right, wrong = np.ones(50), np.zeros(50)
    >>> half = np.arange(50) % 2.0
    >>> [each] = compare({"a": {"top1": right}, "b": {"top1": half}}, [("a", "b")])
    >>> each.verdict, round(each.differences[0].mean, 2), each.differences[0].low > 0.2
    ('better', 0.5, True)
    """
    named = [(pair, metric) for pair in pairs for metric in outcomes[pair[0]] if metric in outcomes[pair[1]]]
    if not named:
        return []
    values = np.stack([outcomes[first][metric] - outcomes[second][metric] for (first, second), metric in named])
    means, errors, critical = _bootstrap(values, groups)
    num_records = values.shape[1]
    found: dict[tuple[str, str], list[Difference]] = {}
    for (pair, metric), mean, error in zip(named, means.tolist(), errors.tolist(), strict=True):
        half = critical * error
        is_sure = abs(mean) > half
        needed = None if is_sure else num_needed(mean, error, critical, num_records)
        found.setdefault(pair, []).append(Difference(metric, mean, mean - half, mean + half, needed))
    return [Comparison(first, second, tuple(found[first, second])) for first, second in found]


def num_needed(mean: float, error: float, critical: float, num_records: int) -> int | None:
    """Return the number of test records with which a difference would be found in four of five tries.

    Args:
        mean: The difference as measured.
        error: Its standard error.
        critical: Half-width of the interval in standard errors.
        num_records: Number of test records it was measured on.

    >>> num_needed(0.1, 0.1, critical=1.96, num_records=100)
    790
    """
    if abs(mean) < 1e-9:
        return None
    needed: float = num_records * ((critical + _POWER_Z) * error / abs(mean)) ** 2
    if needed > _MOST_NEEDED:
        return None
    digits = max(0, math.floor(math.log10(max(needed, 1))) - 1)
    unit: int = 10**digits
    return max(num_records + 1, math.ceil(needed / unit) * unit)


def _bootstrap(
    values: npt.NDArray[np.float64], groups: npt.NDArray[np.int64] | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """Return the means (M,), their standard errors (M,), and the half-width of simultaneous intervals in these."""
    counts = resamples(values.shape[1], None if groups is None else torch.from_numpy(groups))
    draws = np.concatenate([each @ values.T / each.sum(axis=1, keepdims=True) for each in counts])  # (R, M)
    means, num_units = values.mean(axis=1), values.shape[1] if groups is None else len(np.unique(groups))
    errors = draws.std(axis=0)
    varies = errors > 1e-12
    if not varies.any():
        return means, errors, 0.0
    largest = (np.abs(draws - means)[:, varies] / errors[varies]).max(axis=1)
    unbiased = math.sqrt(num_units / max(num_units - 1, 1))  # the bootstrap's variance is that of a sample
    return means, errors * unbiased, float(np.quantile(largest, CONFIDENCE))
