"""Tests of `--help`: its content, its length, and that it does not import torch."""

import subprocess
import sys

import pytest

from eztorch_sce import registry
from eztorch_sce.augment.statistics import _PUBLISHED, STATISTICS
from eztorch_sce.commands import GROUPS
from eztorch_sce.config import help as help_pages
from eztorch_sce.config.compose import commands, compose
from eztorch_sce.config.folder_words import with_folder
from eztorch_sce.config.reference import FILE, NAMES, REGENERATE, build, load, to_json, to_names
from eztorch_sce.config.reference_pages import DOCS, pages
from eztorch_sce.errors import ConfigError

TYPED_FIRST = (
    *("recipe", "backbone", "loss", "views", "data.root", "data.list", "data.batch_size", "data.num_frames"),
    *("data.clip_s", "trainer.max_epochs", "trainer.devices", "run.dir", "seed"),
)


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def labels(text: str) -> list[str]:
    """Return the settings that have a line of their own, in order."""
    lines = [line[2:] for line in text.splitlines() if line.startswith("  ") and line[2:3].strip()]
    return [line.split("=")[0].split(" ")[0] for line in lines]


@pytest.mark.parametrize("command", commands())
def test_help_fits_two_screens(command: str) -> None:
    lines = help_pages.command_help(command).splitlines()
    assert len(lines) <= help_pages.MAX_LINES
    assert max(map(len, lines)) <= help_pages.MAX_WIDTH


@pytest.mark.parametrize("command", commands())
def test_help_begins_with_a_sentence_and_three_examples(command: str) -> None:
    lines = help_pages.command_help(command).splitlines()
    assert lines[0].endswith(".")
    examples = [line for line in lines if line.startswith(f"  eztorch-sce {command}")]
    assert len(examples) == 3
    assert max(map(len, examples)) <= 80


def test_help_of_pretrain_explains_the_most_used_settings_first() -> None:
    shown = labels(help_pages.command_help("pretrain"))
    assert set(TYPED_FIRST) <= set(shown)
    assert shown.index("data.root") < shown.index("data.batch_size") < shown.index("run.dir") < shown.index("seed") < 40


def test_help_all_shows_every_setting_of_every_choice() -> None:
    text = help_pages.command_help("pretrain", ["all"])
    for group in ("backbone", "loss", "method", "optimizer"):
        for name in registry.choices(group):
            assert f"\n{group}={name}: " in text
    for path in ("optimizer.trust_coefficient", "data.canvas", "views.*.solarize", "online.every_n_epochs"):
        assert path in labels(text)


def test_help_shows_default_range_and_meaning() -> None:
    text = help_pages.command_help("pretrain", ["lars"])
    assert "optimizer.momentum=0.9    Momentum of the velocity (at least 0 and less than 1)." in text


def test_help_of_one_setting() -> None:
    assert labels(help_pages.command_help("pretrain", ["trainer.max_epochs"])) == ["trainer.max_epochs"]


def test_an_unknown_topic_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean trainer"):
        help_pages.command_help("pretrain", ["trainr"])


def test_the_overview_names_every_command() -> None:
    text = help_pages.overview()
    for name in [*commands(), "data", "checkpoint", "compare", "recipes", "env"]:
        assert f"\n  {name} " in text
    assert max(map(len, text.splitlines())) <= help_pages.MAX_WIDTH


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in GROUPS[group].commands])
def test_commands_of_two_words_have_the_same_form_of_help(group: str, name: str) -> None:
    command = GROUPS[group].commands[name]
    assert f"usage: eztorch-sce {group} {name}" in help_pages.positional_help(command)
    assert command.summary.split()[0] in help_pages.group_overview(GROUPS[group])


@pytest.mark.parametrize(
    "words",
    [
        *("--help", "recipes", "recipes ucf101", "pretrain --help", "pretrain --help all", "data --help"),
        *(
            "data prepare --help",
            "checkpoint --help",
            "checkpoint import --help",
            "completion bash",
            "completion --words pretrain data.ro",
            "x",
        ),
    ],
)
def test_help_and_lists_do_not_import_torch(words: str) -> None:
    script = "import sys; from eztorch_sce.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", script, *words.split()], capture_output=True, text=True, check=False)
    assert "AssertionError" not in result.stderr
    assert result.stdout or "x is not a command" in result.stderr


def test_errors_are_reported_without_importing_lightning() -> None:
    script = (
        "import sys; from eztorch_sce.cli import main\ntry: main()\n"
        "finally: assert not {'pytorch_lightning', 'torchmetrics', 'torchvision'} & set(sys.modules)"
    )
    words = ["pretrain", "data.root=x", "trainer.max_epoch=3"]
    result = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert "AssertionError" not in result.stderr
    assert "did you mean trainer.max_epochs?" in result.stderr


def test_the_reference_is_unchanged_by_writing_and_reading() -> None:
    reference = load()
    assert to_json(reference) == FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", commands())
def test_the_examples_in_help_are_valid(command: str) -> None:
    lines = help_pages.command_help(command).splitlines()
    for example in [line.split()[2:] for line in lines if line.startswith(f"  eztorch-sce {command}")]:
        words = with_folder(example) if command == "study" else example
        compose(command, [word for word in words if not word.startswith("trainer.devices=")])


def test_the_reference_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in STATISTICS.keys() - _PUBLISHED:  # registered by the import of weights in other tests
        monkeypatch.delitem(STATISTICS, name)
    reference = build()
    assert FILE.read_text(encoding="utf-8") == to_json(reference), f"run `{REGENERATE}`"
    for name, text in pages(reference).items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"run `{REGENERATE}`"
    assert NAMES.read_text(encoding="utf-8") == to_names(), f"run `{REGENERATE}`"
