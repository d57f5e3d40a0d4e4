"""Tests of command lines with positional arguments."""

import subprocess
import sys
from pathlib import Path

import pytest

from eztorch_sce import cli
from eztorch_sce.commands import GROUPS
from eztorch_sce.curation.command import DATA_COMMANDS
from eztorch_sce.curation.settings import CheckConfig, DoctorConfig, PrepareConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.jobs.runners.local import LocalConfig
from eztorch_sce.positional import parse

DOCTOR, PREPARE, CHECK, BENCH = (DATA_COMMANDS[name] for name in ("doctor", "prepare", "check", "bench"))


def mistakes(name: str, *words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(DATA_COMMANDS[name], words)
    return caught.value.problems


def test_settings_are_converted_to_their_types(tmp_path: Path) -> None:
    line = parse(PREPARE, [str(tmp_path), "out", "short_side=64", "fps=12.5", "workers=null", "runner.shard_records=9"])
    assert line.arguments == [str(tmp_path), "out"]
    assert line.config == PrepareConfig(short_side=64, fps=12.5, workers=None, runner=LocalConfig(shard_records=9))
    line = parse(DOCTOR, [str(tmp_path), "full=true", "lists=[a.csv, 'b c.csv']"])
    assert line.config == DoctorConfig(full=True, lists=["a.csv", "b c.csv"])


def test_settings_of_check_may_have_the_prefix_of_other_commands() -> None:
    line = parse(CHECK, ["ucf101", "root", "data.split=2", "data.annotations=lists"])
    assert line.config == CheckConfig(split=2, annotations="lists")


def test_a_path_may_contain_an_equals_sign(tmp_path: Path) -> None:
    folder = tmp_path / "lr=3"
    folder.mkdir()
    assert parse(DOCTOR, [str(folder)]).arguments == [str(folder)]
    assert parse(CHECK, ["list", str(folder), "list=a=b.csv"]).config.list == "a=b.csv"


def test_a_file_of_a_name_like_a_setting_is_an_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "epoch=3.ckpt").touch()
    line = parse(GROUPS["checkpoint"].commands["import"], ["epoch=3.ckpt", "out.safetensors", "backbone=r3d50"])
    assert (line.arguments, line.config.backbone) == (["epoch=3.ckpt", "out.safetensors"], "r3d50")


def test_the_settings_of_bench_are_returned_as_overrides(tmp_path: Path) -> None:
    line = parse(BENCH, [str(tmp_path), "data.num_frames=2"])
    assert (line.arguments, line.config, line.overrides) == ([str(tmp_path)], None, ["data.num_frames=2"])


def test_the_error_for_an_old_flag_shows_the_new_setting(tmp_path: Path) -> None:
    assert mistakes("prepare", str(tmp_path), "out", "--short-side", "128", "--gop=16") == [
        "--short-side 128 is now short_side=128",
        "--gop=16 is now gop=16",
    ]
    assert mistakes("doctor", "--full", str(tmp_path), "--lists", "a.csv", "b.csv", "--workers", "4") == [
        "--full is now full=true",
        "--lists a.csv b.csv is now lists=[a.csv,b.csv]",
        "--workers 4 is now workers=4",
    ]


@pytest.mark.parametrize("words", [["shard=3/8"], ["--shard", "3/8"]])
def test_the_error_for_a_removed_setting_names_what_replaces_it(words: list[str], tmp_path: Path) -> None:
    [message] = mistakes("prepare", str(tmp_path), "out", *words)
    assert message.startswith(f"{' '.join(words)} is no longer a setting: ")
    assert "runner=slurm" in message


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    assert mistakes("prepare", str(tmp_path / "vidoes"), "--crf", "9", "gpo=3", "fps=fast", "to=gif") == [
        "--crf 9 is now crf=9",
        "OUT is missing; usage: eztorch-sce data prepare FOLDER OUT [key=value ...]",
        f"FOLDER={tmp_path / 'vidoes'} does not exist; did you mean videos?",
        "gpo is not a setting of data prepare; its settings are short_side, gop, fps, crf, to, runner, workers; did "
        "you mean gop?",
        "fps=fast must be a number, at least 0.1, or null",
        "to=gif must be one of h264, frames",
    ]


def test_an_unknown_layout_is_reported_with_the_other_mistakes() -> None:
    layout, setting = mistakes("check", "ucf11", "root", "splt=2")
    assert layout.startswith("NAME=ucf11 must be one of ")
    assert layout.endswith("did you mean ucf101?")
    assert setting.endswith("did you mean split?")


def test_a_list_of_missing_files_needs_an_existing_folder() -> None:
    assert mistakes("check", "ucf101", "root", "missing=nowhere/missing.txt") == [
        "missing=nowhere/missing.txt is in a folder that does not exist: nowhere"
    ]


def test_surplus_words_and_settings_are_mistakes(tmp_path: Path) -> None:
    source = str(tmp_path)
    assert mistakes("unpack", source, "out", "more", "level=3", "--force") == [
        "--force is not a setting of data unpack; settings are written key=value",
        "unexpected argument more; usage: eztorch-sce data unpack SOURCE OUT",
        "level is not a setting of data unpack; it has no settings",
    ]


def test_mistakes_make_the_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["docter", "."], ["doctor"], ["bench", "data.num_frames=2"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["data", *words])
        assert ended.value.code == 2
    assert "did you mean doctor?" in capsys.readouterr().err


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in GROUPS[group].commands])
def test_examples_are_valid(group: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("videos", "runs/mine"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("moco_v2_800ep.pth.tar", "byol.pth", "resnet50.pth"):
        (tmp_path / file).touch()
    for example in GROUPS[group].commands[name].examples:
        program, *words = example.split()
        assert (program, words[:2]) == ("eztorch-sce", [group, name])
        parse(GROUPS[group].commands[name], words[2:])


def test_the_table_of_commands_loads_without_torch() -> None:
    program = "import sys, eztorch_sce.commands; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
