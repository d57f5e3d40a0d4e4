"""Tests of `data check` on official lists and tiny trees, complete and incomplete."""

from pathlib import Path

import pytest
from data_sets import touch

from eztorch_sce import cli
from eztorch_sce.curation.check import Count, check
from eztorch_sce.curation.settings import CheckConfig
from eztorch_sce.data.sources.layouts import open_splits
from eztorch_sce.data.sources.published import published
from eztorch_sce.data.sources.splits import Location
from eztorch_sce.errors import ConfigError


def run(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "check", *map(str, words)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def ucf101(root: Path, lists: Path) -> Path:
    lines = [line for name in ("train", "test") for line in (lists / f"{name}list01.txt").read_text().splitlines()]
    return touch(root, *(line.split()[0] for line in lines))


def hmdb51(root: Path, lists: Path) -> Path:
    for file in lists.glob("*_test_split1.txt"):
        action = file.name.removesuffix("_test_split1.txt")
        touch(root, *(f"{action}/{line.split()[0]}" for line in file.read_text().splitlines() if line.strip()))
    return root


@pytest.mark.real_data
def test_ucf101_matches_its_official_lists(tmp_path: Path, shared: Path) -> None:
    lists = shared / "data/annotations/ucf101"
    root = ucf101(tmp_path, lists)
    for split, train, test in ((1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)):
        result = check("ucf101", str(root), CheckConfig(annotations=str(lists), split=split))
        assert result.counts == [
            Count("train", "files", train, train),
            Count("train", "classes", 101, 101),
            Count("test", "files", test, test),
            Count("test", "classes", 101, 101),
        ]
        assert result.complete


@pytest.mark.real_data
def test_hmdb51_matches_its_official_lists(tmp_path: Path, shared: Path) -> None:
    lists = shared / "data/annotations/hmdb51"
    root = hmdb51(tmp_path, lists)
    for split in (1, 2, 3):
        result = check("hmdb51", str(root), CheckConfig(annotations=str(lists), split=split))
        assert [(count.expected, count.on_disk) for count in result.counts] == [
            (3570, 3570),
            (51, 51),
            (1530, 1530),
            (51, 51),
        ]
        assert result.complete


@pytest.mark.real_data
def test_missing_files_are_listed(tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = shared / "data/annotations/ucf101"
    root = ucf101(tmp_path / "root", lists)
    assert run("ucf101", root, f"annotations={lists}") == 0
    removed = sorted((root / "Archery").glob("*_g01_*"))  # all of them in the test split
    for file in removed:
        file.unlink()
    (root / "YoYo/v_YoYo_g08_c01.avi").unlink()
    file = tmp_path / "missing.txt"
    assert run("ucf101", root, f"data.annotations={lists}", f"missing={file}", "data.split=1") == 1
    assert file.read_text().splitlines() == [
        "train: YoYo/v_YoYo_g08_c01",
        *(f"test: Archery/{path.stem}" for path in removed),
    ]
    output = capsys.readouterr().out
    assert "9536" in output
    assert "missing: train: YoYo/v_YoYo_g08_c01" in output


CLASSES = [f"n{number:08d}" for number in range(3)]


def tree(root: Path) -> Path:
    names = [
        f"{split}/{name}/{split}_{name}_{i}.JPEG" for split in ("train", "val") for name in CLASSES for i in (1, 2)
    ]
    return touch(root, *names)


def test_classes_with_too_few_files_are_named(tmp_path: Path) -> None:
    root = tree(tmp_path)
    for file in (root / "val" / CLASSES[1]).iterdir():
        file.unlink()
    result = check("imagenet", str(root))
    assert [(count.split, count.unit, count.expected, count.on_disk) for count in result.counts] == [
        ("train", "files", 1281167, 6),
        ("train", "classes", 1000, 3),
        ("test", "files", 50000, 4),
        ("test", "classes", 1000, 2),
    ]
    assert result.missing == [
        "train: 1281161 more files, which no list names",
        f"test: {CLASSES[0]}: 48 of 50 files",
        f"test: {CLASSES[1]}: 50 of 50 files",
        f"test: {CLASSES[2]}: 48 of 50 files",
        "test: 49850 more files, which no list names",
    ]


def test_a_class_in_only_one_split_is_reported(tmp_path: Path) -> None:
    root = touch(tree(tmp_path), "val/n00000003/x.JPEG")
    with pytest.raises(ConfigError, match="class 'n00000003' is not in the train split"):  # training refuses it
        open_splits(Location(root=str(root)), "imagenet")
    result = check("imagenet", str(root))
    assert "train: n00000003: all files" in result.missing
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join([*CLASSES, "n00000009"]))
    result = check("imagenet100", str(root), CheckConfig(annotations=str(listed)))
    assert "train: n00000009: all files" in result.missing
    assert result.counts[0] == Count("train", "files", None, 6)
    assert result.counts[1] == Count("train", "classes", 100, 3)


def test_kinetics_is_compared_with_its_lists(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "train/a/1.mp4", "val/a/2.mp4")
    header = "label,youtube_id,time_start,time_end,split\n"
    (tmp_path / "train.csv").write_text(header + "a,1,0,10,train\nb,3,0,10,train\n")
    (tmp_path / "val.csv").write_text(header + "b,4,0,10,val\n")
    result = check("kinetics600", str(root), CheckConfig(annotations=str(tmp_path)))
    assert result.counts == [
        Count("train", "files", 2, 1),
        Count("train", "classes", 600, 1),
        Count("test", "files", 1, 0),
        Count("test", "classes", 600, 0),
    ]
    assert result.missing == ["train: b/3_000000_000010", "test: b/4_000000_000010"]
    result = check("kinetics600", str(touch(root, "train/b/3.mp4")))  # without lists, the counts of the paper apply
    assert result.counts[0] == Count("train", "files", 392622, 2)
    assert result.missing == [
        "train: 392620 more files, which no list names",
        "test: a: 49 of 50 files",
        "test: b: 50 of 50 files",
        "test: 29900 more files, which no list names",
    ]


@pytest.mark.real_data
def test_the_list_of_kinetics_400_overrides_the_count_of_its_paper(tmp_path: Path, shared: Path) -> None:
    train_list = tmp_path / "train.csv"
    test_list = shared / "data/annotations/kinetics/kinetics-400_val.csv"
    classes = (shared / "data/annotations/kinetics/label_map_k400.txt").read_text().splitlines()
    rows = "".join(f'"{name}",x{number},0,10,train\n' for number, name in enumerate(classes))
    train_list.write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    root = touch(tmp_path / "root", "train/x0_000000_000010.mp4", "val/0wR5jVB-WPk_000417_000427.mp4")
    result = check("kinetics400", str(root), CheckConfig(list=str(train_list), test_list=str(test_list)))
    assert result.counts[2:] == [Count("test", "files", 19906, 1), Count("test", "classes", 400, 1)]
    assert len(result.missing) == 399 + 19905


def test_a_plain_folder_has_no_published_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("folder", touch(tmp_path, "a/1.mp4", "b/2.mp4")) == 0
    assert "no count is published; set annotations=FOLDER" in capsys.readouterr().out


def test_missing_files_of_a_list_and_unexpected_classes_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "list.csv").write_text("path,label\na.mp4,x\nb.mp4,y\ngone.mp4,x\n")
    assert run("list", tmp_path, f"list={tmp_path / 'list.csv'}") == 1
    assert "missing: train: x/gone.mp4" in capsys.readouterr().out
    many = touch(tmp_path / "cifar", "train/cat/0.png", *(f"test/{name}/0.png" for name in "abcdefghijk"))
    assert run("cifar10", many) == 1
    assert "test: 1 more classes than expected" in capsys.readouterr().out


def test_mistakes_make_the_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ucf11", tmp_path) == 2
    assert "did you mean ucf101" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"data\.split=4"):
        check("ucf101", str(tmp_path), CheckConfig(split=4))


def test_the_published_counts_add_up() -> None:
    for layout in ("cifar10", "cifar100", "stl10", "tiny_imagenet", "hmdb51"):
        row = published(layout, 1)
        assert row.classes is not None
        assert row.train_each is not None
        assert row.test_each is not None
        assert (row.train, row.test) == (row.classes * row.train_each, row.classes * row.test_each)
    # Kay et al. count 306,245 clips of Kinetics-400, Carreira et al. 650,317 of Kinetics-700. Each class has 50
    # for validation and 100 for testing; the labels of the latter are not public.
    for layout, clips in (("kinetics400", 306245), ("kinetics700", 650317)):
        row = published(layout, 1)
        assert row.classes is not None
        assert (row.train, row.test) == (clips - 150 * row.classes, 50 * row.classes)
    rows = [published("ucf101", split) for split in (1, 2, 3)]
    assert {(row.train or 0) + (row.test or 0) for row in rows} == {13320}
