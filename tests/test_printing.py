"""Tests of printing: text from outside is shown as it is, in any terminal, pipe and locale."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from eztorch_sce import cli, progress
from eztorch_sce.chance import Chance
from eztorch_sce.curation import command
from eztorch_sce.curation.settings import DoctorConfig
from eztorch_sce.errors import ConfigError, MediaError, TrainingError
from eztorch_sce.printing import PlainConsole, print_line, visible
from eztorch_sce.report.tables import print_report
from eztorch_sce.types import Report

NAMES = {
    "videos [torchcodec]": "videos [torchcodec]",
    "[/red] [bold]x": "[/red] [bold]x",
    ":smile: :warning:": ":smile: :warning:",
    "Übung 日本 👍": "Übung 日本 👍",
    "two\nlines\r\tand a tab": "two\\nlines\\r\\tand a tab",
    "\x1b[31mred\x07\x9b": "\\x1b[31mred\\x07\\x9b",
    "abc\u202egpj.exe": "abc\\u202egpj.exe",
    "line\u2028separator": "line\\u2028separator",
    os.fsdecode(b"caf\xe9.mp4"): "caf\\xe9.mp4",
    "{task.total} {0} %s $x$": "{task.total} {0} %s $x$",
}


@pytest.mark.parametrize(("name", "shown"), NAMES.items())
def test_names_are_shown_verbatim_in_lines_tables_and_titles(name: str, shown: str) -> None:
    for terminal in (False, True):
        console = PlainConsole(file=io.StringIO(), width=120, force_terminal=terminal, no_color=True)
        table = Table(f"{name}1", title=f"{name}2")
        table.add_row(f"{name}3")
        console.print(table)
        console.print(f"{name}4", soft_wrap=True)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert [f"{shown}{number}" in text for number in (1, 2, 3, 4)] == [True] * 4
        assert text.splitlines()[-1] == f"{shown}4"


@pytest.mark.parametrize(("name", "shown"), NAMES.items())
@pytest.mark.parametrize("terminal", [False, True])
def test_names_are_shown_verbatim_in_progress(
    name: str, shown: str, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    console = PlainConsole(file=stream, force_terminal=terminal, width=200, no_color=True)
    monkeypatch.setattr(progress, "console", console)
    monkeypatch.setattr(progress, "_SHORT_S", 0.0)
    with progress.counting(1, f"{name}1") as advance:
        advance(f"{name}2")
    assert f"{shown}1" in stream.getvalue()
    assert f"{shown}2" in stream.getvalue()


@pytest.mark.parametrize(("name", "shown"), NAMES.items())
def test_names_are_shown_verbatim_in_errors_and_reports(
    name: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = {
        "- data.root=X does not exist": ConfigError(["data.root=X does not exist".replace("X", name)]),
        "cannot read X: truncated": MediaError(name, "truncated"),
        "stopped: X": TrainingError(name),
    }
    for expected, error in errors.items():

        def fail(command: str, rest: list[str], error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(cli, "_run", fail)
        with pytest.raises(SystemExit):
            cli.main(["knn"])
        assert capsys.readouterr().err.splitlines()[-1].endswith(expected.replace("X", shown))
    print_report(Report(name, {name: 0.5}, {}, Path(name)))
    print_line(name)
    out = capsys.readouterr().out
    assert out.splitlines()[-2:] == [f"written to {shown}", shown]
    assert out.count(shown) == 4


def test_the_results_of_an_evaluation_fit_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = ["untrained_knn_top1_centered", "linear_selected_validation_top1", "linear_train_top1", "R@50_uncentered"]
    chance = {name: Chance(0.125, 100 + number, largest_class=0.501) for number, name in enumerate(names)}
    card = {"seen": None, "test_records": 40, "reason": "trained on more than 2000000 records, which are not kept"}
    intervals = {name: [0.961, 0.999] for name in names}
    report = Report(
        "linear", dict.fromkeys(names, 0.98765), {"seen_in_pretraining": card}, Path("runs"), chance, intervals
    )
    print_report(report)
    printed = capsys.readouterr().out
    assert printed.count("0.9877 [0.961, 0.999]") == 4
    assert max(map(len, printed.splitlines())) <= 80


def test_the_paths_of_the_doctor_keep_their_brackets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "set [1] :smile:"
    folder.mkdir()
    (folder / "cut [bold].jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "notes [x].txt").touch()
    command.run_doctor(str(folder), DoctorConfig(workers=1))
    out = capsys.readouterr().out
    assert "unusable: cut [bold].jpg: " in out
    assert "notes [x].txt" in out
    assert f"written to {folder}" in out


PROGRAM = """
import os, sys
from eztorch_sce.cli import main
from eztorch_sce.printing import print_line
main(["recipes"])
print_line(os.fsdecode(b"\\xe9") + "\\u65e5")
main(["pretrain", "data.root=" + os.fsdecode(b"/nowhere/\\xe9")])
"""


@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_any_name_can_be_printed_where_stdout_is_ascii(variables: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | variables, capture_output=True, check=False, text=True
    )
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == "\\xe9\\u65e5"
    assert "data.root=/nowhere/\\xe9 does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_visible_text_is_unchanged() -> None:
    assert visible("") == ""
    assert visible("a\\n 'b' \\xe9") == "a\\n 'b' \\xe9"
