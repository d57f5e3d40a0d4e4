"""Completion by TAB, in real shells."""

import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from command_line import run

from eztorch_sce.cli import main
from eztorch_sce.completion import SHELLS, candidates

STARTS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
CONTROLS = re.compile(r"\x1b(\[[0-9;?<>=]*[ -/]*[@-~]|\][^\x07]*(\x07|$)|[()][A-Z0-9]|[=>])|[\x00-\x07\r]")
LOAD = {"bash": "source", "zsh": "autoload -Uz compinit; compinit -u -D; source", "fish": "source"}
LINES = {
    "extr\tx": "extract x",
    "pretrain data.ro\tx": "pretrain data.root=x",
    "pretrain loss=inf\tx": "pretrain loss=infonce x",
    "pretrain data.root=my\tx": r"pretrain data.root=my\ videos/x",
    "knn weights=ru\tmi\tx": "knn weights=runs/mine/x",
    "data doc\tmy\tx": r"data doctor my\ videos/x",
    "finetune recipe=ucf101_f\tx": "finetune recipe=ucf101_finetune x",
}


class Terminal:
    """A shell in a terminal of its own, in which `eztorch-sce` is the program of these tests."""

    def __init__(self, shell: str, folder: Path) -> None:
        environ = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PS1": "> ", "HOME": str(folder)}
        environ |= {"TERM": "xterm", "COLUMNS": "200", "XDG_DATA_HOME": str(folder)}
        self.text = ""
        self.process, self.master = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            os.execvpe(STARTS[shell][0], STARTS[shell], environ)
        assert self.answer(f"{LOAD[shell]} {folder / 'script'}; echo rea''dy\n", "ready"), self.text

    def answer(self, typed: str, expected: str) -> bool:
        """Type a text, and return whether the terminal shows what is expected within half a minute."""
        self.text = ""
        os.write(self.master, typed.encode())
        end = time.monotonic() + 30
        while expected not in self.text and time.monotonic() < end:
            if select.select([self.master], [], [], 0.1)[0]:
                data = os.read(self.master, 4096)
                if b"\x1b[c" in data or b"\x1b[0c" in data:  # fish asks which terminal this is
                    os.write(self.master, b"\x1b[?62c")
                shown = CONTROLS.sub("", self.text + data.decode(errors="replace"))
                self.text = re.sub(r".\x08", "", shown)  # zsh takes back the space that it puts after a word
        return expected in self.text

    def close(self) -> None:
        """End the shell."""
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.master)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with files to complete and the program."""
    for name in ("my videos", "runs/mine", "bin"):
        (tmp_path / name).mkdir(parents=True)
    program = tmp_path / "bin" / "eztorch-sce"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m eztorch_sce "$@"\n')
    program.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_in_a_real_shell(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    main(["completion", shell])
    (folder / "script").write_text(capsys.readouterr().out)
    terminal = Terminal(shell, folder)
    try:
        for typed, expected in LINES.items():
            assert terminal.answer(f"eztorch-sce {typed}", expected), terminal.text
            terminal.answer("\x15", "")
    finally:
        terminal.close()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["pretrain", "data.decoder=d"], ["data.decoder=decord"]),
        (["pretrain", "loss=infonce", "loss."], ["loss.temperature=", "loss.weight="]),
        (["pretrain", "backbone=resnet18", "backbone.s"], ["backbone.small_input="]),
        (["pretrain", "views.*.fl"], ["views.*.flip="]),
        (["pretrain", "trainer.compile=t"], ["trainer.compile=true"]),
        (["plan", "recipe=cifar100"], ["recipe=cifar100_resnet18"]),  # and not the recipe of `linear`
        (["data", "prepare", "videos", "out", "short"], ["short_side="]),
        (["data", "check", "kinetics4"], ["kinetics400"]),
        (["checkpoint", "i"], ["inspect", "import"]),
        (["checkpoint", "import", "a.pth", "inflate=c"], ["inflate=center"]),
        (["checkpoint", "import", "a.pth", "backbone=r3d5"], ["backbone=r3d50"]),
        (["checkpoint", "import", "a.pth", "format=pytorchv"], ["format=pytorchvideo"]),
        (["checkpoint", "export", "a", "b", "format=ez"], ["format=eztorch_sce"]),
        (["compare", "runs/m"], ["runs/mine/"]),
        (["report", "runs/mine", "runs/m"], ["runs/mine/"]),
        (["report", "runs/mine", "da"], ["data.root="]),
        (["report", "runs/mine", "out=my"], ["out=my videos/"]),
        (["completion", "f"], ["fish"]),
        (["no-such-command", ""], []),
        (["pretrain", "no.such.setting="], []),
    ],
)
def test_what_completes_a_word(
    typed: list[str], expected: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert [candidate.text for candidate in candidates(typed)] == expected


def test_one_level_of_settings_is_offered_at_a_time() -> None:
    offered = {candidate.text for candidate in candidates(["pretrain", ""])}
    assert {"data.", "loss.", "loss=", "seed="} <= offered
    assert not any(text.startswith("data.r") for text in offered)
    assert "data.root=" in {candidate.text for candidate in candidates(["pretrain", "data."])}


def test_an_unknown_shell_is_answered_with_those_that_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "completion", "bsh")
    assert code == 2
    assert "completion bash|zsh|fish; did you mean bash?" in err
