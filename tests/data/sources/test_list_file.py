"""Tests of list files."""

from pathlib import Path

import pytest
from data_sets import summary, touch, write

from eztorch_sce.data.sources.list_file import from_list
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import Records
from eztorch_sce.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected", "classes"),
    [
        ("path,class,label\na b.mp4,swim,1\nc.mp4,run,0\n", [1, 0], ["run", "swim"]),  # numbers order the names
        ("path,class,label\na b.mp4,swim,0\nc.mp4,run,1\n", [0, 1], ["swim", "run"]),
        ("\ufeffpath,label\r\na b.mp4,swim\r\nc.mp4,run\r\n", [1, 0], ["run", "swim"]),
        ("label;path\n10;a b.mp4\n9;c.mp4\n", [1, 0], ["9", "10"]),
        ('path\n"a b.mp4"\nc.mp4\n', [None, None], []),
        ("a b.mp4 1\nc.mp4 0\n", [1, 0], ["0", "1"]),
        ("a b.mp4 101\n\nc.mp4 1\n", [1, 0], ["1", "101"]),
        ("a b.mp4,arm wrestling\nc.mp4,abseiling\n", [1, 0], ["abseiling", "arm wrestling"]),
        ("a b.mp4\tSwim\nc.mp4\tRun\n", [1, 0], ["Run", "Swim"]),
        ("a b.mp4\nc.mp4", [None, None], []),
    ],
)
def test_all_common_forms_of_lists_are_read(
    tmp_path: Path, text: str, expected: list[int | None], classes: list[str]
) -> None:
    touch(tmp_path, "a b.mp4", "c.mp4")
    manifest = from_list(write(tmp_path / "list.txt", text))
    assert summary(manifest, tmp_path) == [("a b.mp4", expected[0], "video"), ("c.mp4", expected[1], "video")]
    assert manifest.classes == classes


def test_listed_files_may_be_folders_images_or_of_any_suffix(tmp_path: Path) -> None:
    touch(tmp_path / "data", "frames/1.jpg", "image.png", "now.mp4", "plain")
    listed = write(tmp_path / "list.csv", f"path\nframes\nimage.png\nnow.mp4\n{tmp_path}/data/plain\n")
    records = from_list(listed, root=tmp_path / "data").records
    assert [(Path(record.path).name, record.kind) for record in records] == [
        ("frames", "frames"),
        ("image.png", "image"),
        ("now.mp4", "video"),
        ("plain", "video"),
    ]


def test_all_errors_in_a_list_are_reported_at_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    listed = write(tmp_path / "list.csv", "path,label\na.mp4,0\ngone.mp4,1\n,1\nlost.mp4,one\nb.mp4,-1\nc.mp4,\n")
    with pytest.raises(ConfigError) as caught:
        from_list(listed)
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    assert "line 5: label 'one'" in text
    assert "line 6: label '-1'" in text
    assert "line 7: c.mp4 has no label" in text
    assert "3 of 6 files do not exist: gone.mp4" in text
    assert "set data.root" in text


def test_a_number_with_two_names_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(ConfigError, match="line 3: label 0 is 'swim' here but 'run' on an earlier line"):
        from_list(write(tmp_path / "1.csv", "path,class,label\na.mp4,run,0\nb.mp4,swim,0\n"))
    with pytest.raises(ConfigError, match="a class name has several numbers: 'run' has 0 and 1"):
        from_list(write(tmp_path / "2.csv", "path,class,label\na.mp4,run,0\nb.mp4,run,1\n"))


@pytest.mark.parametrize("text", ["path,label\na.mp4,swim\n", "a.mp4 1\n", "path,class,label\na.mp4,swim,7\n"])
def test_a_test_list_has_the_labels_of_the_train_split(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "a.mp4")
    manifest = from_list(write(tmp_path / "list.txt", text), train=Manifest(Records.of([]), ["run", "swim"], ""))
    assert (manifest.records[0].label, manifest.classes) == (1, ["run", "swim"])


@pytest.mark.parametrize(("label", "classes"), [("swimm", ["run", "swim"]), ("2", ["run", "swim"]), ("0", ["3", "7"])])
def test_a_class_that_the_train_split_lacks_is_an_error(tmp_path: Path, label: str, classes: list[str]) -> None:
    touch(tmp_path, "a.mp4")
    with pytest.raises(ConfigError, match=f"class '{label}' is not in the train split"):
        from_list(write(tmp_path / "list.txt", f"a.mp4,{label}\n"), train=Manifest(Records.of([]), classes, ""))


def test_empty_and_missing_lists_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lists no files"):
        from_list(write(tmp_path / "list.csv", "path,label\n"))
    with pytest.raises(ConfigError, match=r"data\.list=.*none\.csv does not exist"):
        from_list(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match=r"data\.test_list=.* is a folder; pass it as data\.test_root"):
        from_list(tmp_path, setting="data.test_list")


@pytest.mark.parametrize("name", ["train.json", "train.XLSX", "train.pkl"])
def test_a_list_in_another_format_is_refused_by_its_suffix(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('[{"path": "a.mp4"}]')
    with pytest.raises(ConfigError, match="must be text such as CSV, Parquet or Arrow; convert it"):
        from_list(tmp_path / name)


def test_a_list_of_addresses_is_refused_with_the_way_to_read_remote_files(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("path,label\nhttps://host/a.mp4,run\n")
    with pytest.raises(ConfigError, match=r"https://host/a.mp4; .*data.layout=shards"):
        from_list(tmp_path / "train.csv")
