"""Tests of paired comparisons: facts about intervals that hold whatever the implementation."""

import numpy as np
import numpy.typing as npt

from eztorch_sce.studies.paired import Comparison, Difference, compare, num_needed

Array = npt.NDArray[np.float64]


def difference(first: Array, second: Array, groups: npt.NDArray[np.int64] | None = None) -> Difference:
    [comparison] = compare({"a": {"knn_top1": first}, "b": {"knn_top1": second}}, [("a", "b")], groups)
    return comparison.differences[0]


def test_pairing_finds_a_difference_that_two_separate_intervals_would_hide() -> None:
    second = np.tile([0.0, 1.0], 50)
    first = second.copy()
    first[:16:2] = 1  # right wherever the other is, and on 8 records more
    found = difference(first, second)
    assert found.mean == 0.08
    assert found.low > 0  # each accuracy alone is only known to about 0.1


def test_the_interval_of_one_comparison_is_that_of_the_normal_distribution() -> None:
    values = np.repeat([1.0, 0.0], [300, 700])
    found = difference(values, np.zeros(1000))
    half_width = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    np.testing.assert_allclose([found.low, found.high], [0.3 - half_width, 0.3 + half_width], atol=0.004)


def test_records_of_one_group_count_once() -> None:
    of_groups = np.random.default_rng(0).integers(0, 2, 40).astype(float)
    groups = np.repeat(np.arange(40), 25)
    alone = difference(of_groups, np.zeros(40))
    together = difference(np.repeat(of_groups, 25), np.zeros(1000), groups)
    np.testing.assert_allclose([together.low, together.high], [alone.low, alone.high], atol=0.02)


def test_the_more_is_compared_the_wider_are_the_intervals() -> None:
    random = np.random.default_rng(0)
    outcomes = {str(number): {"knn_top1": random.integers(0, 2, 200).astype(float)} for number in range(20)}
    pairs = [(str(number), str(number + 1)) for number in range(0, 20, 2)]
    alone, among_ten = compare(outcomes, pairs[:1])[0], compare(outcomes, pairs)[0]
    assert among_ten.differences[0].high - among_ten.differences[0].low > 1.2 * (
        alone.differences[0].high - alone.differences[0].low
    )


def test_guessing_is_rarely_called_better_than_guessing() -> None:
    random, num_wrong = np.random.default_rng(0), 0
    for _ in range(60):
        outcomes = {name: {"knn_top1": random.integers(0, 2, 60).astype(float)} for name in "abcd"}
        pairs = [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]
        num_wrong += any(each.verdict != "unknown" for each in compare(outcomes, pairs))
    assert num_wrong <= 9  # 5% of 60 are expected; more than 9 have a probability of 1 in 1000


def test_the_number_of_records_that_would_be_needed_finds_the_difference() -> None:
    random, found = np.random.default_rng(0), 0
    needed = num_needed(0.1, error=np.sqrt(0.1 / 100), critical=1.96, num_records=100)
    assert needed is not None
    for _ in range(100):  # one network is right on a tenth of the records more
        found += difference((random.random(needed) < 0.1).astype(float), np.zeros(needed)).is_sure
    assert found >= 80


def test_the_verdict_counts_neither_tiny_nor_contradictory_differences() -> None:
    tiny, up = Difference("mAP", 0.01, 0.005, 0.015), Difference("mAP", 0.2, 0.1, 0.3)
    down, perhaps_down = Difference("knn_top1", -0.2, -0.3, -0.1), Difference("knn_top1", -0.3, -0.7, 0.1)
    families = ((tiny,), (up, tiny), (up, down), (up, perhaps_down))
    verdicts = [Comparison("a", "b", differences).verdict for differences in families]
    assert verdicts == ["unknown", "better", "mixed", "unknown"]
