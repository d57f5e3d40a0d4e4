"""Tests of labels in lists: numbers and names keep their meaning from the train list to the test list."""

from pathlib import Path

import pytest
from data_sets import open_layout, touch, write

from eztorch_sce.data.sources.list_file import from_list
from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.errors import ConfigError


def both(folder: Path, train: str, test: str) -> Splits:
    """Open a train list of the files a, b, c, ... and a test list of v, w, x, ..."""
    touch(folder, *(f"{letter}.mp4" for letter in "abcdevwxyz"))
    lists = write(folder / "train.csv", train), write(folder / "test.csv", test)
    return open_layout("list", list=lists[0], test_list=lists[1])


def names(splits: Splits) -> tuple[list[str], list[str]]:
    """Return the class name of each record of both splits."""
    assert splits.test is not None
    assert splits.test.classes == splits.train.classes
    opened = splits.train, splits.test
    train, test = ([split.classes[label] for label in split.records.labels.tolist()] for split in opened)
    return train, test


@pytest.mark.parametrize("numbers", [(0, 1, 2), (1, 2, 3), (0, 5, 17), (7, 9, 30)])
def test_numbers_that_start_anywhere_or_have_gaps_agree(tmp_path: Path, numbers: tuple[int, int, int]) -> None:
    first, second, third = numbers
    train = f"a.mp4 {third}\nb.mp4 {first}\nc.mp4 {second}\n"
    splits = both(tmp_path, train, f"v.mp4 {second}\nw.mp4 {third}\n")
    assert names(splits) == ([str(third), str(first), str(second)], [str(second), str(third)])
    assert splits.train.records.labels.tolist() == [2, 0, 1]


def test_numbers_that_start_differently_are_an_error_that_shows_both_sets(tmp_path: Path) -> None:
    train, test = "a.mp4 1\nb.mp4 2\nc.mp4 3\n", "v.mp4 0\nw.mp4 1\nx.mp4 2\n"
    with pytest.raises(ConfigError, match=r"test\.csv has the labels 0 to 2, but the train split has 1 to 3"):
        both(tmp_path, train, test)


def test_a_number_in_a_gap_is_an_error_that_shows_both_sets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has the labels 1, 4, but the train split has 0, 4, 9"):
        both(tmp_path, "a.mp4 0\nb.mp4 4\nc.mp4 9\n", "v.mp4 1\nw.mp4 4\n")


def test_numbers_alone_mean_the_classes_that_the_train_list_numbers_so(tmp_path: Path) -> None:
    train = "path,label,class\na.mp4,1,swim\nb.mp4,2,run\nc.mp4,5,jump\n"  # neither from 0 nor sorted by name
    assert names(both(tmp_path, train, "v.mp4 2\nw.mp4 5\nx.mp4 1\n"))[1] == ["run", "jump", "swim"]
    assert names(both(tmp_path, train, "path,class\nv.mp4,jump\n"))[1] == ["jump"]
    with pytest.raises(ConfigError, match="has the labels 0 to 2, but the train split has 1, 2, 5"):
        both(tmp_path, train, "v.mp4 0\nw.mp4 1\nx.mp4 2\n")


def test_a_class_with_another_number_than_in_the_train_list_is_an_error(tmp_path: Path) -> None:
    train = "path,label,class\na.mp4,0,run\nb.mp4,1,swim\n"
    with pytest.raises(ConfigError, match="label 0 is 'swim', but 'run' in the train split"):
        both(tmp_path, train, "path,label,class\nv.mp4,0,swim\nw.mp4,1,run\n")


def test_numbers_count_if_only_the_test_list_has_names(tmp_path: Path) -> None:
    splits = both(tmp_path, "a.mp4 3\nb.mp4 8\n", "path,label,class\nv.mp4,8,swim\nw.mp4,3,run\n")
    assert names(splits) == (["3", "8"], ["8", "3"])


def test_numbers_for_named_classes_are_positions_and_that_is_said(tmp_path: Path) -> None:
    splits = both(tmp_path, "a.mp4 run\nb.mp4 swim\nc.mp4 jump\n", "v.mp4 0\nw.mp4 2\n")
    assert names(splits)[1] == ["jump", "swim"]
    assert splits.test is not None
    assert (
        "labels are numbers of the sorted classes of the train split: 0 is jump, 1 is run, 2 is swim"
        in (splits.test.notes[0])
    )
    with pytest.raises(ConfigError, match="has the labels 1 to 3, but the train split has 3 classes, numbered from 0"):
        both(tmp_path, "a.mp4 run\nb.mp4 swim\nc.mp4 jump\n", "v.mp4 1\nw.mp4 2\nx.mp4 3\n")


def test_whole_numbers_may_be_written_as_pandas_does(tmp_path: Path) -> None:
    splits = both(tmp_path, "path,label\na.mp4,1.0\nb.mp4,10.0\nc.mp4,2.0\n", "path,label\nv.mp4,10\nw.mp4,02\n")
    assert (splits.train.classes, names(splits)[1]) == (["1", "2", "10"], ["10", "2"])
    with pytest.raises(ConfigError, match=r"line 2: label '1\.5' must be a whole number"):
        both(tmp_path, "path,label\na.mp4,1.5\n", "v.mp4 1\n")


def test_names_match_in_any_unicode_normalization(tmp_path: Path) -> None:
    splits = both(tmp_path, "a.mp4,cafe\u0301\nb.mp4,tea\nc.mp4,caf\u00e9\n", "v.mp4,caf\u00e9\nw.mp4,tea\n")
    assert names(splits) == (["caf\u00e9", "tea", "caf\u00e9"], ["caf\u00e9", "tea"])


def test_names_that_differ_in_case_are_errors_that_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the classes 'Run' and 'run' differ only in upper and lower case"):
        both(tmp_path, "a.mp4,Run\nb.mp4,run\n", "v.mp4,run\n")
    with pytest.raises(ConfigError, match=r"class 'run' .* has 'Run', which differs only in upper and lower case"):
        both(tmp_path, "a.mp4,Run\nb.mp4,Swim\n", "v.mp4,run\n")
    assert names(both(tmp_path, "a.mp4,A\nb.mp4,a\n", "v.mp4,a\n"))[1] == ["a"]  # letters are classes of handwriting


def test_an_unlabeled_list_has_no_classes(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    manifest = from_list(write(tmp_path / "list.csv", "path,label\na.mp4,\nb.mp4,\n"))
    assert (manifest.classes, [record.label for record in manifest.records]) == ([], [None, None])
