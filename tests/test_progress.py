"""Tests of progress: bars in a terminal, lines elsewhere."""

import io
import itertools
import threading
import time

import pytest

from eztorch_sce import progress
from eztorch_sce.printing import PlainConsole
from eztorch_sce.waiting import announced


def record_console(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(progress, "console", PlainConsole(file=stream, force_terminal=terminal, width=80))
    return stream


def test_printed_lines_stay_above_nested_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = record_console(monkeypatch, terminal=True)
    for number in progress.track(range(2), 2, "outer"):
        assert list(progress.track("abc", 3, "inner")) == ["a", "b", "c"]
        progress.console.print(f"done {number}", highlight=False)
    text = stream.getvalue()
    assert all(words in text for words in ("outer", "inner", "done 0", "done 1"))
    assert "2/2" in text[text.index("done 1") :]
    assert text.endswith("\x1b[2K")  # the bars are erased


def test_progress_prints_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = record_console(monkeypatch, terminal=False)
    list(progress.track(range(3), 3, "short"))
    assert stream.getvalue() == ""
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    monkeypatch.setattr(progress, "_SHORT_S", 0.0)
    with progress.counting(2, "files") as advance:
        advance("1 files/s")
        advance("2 files/s")
    lines = stream.getvalue().splitlines()
    assert lines == ["files: 1 of 2, 1 files/s", "files: 2 of 2, 2 files/s", "files: 2 in 1 s, 2 files/s"]


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_advances_by_several_items_and_shows_their_rate(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    stream, now = record_console(monkeypatch, terminal), [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 5.0)
    with progress.counting(10_000, "data doctor", done=4000, unit="records") as advance:
        for now[0], count in ((10.0, 2000), (20.0, 2000), (30.0, 0), (40.0, 1000)):
            advance("3 failed", count)
    text = stream.getvalue()
    if terminal:
        assert "9000/10000" in text
        assert "100 records/s, 3 failed" in text
    else:
        assert text.splitlines() == [
            "data doctor: 6000 of 10000, 200 records/s, about 20 s left, 3 failed",
            "data doctor: about 30 s for 10000",
            "data doctor: 8000 of 10000, 200 records/s, about 10 s left, 3 failed",
            "data doctor: 8000 of 10000, 100 records/s, about 20 s left, 3 failed",
            "data doctor: 9000 of 10000, 100 records/s, about 10 s left, 3 failed",
            "data doctor: 5000 in 40 s, 3 failed",
        ]


@pytest.mark.parametrize("terminal", [False, True])
def test_long_work_is_announced_with_its_predicted_time(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    stream = record_console(monkeypatch, terminal)
    now = iter(range(0, 10_000, 2))  # every look at the clock finds it two seconds later
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    list(progress.track(range(20), 20, "short work [1/2]"))
    text = stream.getvalue()
    assert text.count("short work [1/2]: about ") == 1
    assert "for 20" in text
    if not terminal:
        assert " left" in text


def test_short_work_is_not_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = record_console(monkeypatch, terminal=False)
    now = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(now) / 100)
    list(progress.track(range(20), 20, "work"))
    assert stream.getvalue() == ""


def test_short_work_with_a_slow_start_is_not_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = record_console(monkeypatch, terminal=False)
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    with progress.counting(5, "doctor") as advance:
        for now[0] in range(5, 10):  # the first step takes five seconds
            advance()
    assert "about" not in stream.getvalue()


def test_the_predicted_time_leaves_out_the_slow_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = progress.Clock(total=1000, done=100)
    for done, now[0] in ((101, 60.0), (102, 61.0), (103, 62.0)):
        clock.update(done)
    assert clock.left_s() == 897
    assert clock.left() == "about 15 min left"


def test_an_error_during_the_work_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    record_console(monkeypatch, terminal=True)
    with pytest.raises(ZeroDivisionError), progress.counting(1, "work"):
        _ = 1 / 0


def join_timers() -> None:
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()


def test_a_silent_spell_is_announced_if_it_is_long(capsys: pytest.CaptureFixture[str]) -> None:
    with announced("loading PyTorch", after_s=0.0):
        join_timers()
    assert capsys.readouterr().err == "loading PyTorch ...\n"
    with announced("loading PyTorch", after_s=3600.0):
        pass
    join_timers()  # without waiting for the hour
    assert capsys.readouterr().err == ""
