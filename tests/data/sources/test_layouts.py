"""Tests of the layouts that fit any data set."""

from pathlib import Path

import pytest
from data_sets import labels, open_layout, touch, write

from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.sources.layouts import LAYOUTS
from eztorch_sce.errors import ConfigError


@pytest.mark.parametrize("folder", ["val", "valid", "validation", "test", "Test"])
def test_auto_finds_the_split_folders_in_the_root(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, "train/run/a.mp4", "train/swim/b.mp4", f"{folder}/swim/c.mp4", "meta/readme.txt")
    assert labels(open_layout("auto", tmp_path)) == [{"a": 0, "b": 1}, {"c": 1}]


def test_auto_opens_a_train_folder_alone(tmp_path: Path) -> None:
    lone = open_layout("auto", touch(tmp_path, "train/run/a.mp4", "train/swim/b.mp4"))
    assert (lone.train.classes, lone.test) == (["run", "swim"], None)


def test_lists_share_the_root_and_the_classes(tmp_path: Path) -> None:
    touch(tmp_path / "videos", "a.mp4", "b.mp4", "c.mp4")
    train = write(tmp_path / "train.csv", "path,label\na.mp4,swim\nb.mp4,run\n")
    test = write(tmp_path / "test.csv", "path,label\nc.mp4,swim\n")
    for layout in ("auto", "list"):
        splits = open_layout(layout, tmp_path / "videos", list=train, test_list=test)
        assert labels(splits) == [{"a": 1, "b": 0}, {"c": 1}]


def test_the_test_split_may_be_another_folder(tmp_path: Path) -> None:
    touch(tmp_path, "here/run/a.mp4", "here/swim/b.mp4", "there/swim/c.mp4")
    assert labels(open_layout("folder", tmp_path / "here", test_root=tmp_path / "there"))[1] == {"c": 1}


def test_errors_in_both_splits_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_layout("auto", tmp_path / "no_train", test_root=tmp_path / "no_test")
    assert len(caught.value.problems) == 2
    assert "data.root=" in caught.value.problems[0]
    assert "data.test_root=" in caught.value.problems[1]


def test_a_file_in_both_splits_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    listed = write(tmp_path / "list.txt", "a.mp4 0\nb.mp4 1\n")
    with pytest.raises(ConfigError, match="2 files are in train"):
        DataConfig(list=str(listed), test_list=str(listed)).open()


def test_the_error_for_an_unknown_layout_lists_all_layouts() -> None:
    with pytest.raises(ConfigError, match="did you mean ucf101") as caught:
        open_layout("ucf-101", Path("anywhere"))
    assert all(name in str(caught.value) for name in LAYOUTS)


def test_missing_and_unused_settings_are_all_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_layout("ucf101", list=tmp_path / "list.txt", test_root=tmp_path)
    assert [problem.split()[0].split("=")[0] for problem in caught.value.problems] == [
        "data.root",
        "data.list",
        "data.test_root",
    ]
    with pytest.raises(ConfigError, match=r"data\.root is not set"):
        open_layout("auto")


@pytest.mark.real_data
def test_gestures_open_from_their_lists(shared: Path) -> None:
    folder = shared / "data/gestures"
    train, test = open_layout("auto", list=folder / "train.csv", test_list=folder / "test.csv")[:2]
    assert test is not None
    assert (len(train.records), len(test.records), len(train.classes)) == (148, 69, 10)
    assert all(Path(r.path).parent.name == train.classes[r.label or 0] for r in [*train.records, *test.records])
