"""Code blocks of the documentation, and how the tests run them.

A block runs in the order of its page, in a folder that holds small data under the names that all pages use:

- `python` is executed; the blocks of a page share their variables.
- `bash` is a list of commands. Those of `eztorch-sce` run in this process, with settings that keep them small, and
  with the videos in the place of FOLDER.
- `console` is the same with what is printed below each `$ command`; `...` stands for anything.
- A block with a title, such as ``` {.yaml title="my.yaml"}, is written to that file.
- Other languages (`text`, `toml`, `csv`, `bibtex`) are not code. `yaml` is parsed.

`<!-- not run: reason -->` above a block leaves out running it: its commands are composed, which checks every setting,
and its Python is compiled.
"""

import ast
import contextlib
import doctest
import io
import os
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import eztorch_sce
from eztorch_sce.cli import main
from eztorch_sce.commands import GROUPS
from eztorch_sce.config.compose import commands, compose
from eztorch_sce.config.help import command_names
from eztorch_sce.errors import ConfigError
from eztorch_sce.positional import PositionalCommand, parse

_BLOCK = re.compile(
    r"(?P<mark><!-- not run: [^\n]+ -->\n\n?)?"
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
_TITLE = re.compile(r'title="([^"]+)"')
_SMALL_TRAINING = ["trainer.max_epochs=1", "data.batch_size=4", "data.num_workers=0", "trainer.accelerator=cpu"]
_SMALL_NETWORK = ["backbone.width=4", "backbone.num_blocks=1"]  # where the data choose the network
_SMALL_CLIPS = ["data.num_workers=0", "test.num_clips=1", "test.num_crops=1"]
SMALL = {  # settings that the tests add to a command
    "pretrain": _SMALL_TRAINING,
    "finetune": [*_SMALL_TRAINING, "test.num_clips=1", "test.num_crops=1"],
    "linear": ["trainer.max_epochs=2"],
    "few-shot": ["episodes=2"],
    **{name: [] for name in ("extract", "test", "knn", "retrieve", "svm")},
}
_TAKES_CLIPS = ("extract", "test", "knn", "linear", "retrieve", "svm", "few-shot")
_TESTED_ELSEWHERE = ("demo", "study", "watch")  # they take minutes, or serve until stopped: composed only
_LAUNCHERS = ("torchrun", "srun")  # in front of tools/COMMAND.py
_NOT_OURS = ("pip", "uv", "make", "cd", "sbatch", "git", "source", "docker", "jupyter")  # neither run nor checked


class Block(NamedTuple):
    """A code block: where it is, its language and title, its text, and why it is not run (empty if it is)."""

    place: str
    language: str
    title: str
    text: str
    not_run: str


def blocks_of(page: Path) -> list[Block]:
    """Return the code blocks of a page in order, without those that include a file of examples/."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("info")) + 1
        language = re.search(r"\w+", match["info"].replace("title=", " "))
        title = _TITLE.search(match["info"])
        mark = (match["mark"] or "").strip()
        content = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        name = language.group() if language else "text"
        block = Block(f"{page.name}:{line}", name, title.group(1) if title else "", content, mark[13:-4])
        if "--8<--" not in content:
            found.append(block)
    return found


def run_block(block: Block, variables: dict[str, Any]) -> None:
    """Run or check a block in the current folder. `variables` are those of the Python blocks of its page."""
    if block.title:
        Path(block.title).write_text(block.text, encoding="utf-8")
    if block.language == "python" and (block.not_run or block.title):
        _check_python(block)
    elif block.language == "python":
        _run_python(block, variables)
    elif block.language in ("bash", "console"):
        _run_shell(block)
    elif block.language == "yaml":
        yaml.safe_load(block.text)
    else:
        assert block.language in ("text", "toml", "csv", "docker", "make", "bibtex"), f"{block.place}: {block.language}"


def _check_python(block: Block) -> None:
    tree = ast.parse(block.text, block.place)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "eztorch_sce":
            for alias in node.names:
                assert hasattr(eztorch_sce, alias.name), f"{block.place}: {alias.name}"


def _run_python(block: Block, variables: dict[str, Any]) -> None:
    short = re.sub(r"max_epochs( ?= ?)\d+", r"max_epochs\g<1>1", block.text)
    if "max_epochs" not in short:
        short = short.replace("PretrainConfig(", "PretrainConfig(trainer=one_epoch, ")
        variables["one_epoch"] = eztorch_sce.TrainerConfig(max_epochs=1)
    without_workers = short.replace("DataConfig(", "DataConfig(num_workers=0, ")
    exec(compile(without_workers, block.place, "exec"), variables)


def _run_shell(block: Block) -> None:
    for command, expected in commands_of(block):
        words = [word.replace("FOLDER", "videos") for word in shlex.split(command, comments=True)]
        if words[0] in _LAUNCHERS or words[0] == "python":
            check_words([Path(words[-1]).stem] if words[-1].endswith(".py") else _after_script(words))
        elif words[0] != "eztorch-sce":
            assert words[0] in _NOT_OURS, f"{block.place}: {words[0]}"
        elif block.not_run or words[1] in _TESTED_ELSEWHERE:
            check_words(words[1:])
        else:
            _run_and_compare(tuple(small(words[1:])), expected, os.getcwd())


def commands_of(block: Block) -> Iterator[tuple[str, str]]:
    """Yield each command of a shell block, with what the page shows below it (empty for `bash`)."""
    text = block.text.replace("\\\n", " ")
    if block.language == "console":
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            yield command, expected
    else:
        yield from ((line, "") for line in text.splitlines() if line.strip() and not line.startswith("#"))


def _after_script(words: list[str]) -> list[str]:
    """Return the command and the settings in `torchrun ... tools/COMMAND.py key=value ...`."""
    place = next(number for number, word in enumerate(words) if word.endswith(".py"))
    return [Path(words[place]).stem.replace("_", "-"), *words[place + 1 :]]


def small(words: list[str]) -> list[str]:
    """Return the words of a command with the settings that keep it small."""
    command, rest = words[0], words[1:]
    if command not in SMALL or any(word in ("-h", "--help") for word in rest):
        return words
    added = list(SMALL[command])
    if command == "pretrain" and not any(
        word.startswith(("recipe=", "config=", "backbone=", "views=")) for word in rest
    ):
        added += _SMALL_NETWORK
    if command in _TAKES_CLIPS and not any(word.startswith("features=") for word in rest):
        added += _SMALL_CLIPS
    return [*words, *added]


def check_words(words: list[str]) -> None:
    """Compose a command, which checks every setting, without running it."""
    command, rest = words[0], words[1:]
    if command in GROUPS:
        _check_positional(GROUPS[command].commands[rest[0]], rest[1:])
    elif command in commands():
        settings = [word for word in rest if not word.startswith("-")]
        if "-m" in rest:  # a sweep: its first run
            settings = [word.split(",")[0] for word in settings if not word.startswith("hydra")]
        compose(command, [word if "=" in word else f"data.root={word}" for word in settings])
    elif not command.startswith("-"):
        assert command in (*command_names(), "recipes", "compare", "env", "watch", "report", "replay"), command


def _check_positional(command: PositionalCommand, words: list[str]) -> None:
    if command.rehearse is not None:
        words = [word for word in words if word != "--dry-run"]
    try:
        parse(command, words)
    except ConfigError as error:
        if not all("does not exist" in problem for problem in error.problems):  # folders of a block that is not run
            raise


def run_words(words: list[str]) -> tuple[int, str]:
    """Run a command in this process, and return its exit code and what it prints to stdout and stderr."""
    printed, code = io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
    lines = printed.getvalue().splitlines(keepends=True)
    return code, "".join(line for line in lines if not line.startswith("loading "))  # printed on slow machines only


@cache  # a command that several pages show runs once in their folder
def _run_and_compare(words: tuple[str, ...], expected: str, folder: str) -> None:
    place = f"eztorch-sce {' '.join(words)}"
    code, printed = run_words(list(words))
    if expected:
        options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert doctest.OutputChecker().check_output(expected, printed, options), f"{place}\n{printed}"
    else:
        assert code == 0, f"{place}\n{printed}"
