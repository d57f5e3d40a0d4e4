"""Tests of free text in overrides: paths are taken as typed, whatever characters they hold."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from eztorch_sce.config.compose import commands, compose, to_yaml
from eztorch_sce.config.overrides import take_literally
from eztorch_sce.config.schema import PretrainConfig, validate
from eztorch_sce.curation.command import DATA_COMMANDS
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.home_folders import with_home_folders
from eztorch_sce.positional import parse
from eztorch_sce.report.run_directory import open_run
from eztorch_sce.settings import declaration

CHARACTERS = [*" '\",=()[]{}#$\\:;*?!&|<>~`^%@+-.", "é", "日本", "😀", "\n", "\t", os.fsdecode(b"\xff")]
TEXTS = [
    *(f"/x/a{character}b" for character in CHARACTERS),
    *(f"a{character}" for character in CHARACTERS),
    *(f"{character}a" for character in CHARACTERS if character != "~"),
    *("it's (1), [2]={3} #4", "a\\\\", "a\\'b", "'a' and 'b'", '"a" b"', "1e3", "007", "true", "null.csv", "x,y,z"),
    *("${x", "a${b}c", "\\${b}", "a\\\\${b}", "${b:c}", "[a,b]", "{a:b}", "choice(a,b)", "glob(*)", "a # b", "nul"),
]


def path_settings(command: str) -> list[str]:
    """Return the settings of a command that are declared as paths, except `config`, which must exist."""
    return [name for name, is_path in declared(commands()[command]()) if is_path and name != "config"]


def declared(config: Any, prefix: str = "") -> list[tuple[str, bool]]:
    """Return the path of each setting of a config, and whether it is declared as a path."""
    names = []
    for item in fields(config):
        value, declaration_of = getattr(config, item.name), declaration(item)
        if is_dataclass(value):
            names += declared(value, f"{prefix}{item.name}.")
        names.append((f"{prefix}{item.name}", declaration_of is not None and declaration_of.is_path))
    return names


def value_of(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = getattr(config, name)
    return config


@pytest.mark.parametrize("text", TEXTS)
def test_a_path_is_taken_as_typed_and_written_to_config_yaml(text: str) -> None:
    (word,) = take_literally(PretrainConfig, [f"data.root={text}"])
    value = OverridesParser.create().parse_override(word).value()
    assert OmegaConf.create({"root": value}).root == text
    config = PretrainConfig(data=DataConfig(root=text))
    assert OmegaConf.create(to_yaml(config)).data.root == text


@pytest.mark.parametrize("command", ["pretrain", "test", "knn", "demo"])
def test_every_path_setting_of_a_command_is_taken_as_typed(command: str) -> None:
    texts = {name: f"/x/{name}/it's (1), [2]={{3}} #4 $5 \\" for name in path_settings(command)}
    texts.pop("features", None)  # replaces the data
    config = compose(command, [f"{name}={text}" for name, text in texts.items()])
    assert {name: value_of(config, name) for name in texts} == texts


def test_null_quotes_and_interpolations_keep_their_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOS", "/x/a,b")
    for text, value in {
        "null": None,
        "'a,b'": "a,b",
        '"a b"': "a b",
        "${oc.env:VIDEOS}/c (1)": "/x/a,b/c (1)",
        "runs/s${seed}": "runs/s0",
    }.items():
        assert compose("knn", ["data.root=.", "weights=w", f"run.dir={text}"]).run.dir == value


@pytest.mark.parametrize(
    ("text", "values"),
    [("/a,/b", ["/a", "/b"]), ("/it's,/b (1)", ["/it's", "/b (1)"]), ("'/a,b'", ["/a,b"]), ("/a=b", ["/a=b"])],
)
def test_a_comma_separates_the_values_of_a_sweep_only(text: str, values: list[str]) -> None:
    def values_of(sweep: bool) -> list[Any]:
        (word,) = take_literally(PretrainConfig, [f"data.root={text}"], sweep)
        override = parser.parse_override(word)
        if not override.is_sweep_override():
            return [override.value()]
        return [parser.parse_override(f"key={each}").value() for each in override.sweep_string_iterator()]

    parser = OverridesParser.create()
    assert values_of(sweep=True) == values
    assert values_of(sweep=False) == [text.strip("'") if len(values) == 1 else text]


@pytest.mark.parametrize("command", ["pretrain", "test", "knn", "finetune", "demo"])
def test_the_home_folder_is_expanded_in_every_path_setting(command: str) -> None:
    config = commands()[command]()
    for name in path_settings(command):
        *parents, last = name.split(".")
        setattr(value_of(config, ".".join(parents)) if parents else config, last, f"~/{name}")
    expanded = with_home_folders(config)
    for name in path_settings(command):
        assert value_of(expanded, name) == os.path.expanduser(f"~/{name}")
        assert value_of(config, name) == f"~/{name}"
    assert "~" not in to_yaml(expanded)


def test_a_run_stores_and_opens_the_expanded_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = validate(compose("pretrain", ["data.root=~/videos", "run.dir=~/runs/a, b"]))
    assert config.data.root == f"{tmp_path}/videos"
    assert open_run("pretrain", config) == tmp_path / "runs/a, b"
    assert OmegaConf.load(tmp_path / "runs/a, b/config.yaml").data.root == f"{tmp_path}/videos"


def test_settings_that_hold_paths_are_declared_as_such() -> None:
    names = (
        "config",
        "root",
        "list",
        "lists",
        "test_root",
        "test_list",
        "annotations",
        "train_subset",
        "weights",
        "features",
        "out",
        "folder",
        "dir",
        "missing",
    )
    configs = [config() for config in commands().values()]
    configs += [command.config() for command in DATA_COMMANDS.values() if command.config]
    for config in configs:
        for name, is_path in declared(config):
            last = name.split(".")[-1]
            looks_like_one = last in names or last.endswith(("_dir", "_file", "_folder", "_root"))
            assert is_path == looks_like_one, name


def test_the_home_folder_is_expanded_in_data_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "videos").mkdir()
    line = parse(DATA_COMMANDS["doctor"], ["~/videos", "lists=[~/a.csv,'~/b, c.csv']"])
    assert line.arguments == [f"{tmp_path}/videos"]
    assert line.config.lists == [f"{tmp_path}/a.csv", f"{tmp_path}/b, c.csv"]
    line = parse(DATA_COMMANDS["prepare"], ["~/videos", "~/out"])
    assert line.arguments == [f"{tmp_path}/videos", f"{tmp_path}/out"]
    line = parse(DATA_COMMANDS["check"], ["list", "~/videos", "list=~/a=b.csv", "missing=~/m.txt"])
    assert (line.arguments, line.config.list) == (["list", f"{tmp_path}/videos"], f"{tmp_path}/a=b.csv")
    assert line.config.missing == f"{tmp_path}/m.txt"


def test_a_folder_with_an_equals_sign_is_answered_with_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"for a folder of that name, write \./lr=3"):
        parse(DATA_COMMANDS["doctor"], ["lr=3"])


@pytest.mark.parametrize("device", ["a (b)", "it's", 'a"b"', "a,b"])
def test_a_value_that_needs_quotes_is_answered_with_text_that_works_when_typed(device: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose("plan", [f"device={device}", "views.*.size=x"])
    typed = re.split("quote special characters: |for a list, or ", caught.value.problems[0])[1].removesuffix(
        " for text"
    )
    shown = subprocess.run(["bash", "-c", f"printf %s {typed}"], capture_output=True, check=True, text=True).stdout
    assert OverridesParser.create().parse_override(shown).value() == device


def test_a_path_typed_in_a_shell_is_the_folder_that_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "it's (1), [2]={3} #4 $5 ünï \\"
    folder.mkdir()
    program = "from eztorch_sce.cli import main; main()"
    words = ["knn", f"data.root={folder}", "weights=w.pt", "--cfg", "job", "--package", "data"]
    line = shlex.join([sys.executable, "-c", program, *words])
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True, text=True)
    assert OmegaConf.create(done.stdout).root == str(folder)


def test_a_mistyped_key_is_named_although_its_value_needs_quotes() -> None:
    with pytest.raises(ConfigError) as caught:
        compose("knn", ["data.rot=/x/it's (1)", "weights=w"])
    assert caught.value.problems == ["data.rot is not a setting of knn; did you mean data.root?"]
    with pytest.raises(ConfigError, match=r"loss=it's must be one of cosine, "):
        compose("pretrain", ["data.root=.", "loss=it's"])
    with pytest.raises(ConfigError, match=r"views\.\*\.size=it's must be of the form key=value; quote"):
        compose("pretrain", ["data.root=.", "views=kinetics", "views.*.size=it's"])


def test_the_directory_of_a_sweep_is_one_directory() -> None:
    assert take_literally(PretrainConfig, ["run.dir=a,b"], sweep=True) == ['run.dir="a,b"']


def test_a_folder_named_null_can_be_given_in_quotes() -> None:
    (word,) = take_literally(PretrainConfig, ["data.root='null'"])
    assert OverridesParser.create().parse_override(word).value() == "null"
    assert take_literally(PretrainConfig, ["data.root=null"]) == ["data.root=null"]
