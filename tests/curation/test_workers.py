"""Tests of worker processes that crash, hang or raise."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

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


def test_an_item_whose_process_is_killed_is_tried_once_more_in_a_new_one(
    tmp_path: Path,
) -> None:
    tried, kill = str(tmp_path / "tried"), "__import__('os').kill(__import__('os').getpid(), 9)"
    once = f"'done' if __import__('os').path.exists({tried!r}) else (open({tried!r}, 'x'), {kill})"
    outcomes = {item: (result, death) for item, result, death in for_each(eval, [once, kill], 1, limit_s=30.0)}
    assert outcomes[once] == ("done", "")
    assert outcomes[kill] == (None, "its worker process was killed twice (SIGKILL), as for lack of memory")


def test_an_item_that_takes_too_long_is_not_tried_again(tmp_path: Path) -> None:
    hang = f"(__import__('os').system('printf x >> {tmp_path / 'tried'}'), {HANG})"
    assert [death for _, _, death in for_each(eval, [hang], 1, limit_s=5.0)] == ["took longer than 5 s"]
    assert (tmp_path / "tried").read_text() == "x"


def test_an_idle_worker_that_was_killed_is_replaced(tmp_path: Path) -> None:
    note, pids = tmp_path / "pid", []

    def items() -> Iterator[str]:
        for _ in range(3):
            if note.exists():  # its process is idle
                pids.append(int(note.read_text()))
                os.kill(pids[-1], signal.SIGKILL)
                time.sleep(0.2)
            yield f"__import__('pathlib').Path({str(note)!r}).write_text(str(__import__('os').getpid()))"

    assert [death for _, _, death in for_each(eval, items(), 1, limit_s=30.0)] == [""] * 3
    assert len({*pids, int(note.read_text())}) == 3


def test_exceptions_of_the_function_are_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(for_each(eval, ["1 / 0"], num_workers=1, limit_s=30.0))


def test_no_items_give_no_results() -> None:
    assert list(for_each(eval, [], num_workers=4, limit_s=1.0)) == []
