"""Tests of what commands hold out, remember and refuse, on tiny images."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from eztorch_sce import api, tensor_file
from eztorch_sce.config.compose import compose
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.sources.provenance import Provenance, num_seen
from eztorch_sce.errors import ConfigError
from eztorch_sce.models.weights import load_weights
from eztorch_sce.types import FeatureBank, Report

SMALL = ["backbone=r2plus1d_small", "backbone.width=4", "backbone.num_blocks=1", "data.num_workers=0"]
TRAINING = ["views.*.size=16", "trainer.max_epochs=1", "trainer.accelerator=cpu", "data.batch_size=4"]
PRETRAINING = [*SMALL, *TRAINING, "method.queue_size=8", "schedule.warmup_epochs=0"]
ONE_VIEW = ["test.num_clips=1", "test.num_crops=1"]


def draw_images(root: Path, *names: str) -> Path:
    """Write small images of random pixels, the same for the same name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(sum(name.encode()))
        pixels = torch.randint(0, 256, (16, 18, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(root / name)
    return root


def flat_names(count: int = 10, classes: str = "ab") -> list[str]:
    return [f"{name}/{number}.png" for name in classes for number in range(count)]


def call(command: str, run_dir: Path, *settings: str) -> Report:
    accelerator = [] if command in ("pretrain", "finetune") else ["accelerator=cpu"]
    config: Any = compose(command, [*settings, f"run.dir={run_dir}", *accelerator])
    functions: dict[str, Callable[[Any], Report]] = {
        "pretrain": api.pretrain,
        "finetune": api.finetune,
        "test": api.test,
        "extract": api.extract,
    }
    return functions.get(command, api.evaluate)(config)


def refused(command: str, run_dir: Path, *settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        call(command, run_dir, *settings)
    assert not run_dir.exists()
    return str(caught.value)


def names_of(features: Path, split: str, root: Path) -> set[str]:
    bank = FeatureBank.load(features / f"features_{split}.pt")
    return {os.path.relpath(path, root) for path in bank.paths}


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a labeled folder without a test split."""
    return draw_images(tmp_path_factory.mktemp("data") / "flat", *flat_names())


@pytest.fixture(scope="module")
def tuned(flat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run directory of a classifier that was trained with 0.3 of that folder held out by seed 7."""
    run_dir = tmp_path_factory.mktemp("runs") / "tuned"
    call("finetune", run_dir, f"data.root={flat}", "data.test_fraction=0.3", "seed=7", *SMALL, *TRAINING, *ONE_VIEW)
    return run_dir


@pytest.fixture(scope="module")
def held_out(flat: Path) -> set[str]:
    """Return the names of the images that the classifier was not trained on."""
    splits = DataConfig(root=str(flat), test_fraction=0.3).open_with_test(seed=7)
    return {os.path.relpath(path, flat) for path in splits.labeled_test.records.paths()}


def test_evaluations_use_the_records_that_the_classifier_held_out(
    flat: Path, tuned: Path, held_out: set[str], tmp_path: Path
) -> None:
    words = [f"weights={tuned}", f"data.root={flat}", *ONE_VIEW, "data.num_workers=0"]
    report = call("test", tmp_path / "test", *words, "seed=0")
    assert report.protocol["records"] == len(held_out) == 6
    assert f"as in the training of weights={tuned}" not in report.protocol["data"]
    assert "0.3 of each class" in report.protocol["data"]
    call("extract", tmp_path / "features", *words, "seed=1")
    assert names_of(tmp_path / "features", "test", flat) == held_out
    assert names_of(tmp_path / "features", "train", flat) == set(flat_names()) - held_out
    direct = call("knn", tmp_path / "knn", *words, "seed=2", "k=3")
    extracted = call("knn", tmp_path / "knn-features", f"features={tmp_path / 'features'}", "k=3")
    assert direct.metrics == extracted.metrics
    for name, value in (("test_fraction", "0.5"), ("group", "(.)/")):
        message = refused("test", tmp_path / "no", *words, f"data.{name}={value}")
        assert f"data.{name}={value}, but weights={tuned} was trained with" in message
        message = refused("knn", tmp_path / "no", f"features={tmp_path / 'features'}", f"data.{name}={value}")
        assert "were divided when they were extracted" in message


def test_a_moved_data_set_is_recognized_and_another_one_is_tested_whole(
    flat: Path, tuned: Path, held_out: set[str], tmp_path: Path
) -> None:
    words = [f"weights={tuned}", *ONE_VIEW, "data.num_workers=0"]
    moved = tmp_path / "elsewhere/moved"
    shutil.copytree(flat, moved)
    call("extract", tmp_path / "features", *words, f"data.root={moved}")
    assert names_of(tmp_path / "features", "test", moved) == held_out
    others = draw_images(tmp_path / "others", *(f"b/other-{number}.png" for number in range(5)), "a/other.png")
    report = call("test", tmp_path / "others-tested", *words, f"data.root={others}")
    assert report.protocol["records"] == 6
    assert "has no effect on data not trained on" in refused(
        "test", tmp_path / "no", *words, f"data.root={others}", "data.test_fraction=0.5"
    )


def test_other_data_with_the_same_names_may_be_copies(tuned: Path, tmp_path: Path) -> None:
    root = tmp_path / "same names"
    for name in flat_names():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (len(name), 0, 0)).save(root / name)
    records = DataConfig(root=str(root)).open().train.records
    provenance = load_weights(str(tuned)).provenance
    assert num_seen(records, provenance) is None  # they may be copies in another format
    Image.new("RGB", (9, 9)).save(root / "a/1.png")
    for number in range(2, 10):
        (root / f"a/{number}.png").rename(root / f"a/x{number}.png")
        (root / f"b/{number}.png").rename(root / f"b/x{number}.png")
    assert num_seen(DataConfig(root=str(root)).open().train.records, provenance) == 0


def test_records_that_are_gone_stop_the_test_and_new_ones_join_the_train_split(
    flat: Path, tuned: Path, held_out: set[str], tmp_path: Path
) -> None:
    changed = tmp_path / "flat"
    shutil.copytree(flat, changed)
    draw_images(changed, "a/new.png")
    words = [f"weights={tuned}", f"data.root={changed}", *ONE_VIEW, "data.num_workers=0"]
    call("extract", tmp_path / "features", *words)
    assert names_of(tmp_path / "features", "test", changed) == held_out
    assert "a/new.png" in names_of(tmp_path / "features", "train", changed)
    os.remove(changed / min(held_out))
    message = refused("test", tmp_path / "no", *words)
    assert f"1 of the 6 records held out in the training of weights={tuned} are not in {changed}" in message


@pytest.mark.parametrize("how", ["same folder", "list", "links"])
def test_records_trained_on_are_refused_as_test_records(how: str, flat: Path, tuned: Path, tmp_path: Path) -> None:
    splits = DataConfig(root=str(flat), test_fraction=0.3).open_with_test(seed=7)
    trained = [record.path for record in splits.train.records][:3] + [record.path for record in splits.train.records][
        -3:
    ]
    if how == "list":
        rows = [f"{path},{Path(path).parent.name}" for path in trained]
        (tmp_path / "test.csv").write_text("\n".join(["path,label", *rows]))
        data = [f"data.list={tmp_path / 'test.csv'}"]
    elif how == "links":
        for path in trained:
            link = tmp_path / "links" / Path(path).parent.name / Path(path).name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        data = [f"data.root={tmp_path / 'links'}"]
    else:
        train = draw_images(tmp_path / "train", "a/x.png", "b/y.png")
        data = [f"data.root={train}", f"data.test_root={flat}"]
    message = refused("test", tmp_path / "no", f"weights={tuned}", *data, *ONE_VIEW)
    if how == "same folder":
        assert f"weights={tuned} was trained with the labels of 14 of the 20 test records" in message
        assert "a/0.png" in message or "a/1.png" in message
        assert "with the labels of 14" in refused("knn", tmp_path / "no", f"weights={tuned}", *data, *ONE_VIEW)
    else:
        assert "records held out in the training of" in message


def test_weights_of_earlier_versions_do_not_say_what_was_held_out(flat: Path, tuned: Path, tmp_path: Path) -> None:
    content = tensor_file.read(tuned / "classifier.safetensors") | {"format": "eztorch_sce weights 1"}
    del content["data"]
    torch.save(content, tmp_path / "old.pt")
    weights = load_weights(str(tmp_path / "old.pt"))
    assert weights.provenance is None
    assert num_seen(DataConfig(root=str(flat)).open().train.records, weights.provenance) is None
    report = call("test", tmp_path / "test", f"weights={tmp_path / 'old.pt'}", f"data.root={flat}", *ONE_VIEW)
    assert report.protocol["records"] == 4
    assert "the fraction 0.2 held out with seed 0" in report.protocol["data"]


def test_large_data_sets_are_not_remembered(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = DataConfig(root=str(flat)).open_with_test(seed=0)
    assert num_seen(splits.train.records, Provenance.of(splits, labeled=True)) == 16
    monkeypatch.setattr("eztorch_sce.data.sources.provenance.MAX_RECORDS", 19)
    provenance = Provenance.of(splits, labeled=True)
    assert provenance.num_records == 16
    assert num_seen(splits.train.records, provenance) is None


def test_a_classifier_remembers_what_its_backbone_was_pretrained_on(flat: Path, tmp_path: Path) -> None:
    unlabeled = draw_images(tmp_path / "unlabeled", *(f"{number}.png" for number in range(8)))
    call("pretrain", tmp_path / "pretrained", f"data.root={unlabeled}", *PRETRAINING)
    call(
        "finetune", tmp_path / "tuned", f"weights={tmp_path / 'pretrained'}", f"data.root={flat}",
        *TRAINING, *ONE_VIEW, "data.num_workers=0",
    )  # fmt: skip
    provenance = load_weights(str(tmp_path / "tuned")).provenance
    assert [training.labeled for training in provenance.chain()] == [True, False]  # type: ignore[union-attr]
    assert num_seen(DataConfig(root=str(unlabeled)).open().train.records, provenance) == 8
    assert num_seen(DataConfig(root=str(flat)).open().train.records, provenance) == 16


@pytest.mark.parametrize(
    ("val", "expected"),
    [
        (["1.png", "2.png"], "has no labels: put the files in one subfolder per class, or set data.test_list"),
        (["a/1.png", "c/2.png"], "c"),
    ],
)
@pytest.mark.parametrize("command", ["knn", "linear", "retrieve", "svm", "few-shot", "finetune", "test", "pretrain"])
def test_an_unlabeled_test_split_stops_every_command_at_once(
    command: str, val: list[str], expected: str, tuned: Path, tmp_path: Path
) -> None:
    names = [f"train/{name}" for name in flat_names(4)] + [f"val/{name}" for name in val]
    root = draw_images(tmp_path / "data", *names)
    if command == "pretrain":
        words = [*PRETRAINING, "online.every_n_epochs=1"]
    elif command == "finetune":
        words = [*SMALL, *TRAINING]
    else:
        words = [f"weights={tuned}"]
    assert expected in refused(command, tmp_path / "run", f"data.root={root}", *words)


def test_every_record_needs_a_label(tuned: Path, tmp_path: Path) -> None:
    root = draw_images(tmp_path, *flat_names(4), "c/1.png")
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("path,label\na/0.png,a\na/1.png,a\nb/0.png,b\nc/1.png,c\n")
    test.write_text("path,label\na/2.png,a\nb/2.png,\n")
    words = [f"weights={tuned}", f"data.root={root}", f"data.list={train}", f"data.test_list={test}"]
    assert "label" in refused("knn", tmp_path / "run", *words)
    test.write_text("path,label\na/2.png,a\nb/2.png,b\n")
    (tmp_path / "subset.txt").write_text("a/0.png\nc/1.png\n")
    message = refused("knn", tmp_path / "run", *words, f"data.train_subset={tmp_path / 'subset.txt'}")
    assert "1 class of the test split has no train record" in message
    assert ": b; add train records of these classes" in message


def test_extract_divides_labeled_data_and_keeps_unlabeled_data_whole(flat: Path, tuned: Path, tmp_path: Path) -> None:
    words = [f"weights={tuned}", "untrained=true", *ONE_VIEW, "data.num_workers=0"]
    root = draw_images(tmp_path / "data", *(f"other/{name}" for name in flat_names(5, "abc")))
    report = call("extract", tmp_path / "labeled", *words, f"data.root={root / 'other'}")
    assert (report.metrics["train_records"], report.metrics["test_records"]) == (12, 3)
    for command, *settings in (
        ("knn", "k=3"),
        ("linear",),
        ("retrieve",),
        ("few-shot", "ways=2", "shots=1", "queries=1"),
    ):
        call(command, tmp_path / command, f"features={tmp_path / 'labeled'}", *settings)
    unlabeled = draw_images(tmp_path / "unlabeled", "1.png", "2.png")
    report = call("extract", tmp_path / "whole", *words, f"data.root={unlabeled}")
    assert report.metrics["train_records"] == 2
    assert not (tmp_path / "whole/features_test.pt").exists()
