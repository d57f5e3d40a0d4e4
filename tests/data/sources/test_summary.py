"""Tests of the lines that say what was understood of the data."""

from pathlib import Path

import pytest
import torch
from data_sets import touch, write

from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.splits import Draw, Splits
from eztorch_sce.data.sources.summary import DataSummary
from eztorch_sce.types import FeatureBank, MediaRecord


def names(*counts: tuple[str, int]) -> list[str]:
    return [f"{folder}/{folder.split('/')[-1]}{number}x.mp4" for folder, count in counts for number in range(count)]


def lines_of(**settings: str) -> list[str]:
    return DataSummary.of(DataConfig(**settings).open_for_pretraining(seed=0)).lines()  # type: ignore[arg-type]


def test_folders_of_splits_are_summarized(tmp_path: Path) -> None:
    touch(tmp_path, *names(("train/a", 3), ("train/b", 5), ("train/c", 4), ("train/d", 4), ("val/a", 1), ("val/d", 2)))
    assert lines_of(root=str(tmp_path)) == [
        "data: train 16 videos, test 3 videos",
        "classes: 4 (a, b, c and 1 more), 3 train records in the smallest (a) to 5 in the largest (b)",
        "split: folders train and val",
    ]


def test_a_class_folder_says_what_is_held_out(tmp_path: Path) -> None:
    touch(tmp_path, *names(("a", 5), ("b", 5)))
    assert lines_of(root=str(tmp_path)) == [
        "data: train 8 videos, test 2 videos",
        "classes: 2 (a, b), each with 4 train records",
        "split: 0.2 of each class held out, seed 0",
    ]


def test_unlabeled_records_are_all_seen_by_pretraining(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    assert lines_of(root=str(tmp_path))[:2] == ["data: train 3 videos", "classes: none, the records have no labels"]


def test_lists_are_named_as_the_origin_of_the_split(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "c.png")
    lists = [write(tmp_path / f"{name}.csv", f"path,label\n{rows}") for name, rows in
             (("first", "a.png,x\nb.png,y\n"), ("second", "c.png,x\n"))]  # fmt: skip
    lines = lines_of(root=str(tmp_path), list=str(lists[0]), test_list=str(lists[1]))
    assert lines[0] == "data: train 2 images, test 1 image"
    assert lines[2] == "split: lists first.csv and second.csv"


def test_there_are_at_most_four_readable_lines(tmp_path: Path) -> None:
    classes = [f"{letter * 90}" for letter in "abcdef"]
    records = Records.of(MediaRecord(f"/{number}.mp4", number % 6, "video") for number in range(30))
    ignored = {f".suffix{number}": 3 + number for number in range(50)} | {"column 'start'": 1}
    manifest = Manifest(records, classes, "source", notes=["taken as images: a, b"] * 9, ignored=ignored)
    summary = DataSummary.of(Splits(manifest, manifest, "origin " * 40))
    for lines in (summary.lines(), summary.lines(online=summary)):
        assert len(lines) == 4
        assert all(len(line) <= 160 for line in lines)
    assert summary.lines()[3].startswith("ignored: 104 .suffix49, 102 .suffix48")
    assert summary.ignored["column 'start'"] == 2
    assert summary.notes == ["taken as images: a, b"]


def test_what_a_held_out_split_inherits_is_counted_once() -> None:
    records = Records.of(MediaRecord(f"/{number}.mp4", 0, "video") for number in range(4))
    manifest = Manifest(records, ["a"], "source", ignored={".heic": 7, "column 'start'": 1}, notes=["a note"])
    splits = Splits(manifest, manifest, "held out")
    assert DataSummary.of(splits).lines()[3] == "ignored: 14 .heic, column 'start'; note: a note"
    assert DataSummary.of(splits._replace(draw=Draw(0.2, seed=0))).ignored == manifest.ignored


@pytest.mark.parametrize("stored", [True, False])
def test_features_of_any_version_are_summarized(stored: bool) -> None:
    bank = FeatureBank(torch.zeros(3, 2), torch.tensor([0, 1, 1]), ["", "", ""], ["a", "b"])
    records = Records.of(MediaRecord(f"/{number}.mp4", 0, "video") for number in range(4))
    card = DataSummary.of(Splits(Manifest(records, ["c"], "source"), None, "origin")).card()
    bank.protocol = {"data_summary": card} if stored else {}
    lines = DataSummary.of_features(bank, bank).lines()
    assert lines[0] == ("data: train 4 videos" if stored else "data: train 3 records, test 3 records")
    assert lines[1].startswith("classes: 1 (c)" if stored else "classes: 2 (a, b)")
