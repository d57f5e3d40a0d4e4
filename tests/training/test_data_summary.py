"""Tests that commands say what they understood of their data, and which records pretraining sees."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eztorch_sce import api
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.cli import main
from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.opening import saying_once, summarize

HELD_OUT = "split: 0.2 of each class held out, seed 0"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of 10 images of class a and 5 of class [b]."""
    for number in range(15):
        file = tmp_path / "photos" / ("a" if number < 10 else "[b]") / f"{chr(ord('a') + number)}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (10 * number, 200, 30)).save(file)
    return tmp_path / "photos"


def pretrain_config(data: DataConfig, run_dir: Path) -> PretrainConfig:
    config = PretrainConfig(
        data=data,
        views=[ViewConfig(size=32), ViewConfig(size=32)],
        backbone=SmallR2Plus1DConfig(width=4, num_blocks=1),
        method=MomentumContrastConfig(ProjectorConfig(hidden_dim=16, output_dim=8), queue_size=16),
    )
    config.data.batch_size, config.data.num_workers = 4, 0
    config.run.dir, config.trainer.max_epochs, config.trainer.accelerator = str(run_dir), 1, "cpu"
    return config


def protocol(run_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_dir / "report.json").read_text())["protocol"]
    return content


def test_pretraining_leaves_out_what_evaluations_hold_out(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = pretrain_config(DataConfig(root=str(photos)), tmp_path / "run")
    report = api.pretrain(config)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "data: train 12 images, test 3 images",
        "classes: 2 ([b], a), 4 train records in the smallest ([b]) to 8 in the largest (a)",
        f"{HELD_OUT}; not seen by pretraining (data.pretrain_on=all sees all records)",
    ]
    summary = protocol(tmp_path / "run")["data_summary"]
    assert summary["records"] == {"train": {"image": 12}, "test": {"image": 3}}
    assert summary["classes"]["largest"] == ["a", 8]
    assert report.protocol["records"] == 12
    seen, evaluated = config.data.open_for_pretraining(seed=0), config.data.open_with_test(seed=0)
    assert (seen.train.records, seen.labeled_test.records) == (evaluated.train.records, evaluated.labeled_test.records)


def test_pretraining_on_all_records_is_said(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = pretrain_config(DataConfig(root=str(photos), pretrain_on="all"), tmp_path / "run")
    config.online.every_n_epochs = 1
    config.online.root = str(photos)
    assert api.pretrain(config).protocol["records"] == 15
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "data: train 15 images"
    assert lines[2].endswith("pretraining sees all records (data.pretrain_on=all)")
    assert (
        lines[3] == "online evaluation: train 12 images, test 3 images, 2 classes, 0.2 of each class held out, seed 0"
    )
    online = protocol(tmp_path / "run")["online"]
    assert online["data_summary"]["records"]["test"] == {"image": 3}
    assert online["seen_in_pretraining"] == {"seen": 3, "test_records": 3}


def test_all_records_include_those_of_a_test_folder(images: Path) -> None:
    data = DataConfig(root=str(images), pretrain_on="all")
    assert len(data.open_for_pretraining(seed=0).train.records) == 18
    assert len(DataConfig(root=str(images)).open_for_pretraining(seed=0).train.records) == 12


def test_classes_of_single_records_are_all_seen(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "photo.png")
    splits = DataConfig(root=str(tmp_path)).open_for_pretraining(seed=0)
    assert (len(splits.train.records), splits.test) == (3, None)


COMMANDS = {
    "knn": ["k=3"],
    "linear": ["trainer.max_epochs=1"],
    "retrieve": [],
    "few-shot": ["ways=2", "shots=1", "episodes=2"],
    "extract": [],
    "finetune": ["views=finetune_image", "data.batch_size=4", "trainer.max_epochs=1", "trainer.accelerator=cpu"],
    "show-views": ["views=image", "num_samples=1"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_say_what_they_understood_before_the_network_is_built(
    command: str,
    photos: Path,
    weights: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printed_before: list[str] = []
    build = SmallR2Plus1DConfig.build

    def recorded(self: SmallR2Plus1DConfig) -> Backbone:
        printed_before.append(capsys.readouterr().err)
        return build(self)

    monkeypatch.setattr(SmallR2Plus1DConfig, "build", recorded)
    words = [f"data.root={photos}", f"run.dir={tmp_path / 'run'}", "data.num_workers=0", *COMMANDS[command]]
    main([command, *words, *([] if command == "show-views" else [f"weights={weights}"])])
    lines = [*printed_before, capsys.readouterr().err][0].splitlines()
    lines = [line for line in lines if not line.startswith("loading ")]  # printed on slow machines only
    assert lines[0].startswith("data: train 1")
    assert lines[1].startswith("classes: 2 ([b], a), ")
    assert lines[2].startswith("split: ")
    assert len(lines) <= 4
    assert protocol(tmp_path / "run")["data_summary"]["classes"]["number"] == 2


def test_the_choice_of_pretraining_records_is_refused_elsewhere(
    photos: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["knn", f"data.root={photos}", f"weights={weights}", "data.pretrain_on=all"])
    assert "data.pretrain_on=all has no effect on this command" in capsys.readouterr().err


def test_only_the_first_process_says_what_was_understood(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    summarize(DataConfig(root=str(photos)).open())
    assert capsys.readouterr().err == ""


def test_an_evaluation_says_whether_its_test_records_were_seen_in_pretraining(
    photos: Path, weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for choice, file in {"train": tmp_path / "train", "all": tmp_path / "all", "earlier": weights}.items():
        if choice != "earlier":
            api.pretrain(pretrain_config(DataConfig(root=str(photos), pretrain_on=choice), tmp_path / choice))
        words = [f"data.root={photos}", "data.num_workers=0", "accelerator=cpu"]
        main(["knn", *words, f"weights={file}", f"run.dir={tmp_path / f'knn-{choice}'}"])
    main(["extract", *words, f"weights={tmp_path / 'all'}", f"run.dir={tmp_path / 'features'}"])
    main(["knn", f"features={tmp_path / 'features'}", f"run.dir={tmp_path / 'again'}"])
    main(["knn", *words, f"weights={tmp_path / 'all'}", "untrained=true", f"run.dir={tmp_path / 'untrained'}"])
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("test records seen")]
    assert [line.removeprefix("test records seen in pretraining: ") for line in printed] == [
        "0 of 3",
        "3 of 3",
        "unknown (weights file of an earlier version)",
        *["3 of 3"] * 2,
        "0 of 3",
    ]
    assert protocol(tmp_path / "again")["seen_in_pretraining"] == {"seen": 3, "test_records": 3}
    assert protocol(tmp_path / "knn-earlier")["seen_in_pretraining"]["seen"] is None


def test_a_command_that_runs_others_says_each_line_once(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with saying_once():
        for _ in range(2):
            summarize(DataConfig(root=str(photos)).open())
    assert len(capsys.readouterr().err.splitlines()) == 3
