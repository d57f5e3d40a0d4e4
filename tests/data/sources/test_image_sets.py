"""Tests of the layouts of image data sets."""

import re
from pathlib import Path

import pytest
from data_sets import class_names, open_layout, touch

from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import ConfigError

WNIDS = ("n01440764", "n01443537", "n01484850", "n01491361")


def imagenet(root: Path) -> Path:
    train = [f"train/{wnid}/{wnid}_{number}.JPEG" for wnid in WNIDS for number in (10, 26)]
    val = [f"val/{wnid}/ILSVRC2012_val_{number:08d}.JPEG" for number, wnid in enumerate(WNIDS)]
    return touch(root, *train, *val)


def test_imagenet_opens_its_class_folders(tmp_path: Path) -> None:
    splits = open_layout("imagenet", imagenet(tmp_path))
    train, test = class_names(splits)
    assert splits.train.classes == list(WNIDS)
    assert len(train) == 8
    assert all(name.startswith(wnid) for name, wnid in train.items())
    assert test == {f"ILSVRC2012_val_{number:08d}": wnid for number, wnid in enumerate(WNIDS)}


def test_unsorted_validation_images_of_imagenet_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/{wnid}/{wnid}_1.JPEG" for wnid in WNIDS), "val/ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(ConfigError, match=r"val: its images are not in class folders; sort them"):
        open_layout("imagenet", tmp_path)


def test_a_missing_split_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, f"train/{WNIDS[0]}/a.JPEG", "devkit/readme.txt")
    with pytest.raises(ConfigError, match=r"must contain the folders train and val \(or test\), not devkit, train"):
        open_layout("imagenet", tmp_path)
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        open_layout("cifar10", tmp_path / "nowhere")


@pytest.mark.parametrize("as_folder", [False, True])
def test_imagenet100_keeps_the_listed_classes_in_both_splits(tmp_path: Path, as_folder: bool) -> None:
    (tmp_path / "lists").mkdir()
    listed = tmp_path / "lists" / "imagenet100.txt"
    listed.write_text(f"{WNIDS[3]}\n{WNIDS[1]}\n\n")  # published in no particular order
    root = imagenet(tmp_path / "root")
    splits = open_layout("imagenet100", root, annotations=listed.parent if as_folder else listed)
    train, test = class_names(splits)
    assert splits.test is not None
    assert splits.train.classes == splits.test.classes == [WNIDS[1], WNIDS[3]]
    assert sorted(train) == [f"{wnid}_{number}" for wnid in (WNIDS[1], WNIDS[3]) for number in (10, 26)]
    assert all(name.startswith(wnid) for name, wnid in train.items())
    assert test == {"ILSVRC2012_val_00000001": WNIDS[1], "ILSVRC2012_val_00000003": WNIDS[3]}
    assert f"only the 2 classes in data.annotations={listed}" in splits.train.source


def test_imagenet100_needs_a_valid_list_of_classes(tmp_path: Path) -> None:
    root, listed = imagenet(tmp_path / "root"), tmp_path / "list.txt"
    with pytest.raises(ConfigError, match=r"data\.annotations is not set.*one wnid per line"):
        open_layout("imagenet100", root)
    with pytest.raises(ConfigError, match=r"nowhere must be a text file or a folder with one, but contains none"):
        open_layout("imagenet100", root, annotations=tmp_path / "nowhere")
    for text, message in (
        (f"{WNIDS[0]}\nn99999999\nn99999998\n", "2 of 3 classes are not in .*: n99999998, n99999999; "),
        (f"{WNIDS[0]}\n{WNIDS[0]}\n", f"classes named twice: {WNIDS[0]}"),
        ("\n", "names no class"),
    ):
        listed.write_text(text)
        with pytest.raises(ConfigError, match=re.escape(str(listed)) + ".*" + message):
            open_layout("imagenet100", root, annotations=listed)
    touch(tmp_path / "lists", "a.txt", "b.txt")
    with pytest.raises(ConfigError, match=r"contains several: a\.txt, b\.txt"):
        open_layout("imagenet100", root, annotations=tmp_path / "lists")


def tiny_imagenet(root: Path) -> Path:
    train = [f"train/{wnid}/images/{wnid}_{number}.JPEG" for wnid in WNIDS[:2] for number in range(3)]
    touch(root, *train, *(f"train/{wnid}/{wnid}_boxes.txt" for wnid in WNIDS[:2]))
    touch(root, "val/images/val_0.JPEG", "val/images/val_1.JPEG", "test/images/test_0.JPEG")
    lines = f"val_0.JPEG\t{WNIDS[1]}\t0\t32\t44\t62\nval_1.JPEG\t{WNIDS[0]}\t5\t0\t57\t62\n"
    (root / "val" / "val_annotations.txt").write_text(lines)
    return root


def test_tiny_imagenet_is_tested_on_its_annotated_images(tmp_path: Path) -> None:
    splits = open_layout("tiny_imagenet", tiny_imagenet(tmp_path))
    train, test = class_names(splits)
    assert test == {"val_0": WNIDS[1], "val_1": WNIDS[0]}
    assert train == {f"{wnid}_{number}": wnid for wnid in WNIDS[:2] for number in range(3)}
    assert {record.kind for record in splits.train.records} == {"image"}


def test_missing_images_and_bad_annotations_of_tiny_imagenet_are_errors(tmp_path: Path) -> None:
    root = tiny_imagenet(tmp_path)
    (root / "val/images/val_1.JPEG").unlink()
    with pytest.raises(ConfigError, match=r"1 of 2 files do not exist .*val_1\.JPEG"):
        open_layout("tiny_imagenet", root)
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\n")
    with pytest.raises(ConfigError, match=r"val_annotations\.txt: lines not in the publisher's format: val_0\.JPEG"):
        open_layout("tiny_imagenet", root)


def test_tiny_imagenet_may_be_sorted_into_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/{wnid}/{split}_{wnid}.JPEG" for split in ("train", "val") for wnid in WNIDS[:2]))
    assert class_names(open_layout("tiny_imagenet", tmp_path))[1] == {f"val_{wnid}": wnid for wnid in WNIDS[:2]}


def test_a_file_in_both_splits_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/a.png", "train/dog/b.png")
    (tmp_path / "test").symlink_to(tmp_path / "train")
    with pytest.raises(ConfigError, match=r"2 files are in train .*test/cat/a\.png"):
        DataConfig(root=str(tmp_path), layout="cifar10").open()
