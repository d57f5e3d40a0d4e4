"""Tests of the names of split folders."""

from pathlib import Path

import pytest
from data_sets import labels, open_layout, summary, touch

from eztorch_sce.errors import ConfigError


def _labeled(*folders: str) -> list[str]:
    return [f"{folder}/{name}/{folder}.mp4" for folder in folders for name in ("run", "swim")]


@pytest.mark.parametrize("train", ["train", "Training", "TRAIN"])
@pytest.mark.parametrize("test", ["val", "Valid", "validation", "eval", "evaluation", "DEV", "test", "testing"])
def test_split_names_are_splits_in_any_case(tmp_path: Path, train: str, test: str) -> None:
    splits = open_layout("auto", touch(tmp_path, *_labeled(train, test)))
    assert labels(splits) == [{train: 1}, {test: 1}]
    assert splits.train.classes == ["run", "swim"]


@pytest.mark.parametrize(
    "names",
    [("train", "training", "val"), ("Train", "train"), ("train", "val", "validation"), ("train", "val", "dev")],
)
def test_two_names_for_one_split_are_an_error_with_the_choices(tmp_path: Path, names: tuple[str, ...]) -> None:
    touch(tmp_path, *_labeled(*names))
    with pytest.raises(ConfigError, match="two names for one split") as caught:
        open_layout("auto", tmp_path)
    setting = "data.root" if names[0].lower() == names[1].lower()[:5] else "data.test_root"
    assert str(caught.value).count(f"{setting}={tmp_path}/") == 2


def test_a_test_split_that_is_set_settles_two_names_for_it(tmp_path: Path) -> None:
    touch(tmp_path, *_labeled("train", "val", "validation"))
    assert labels(open_layout("auto", tmp_path, test_root=tmp_path / "validation"))[1] == {"validation": 1}


def test_val_beside_test_is_an_error_with_the_choices(tmp_path: Path) -> None:
    touch(tmp_path, *_labeled("train", "val", "test"))
    with pytest.raises(ConfigError, match=r"two test splits, val and test; set data\.test_root=.*/val or .*/test$"):
        open_layout("auto", tmp_path)
    assert labels(open_layout("auto", tmp_path, test_root=tmp_path / "test"))[1] == {"test": 1}


@pytest.mark.parametrize(("split", "other"), [("val", "test"), ("test", "val")])
def test_of_val_and_test_the_one_with_classes_is_the_test_split(tmp_path: Path, split: str, other: str) -> None:
    splits = open_layout("auto", touch(tmp_path, *_labeled("train", split), f"{other}/a.mp4"))
    assert labels(splits)[1] == {split: 1}
    assert splits.notes == (f"test split: {split}; {other} is not used, as it has no class folders",)


def test_known_layouts_test_on_val_and_accept_other_folders(tmp_path: Path) -> None:
    images = [f"{split}/{wnid}/{split}.JPEG" for split in ("train", "val", "test", "extra") for wnid in ("n1", "n2")]
    assert labels(open_layout("imagenet", touch(tmp_path / "imagenet", *images))) == [{"train": 1}, {"val": 1}]
    kinetics = open_layout("kinetics400", touch(tmp_path / "k400", *_labeled("train", "val", "test")))
    assert labels(kinetics) == [{"train": 1}, {"val": 1}]


def test_an_unknown_folder_beside_train_is_an_error_with_the_choices(tmp_path: Path) -> None:
    touch(tmp_path, *_labeled("train", "val", "extra"), "annotations/labels.json")
    with pytest.raises(ConfigError, match=r"has train and val, but also extra, which .*test_root=.*val.*layout=folder"):
        open_layout("auto", tmp_path)
    assert open_layout("folder", tmp_path).train.classes == ["extra", "train", "val"]


@pytest.mark.parametrize("name", ["runs/mine", "mine", "test"])
def test_the_images_of_a_run_beside_the_data_are_no_data(tmp_path: Path, name: str) -> None:
    run = [f"{name}/{file}" for file in ("config.yaml", "versions.json", "views_tiles.webp")]
    splits = open_layout("auto", touch(tmp_path / "splits", *_labeled("train", "val"), *run))
    assert labels(splits) == [{"train": 1}, {"val": 1}]
    classes = open_layout("auto", touch(tmp_path / "classes", "run/a.png", "swim/b.png", *run)).train
    assert (classes.classes, classes.ignored) == (["run", "swim"], {"run directories": 1})


def test_a_class_called_train_needs_the_layout(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.mp4", "bus/b.mp4")  # vehicles, not splits
    with pytest.raises(ConfigError, match=r"also bus.*data\.layout=folder"):
        open_layout("auto", tmp_path)
    manifest = open_layout("folder", tmp_path).train
    assert manifest.classes == ["bus", "train"]
    assert manifest.notes == ["taken as classes: train"]


@pytest.mark.parametrize("others", [(), ("run", "swim"), ("zoo/testing",)])
def test_a_test_folder_without_train_is_not_a_class(tmp_path: Path, others: tuple[str, ...]) -> None:
    touch(tmp_path, "val/run/a.mp4", "val/swim/b.mp4", *(f"{name}/c.mp4" for name in others))
    with pytest.raises(ConfigError, match=r"has val.*no folder train.*data\.root=.*/val.*data\.layout=folder"):
        open_layout("auto", tmp_path)


def test_files_beside_the_splits_are_counted(tmp_path: Path) -> None:
    splits = open_layout("auto", touch(tmp_path, *_labeled("train", "val"), "sample.mp4", "labels.csv", "LICENSE"))
    assert summary(splits.train, tmp_path)[0] == ("train/run/train.mp4", 0, "video")
    assert splits.train.ignored == {".mp4 beside the splits": 1, ".csv": 1, "without suffix": 1}


@pytest.mark.parametrize("names", [("train2017", "val2017"), ("images_train", "images_test"), ("Train set", "Dev set")])
def test_names_that_look_like_splits_are_an_error_with_the_choices(tmp_path: Path, names: tuple[str, str]) -> None:
    touch(tmp_path, *_labeled(*names))
    with pytest.raises(
        ConfigError, match=f"look like splits; set '?data.root=.*{names[0]}'? '?data.test_root=.*{names[1]}"
    ):
        open_layout("auto", tmp_path)


def test_class_names_may_contain_the_words_of_splits(tmp_path: Path) -> None:
    names = ["train_station", "test_tube", "bakery", "barn", "bench"]
    assert open_layout("auto", touch(tmp_path, *(f"{name}/a.mp4" for name in names))).train.classes == sorted(names)


def test_splits_inside_of_a_single_folder_are_an_error_with_the_cure(tmp_path: Path) -> None:
    touch(tmp_path, *_labeled("data/train", "data/test"))
    with pytest.raises(ConfigError, match=r"data holds the splits test, train; set data\.root=.*/data to open them"):
        open_layout("auto", tmp_path)


def test_splits_inside_of_class_folders_are_an_error_with_the_cure(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{split}/a.mp4" for name in ("bottle", "cable") for split in ("train", "test")))
    with pytest.raises(ConfigError, match=r"bottle holds the splits test, train; .*lists, or set data\.layout=folder"):
        open_layout("auto", tmp_path)
    assert open_layout("folder", tmp_path).train.classes == ["bottle", "cable"]


def test_a_test_root_that_holds_splits_is_an_error_with_the_cure(tmp_path: Path) -> None:
    touch(tmp_path / "here", "a.mp4", "b.mp4")
    touch(tmp_path / "there", *_labeled("train", "val"))
    with pytest.raises(ConfigError, match=r"holds the splits train, val; set data\.test_root to one of them"):
        open_layout("auto", tmp_path / "here", test_root=tmp_path / "there")
