"""Tests of files that occur more than once: in both splits, with two labels, twice in a list, or held out."""

import os
from pathlib import Path

import pytest
from data_sets import touch, write

from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.sources.holdout import holdout
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.media_table import MediaRow, write_table
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.same_files import check_same_files
from eztorch_sce.data.sources.splits import Draw, Splits
from eztorch_sce.errors import ConfigError
from eztorch_sce.types import MediaRecord


def opening_fails(**settings: str | Path) -> str:
    with pytest.raises(ConfigError) as caught:
        DataConfig(**{name: str(value) for name, value in settings.items()}).open()  # type: ignore[arg-type]
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def link(target: Path, name: Path, how: str) -> None:
    """Make `name` another name of a file: a "hard" link, a "symbolic" one, or a link to its "folder"."""
    name.parent.mkdir(parents=True, exist_ok=True)
    if how == "hard":
        os.link(target, name)
    elif how == "symbolic":
        name.symlink_to(target)
    else:
        name.parent.rmdir()
        name.parent.symlink_to(target.parent)


def doctor(folder: Path, digests: dict[str, str]) -> None:
    """Write a table that says which files of a folder have the same content."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    rows = [MediaRow(name, "image", True, [], 9, digests.get(name, ""), 0, 0, 8, 8, "png", 1, 1) for name in names]
    write_table(folder, rows)


@pytest.mark.parametrize("how", ["hard", "symbolic", "folder"])
def test_a_file_in_both_splits_is_refused_whatever_its_name(how: str, tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.png", "train/a/2.png", "train/b/3.png", "val/b/4.png")
    link(root / "train/a/1.png", root / "val/a/1.png", how)
    message = opening_fails(root=root)
    assert message.startswith("2 files are in train" if how == "folder" else "1 file is in train")
    assert f"{root}/val/a/1.png is {root}/train/a/1.png" in message


@pytest.mark.parametrize("how", ["hard", "symbolic", "folder"])
def test_one_file_with_two_labels_is_refused(how: str, tmp_path: Path) -> None:
    root = touch(tmp_path, "cat/1.png", "cow/2.png")
    link(root / "cat/1.png", root / "dog/1.png", how)
    message = opening_fails(root=root)
    assert f"1 file has two labels: {root}/cat/1.png (cat) and {root}/dog/1.png (dog)" in message


@pytest.mark.parametrize("how", ["hard", "symbolic", "folder"])
def test_a_file_that_a_list_names_twice_is_refused(how: str, tmp_path: Path) -> None:
    root = touch(tmp_path, "x/1.png", "x/2.png")
    link(root / "x/1.png", root / "y/1.png", how)
    message = opening_fails(list=write(root / "list.csv", "path,label\nx/1.png,a\nx/2.png,b\ny/1.png,a\n"))
    assert f"list.csv lists 1 file twice: {root}/x/1.png and {root}/y/1.png; remove the repetitions" in message


def test_a_path_with_dots_does_not_hide_a_file(tmp_path: Path) -> None:
    root = touch(tmp_path, "x/1.png", "x/2.png")
    train = write(root / "train.csv", "path,label\nx/1.png,a\nx/2.png,b\n")
    test = write(root / "test.csv", "path,label\nx/../x/1.png,a\n")
    assert opening_fails(list=train, test_list=test).startswith("1 file is in train")


def test_two_labels_in_a_list_are_refused(tmp_path: Path) -> None:
    root = touch(tmp_path, "1.png", "2.png")
    (root / "3.png").symlink_to("1.png")
    assert "has two labels" in opening_fails(list=write(root / "list.csv", "path,label\n1.png,a\n2.png,a\n3.png,b\n"))


@pytest.mark.parametrize("how", ["hard", "symbolic", "content"])
@pytest.mark.parametrize("seed", range(4))
def test_names_of_one_file_in_a_folder_are_held_out_together(how: str, seed: int, tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{name}/{number}.png" for name in "ab" for number in range(4)))
    pairs = [(f"a/{number}.png", f"a/copy-{number}.png") for number in range(4)]
    for original, copy in pairs:
        if how == "content":
            touch(root, copy)
        else:
            link(root / original, root / copy, how)
    if how == "content":
        doctor(root, {name: original for original, copy in pairs for name in (original, copy)})
    splits = DataConfig(root=str(root), test_fraction=0.25).open_with_test(seed)
    held_out = {os.path.relpath(path, root) for path in splits.labeled_test.records.paths()}
    assert all((original in held_out) == (copy in held_out) for original, copy in pairs)
    assert len(held_out) == 3
    what = "contents" if how == "content" else "files"
    assert splits.notes[0].startswith(f"{root}: 4 {what} occur under several names: {root}/a/0.png and")


def test_the_same_content_across_splits_or_with_two_labels_is_refused_or_said(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png", "val/b/4.png")
    doctor(root, {"train/a/1.png": "x", "val/a/3.png": "x"})
    message = opening_fails(root=root)
    assert message.startswith("1 content is in train")
    assert "or set data.duplicates=keep (contents according to " in message
    assert DataConfig(root=str(root), duplicates="keep").open().notes[0].startswith("1 content is in train")
    doctor(root, {"train/a/1.png": "x", "train/b/2.png": "x"})
    assert "1 content has two labels" in opening_fails(root=root)


@pytest.mark.parametrize("how", ["hard", "symbolic"])
def test_links_that_a_table_lists_are_links_and_not_copies(how: str, tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.png", "train/b/2.png", "val/b/4.png")
    link(root / "train/a/1.png", root / "val/a/3.png", how)
    doctor(root, {"train/a/1.png": "x", "val/a/3.png": "x"})
    assert opening_fails(root=root, duplicates="keep").startswith("1 file is in train")


def test_lists_of_a_publisher_may_repeat_a_content(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png")
    doctor(root, {"train/cat/1.png": "x", "test/cat/3.png": "x"})
    assert len(DataConfig(root=str(root), layout="cifar10").open().notes) == 1


def test_a_table_that_is_out_of_date_does_not_hide_links(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png", "val/b/4.png")
    doctor(root, {})
    link(root / "train/a/1.png", root / "val/a/5.png", "hard")
    assert opening_fails(root=root).startswith("1 file is in train")


def segments(*rows: tuple[str, int, float | None, float | None]) -> Manifest:
    records = [MediaRecord(f"/videos/{name}.mp4", label, "video", start, end) for name, label, start, end in rows]
    return Manifest(Records.of(records), ["a", "b"], "list.csv", missing=[])


def test_segments_of_one_video_must_not_overlap_across_splits() -> None:
    train = segments(("1", 0, None, 5), ("1", 1, 5, 9), ("2", 1, 0, 3))
    check_same_files(Splits(train, segments(("1", 0, 9, None), ("2", 0, 3, 4))), [])
    for start, end in ((8, 12), (None, None), (4, 4.5)):
        with pytest.raises(ConfigError, match=r"1 file is in train .*: /videos/1\.mp4;"):
            check_same_files(Splits(train, segments(("1", 0, start, end))), [])
    with pytest.raises(ConfigError, match="1 file has two labels"):
        check_same_files(Splits(segments(("1", 0, 1, 2), ("1", 1, 1, 2)), None), [])


def test_segments_of_one_video_are_held_out_together() -> None:
    whole = segments(*((str(number), label, 2 * label, 2 * label + 2) for number in range(6) for label in (0, 1)))
    same = check_same_files(Splits(whole, None), [])
    assert same.notes == ()
    splits = holdout(Splits(whole, None), Draw(0.3, 0), same.numbers)
    train, test = (set(split.records.paths()) for split in (splits.train, splits.labeled_test))
    assert not train & test
    assert len(test) == 2


def test_a_file_inside_a_frame_folder_that_is_a_record_is_refused(tmp_path: Path) -> None:
    root = touch(tmp_path, "v/1.png", "v/2.png", "w/1.png", "w/2.mp4")
    message = opening_fails(list=write(root / "list.csv", "path,label\nv,a\nw,b\nw/2.mp4,b\n"))
    assert message.startswith(f"1 file lies inside frame folders that are records, too: {root}/w/2.mp4")
