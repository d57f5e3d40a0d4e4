"""Tests of the command line: how errors are printed, and how the process exits."""

import sys

import pytest

from eztorch_sce import cli
from eztorch_sce.cli import main
from eztorch_sce.errors import MediaError, TrainingError


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a command."""
    code = 0
    try:
        main(list(words))
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_is_printed_without_an_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "usage: eztorch-sce <command>" in out


def test_a_mistyped_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "pretrian", "data.root=x")
    assert code == 2
    assert err == "eztorch-sce pretrian: invalid configuration:\n- pretrian is not a command; did you mean pretrain?\n"


def test_an_unknown_recipe_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "recipes", "k400_r3d81")
    assert code == 2
    assert "did you mean k400_r3d18?" in err


def test_a_recipe_is_printed_as_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "recipes", "k400_r3d50")
    assert out.startswith("# @package _global_\n# command: pretrain\n")


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (TrainingError("loss is not finite"), 2, "eztorch-sce pretrain: stopped: loss is not finite\n"),
        (MediaError("a.mp4", "truncated"), 2, "eztorch-sce pretrain: cannot read a.mp4: truncated\n"),
        (KeyboardInterrupt(), 130, "eztorch-sce pretrain: interrupted; add run.dir=DIRECTORY run.resume=true to "),
    ],
)
def test_errors_are_printed_as_messages(
    error: BaseException, code: int, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: str, rest: list[str]) -> None:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    exit_code, _, err = run(capsys, "pretrain", "data.root=x")
    assert exit_code == code
    assert printed in err


def test_hydra_prints_the_full_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["eztorch-sce"])
    _, out, _ = run(capsys, "knn", "--cfg", "job", "k=7")
    assert "\nk: 7\n" in out
