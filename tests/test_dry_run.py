"""Dry runs: everything is checked, nothing is written."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import run
from image_files import write_two_classes

from eztorch_sce import ConfigError, DataConfig, KnnConfig, dry_run

SMALL = ("data.root=images", "data.num_workers=0", "trainer.accelerator=cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write 12 images of two classes below `images`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_two_classes(tmp_path / "images")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "topics"),
    [
        (
            ["pretrain", *SMALL, "trainer.max_epochs=3", "run.dir=out"],
            ["steps     6: 3 epochs of 2", "out: check"],
        ),
        (["knn", "data.root=images", "data.num_workers=0", "backbone=resnet18"], ["network   resnet18, 11.2 million"]),
        (["finetune", *SMALL, "backbone=resnet18", "views=finetune_image", "data.batch_size=5"], ["classifier.safe"]),
        (["linear", *SMALL, "backbone=resnet18", "views=linear_image", "data.batch_size=5"], ["steps", "decoding"]),
        (
            ["extract", "data.root=images", "data.num_workers=0", "backbone=resnet18"],
            ["features_train.pt", "runner=local: "],
        ),
    ],
    ids=lambda words: words[0],
)
def test_a_dry_run_says_what_would_happen_and_writes_nothing(
    words: list[str],
    topics: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, *words, "--dry-run")
    assert code == 0
    assert out.startswith(f"dry run of {words[0]}: no mistakes found, and nothing was written\n")
    assert all(topic in out for topic in topics)
    assert max(map(len, out.splitlines())) <= 80
    assert {path.name for path in folder.iterdir()} == {"images"}


def test_the_job_script_follows_a_dry_run_of_extract(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["runner=slurm", "runner.shard_records=1", "runner.gpus_per_node=1", "runner.options=--constraint=a100"]
    code, out, _ = run(capsys, "extract", "data.root=images", "backbone=resnet18", *words, "run.dir=out", "--dry-run")
    assert code == 0
    lines = out.splitlines()
    assert {"#SBATCH --gpus-per-node=1", "#SBATCH --constraint=a100"} <= set(lines[lines.index("#!/bin/bash") :])
    assert {path.name for path in folder.iterdir()} == {"images"}


def test_the_problems_of_all_stages_come_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (folder / "images").rglob("*.png"):
        file.write_bytes(b"not an image")
    (folder / "out").mkdir()
    (folder / "out" / "config.yaml").write_text("# eztorch-sce pretrain\nseed: 0\n")
    code, _, err = run(capsys, "knn", "--dry-run", "data.root=images", "backbone=resnet18", "run.dir=out")
    assert code == 2
    assert "- run.dir=out already contains a run of pretrain" in err
    assert "- cannot read " in err


def test_a_full_disk_is_found_before_the_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**19))
    config = KnnConfig(backbone="resnet18", data=DataConfig(root="images", num_workers=0))
    with pytest.raises(ConfigError, match=r"run.dir=runs/knn-1 needs \d MB, and its disk has 512 kB free"):
        dry_run(config)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["demo", "--dry-run"], "demo has no --dry-run; the commands that have one are pretrain, finetune, test,"),
        (["pretrain", "--dry-run", "-m", "seed=0,1"], "--dry-run checks one run, not a sweep: leave out -m"),
    ],
)
def test_commands_without_a_dry_run_say_so(words: list[str], answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert answer in err
