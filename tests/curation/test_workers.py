"""Tests of worker processes that crash, hang or raise."""

import pytest

from eztorch_sce.curation.workers import for_each

CRASH, HANG = "__import__('os')._exit(7)", "__import__('time').sleep(60)"


def test_a_crash_and_a_hang_cost_only_their_own_results() -> None:
    expressions = ["1 + 1", CRASH, "2 + 2", HANG, "3 + 3", "4 + 4"]
    outcomes = for_each(eval, expressions, num_workers=2, limit_s=5.0)
    assert {item: (result, death) for item, result, death in outcomes} == {
        "1 + 1": (2, ""),
        "2 + 2": (4, ""),
        "3 + 3": (6, ""),
        "4 + 4": (8, ""),
        CRASH: (None, "crashed the decoder (exit code 7)"),
        HANG: (None, "took longer than 5 s"),
    }


def test_exceptions_of_the_function_are_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(for_each(eval, ["1 / 0"], num_workers=1, limit_s=30.0))


def test_no_items_give_no_results() -> None:
    assert list(for_each(eval, [], num_workers=4, limit_s=1.0)) == []
