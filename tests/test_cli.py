"""Tests of the command line: how errors are printed, and how the process exits."""

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run

from eztorch_sce import cli
from eztorch_sce.errors import MediaError, TrainingError


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
    ("words", "expected"),
    [
        ("ucf101", {"ucf101_finetune", "ucf101_r2plus1d18", "ucf101_retrieval", "ucf101_x3d_m", "ucf101_x3d_s"}),
        ("UCF101 finetune", {"ucf101_finetune"}),
        ("linear imagenet", {"imagenet100_linear", "imagenet_linear", "tiny_imagenet_linear"}),
        ("kinetics-200 supervised", {"k200_supervised_r3d18"}),
        ("94.1 finetune", {"k400_r3d50", "ucf101_finetune"}),
    ],
)
def test_recipes_are_found_by_words(words: str, expected: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "recipes", *words.split())
    assert {line.split()[0] for line in out.split("\n\n")[0].splitlines()[1:]} == expected


def test_words_that_no_recipe_has_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "recipes", "ucf11", "finetune")
    assert code == 2
    assert "no recipe has the word ucf11; did you mean ucf101?" in err
    code, _, err = run(capsys, "recipes", "k400", "cifar10")
    assert code == 2
    assert "no recipe has all of the words k400, cifar10" in err


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (TrainingError("loss is not finite"), 2, "eztorch-sce pretrain: stopped: loss is not finite\n"),
        (MediaError("a.mp4", "truncated"), 2, "eztorch-sce pretrain: cannot read a.mp4: truncated\n"),
        (KeyboardInterrupt(), 130, "eztorch-sce pretrain: interrupted; run the same command again to go on"),
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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-m", "seed=0,1", "weights=missing.pt"], "- weights=missing.pt does not exist; give the run directory of"),
        (["-m", "kk=0,1", "weights=w"], "- kk is not a setting of knn; did you mean k?"),
        (["--cfg", "job", "kk=0"], "- kk is not a setting of knn; did you mean k?"),
    ],
)
def test_errors_in_a_run_by_hydra_are_messages(
    words: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # restored after the test
    monkeypatch.setattr(sys, "argv", ["eztorch-sce"])
    code, _, err = run(capsys, "knn", *words, "data.root=it's (1)", "run.dir=a, (b)")
    assert code == 2
    assert "eztorch-sce knn: invalid configuration:\n" in err
    assert expected in err
    assert "Traceback" not in err


def test_a_closed_pipe_ends_the_output_silently() -> None:
    program = f"{sys.executable} -c 'from eztorch_sce.cli import main; main()' {{}} | true"
    for words in ("pretrain --help all", "recipes", "recipes k400_r3d50"):
        done = subprocess.run(["bash", "-c", program.format(words)], capture_output=True, text=True, check=False)
        assert done.stderr == ""
