"""One bad file costs its own row."""

import pytest

from eztorch_sce.curation.workers import for_each

CRASH, HANG = "__import__('os')._exit(7)", "__import__('time').sleep(60)"


def test_a_crash_and_a_hang_are_told_and_the_rest_is_done() -> None:
    words = ["1 + 1", CRASH, "2 + 2", HANG, "3 + 3", "4 + 4"]
    found = {item: (result, why) for item, result, why in for_each(eval, words, num_workers=2, limit_s=5.0)}
    assert found == {
        "1 + 1": (2, ""),
        "2 + 2": (4, ""),
        "3 + 3": (6, ""),
        "4 + 4": (8, ""),
        CRASH: (None, "crashed the decoder (exit code 7)"),
        HANG: (None, "took longer than 5 s"),
    }


def test_our_own_mistakes_are_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(for_each(eval, ["1 / 0"], num_workers=1, limit_s=30.0))


def test_nothing_to_do_is_nothing() -> None:
    assert list(for_each(eval, [], num_workers=4, limit_s=1.0)) == []
