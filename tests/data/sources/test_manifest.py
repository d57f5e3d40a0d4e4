import os
from collections import Counter
from pathlib import Path

import pytest

from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.sources.folder import from_folder
from eztorch_sce.data.sources.list_file import from_list
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.subsets import check_disjoint, draw_fraction, holdout, keep_classes, keep_listed
from eztorch_sce.errors import ConfigError
from eztorch_sce.settings import invalid_settings
from eztorch_sce.types import MediaRecord


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def in_short(manifest: Manifest, root: Path) -> list[tuple[str, int | None, str]]:
    return [(os.path.relpath(record.path, root), record.label, record.kind) for record in manifest.records]


def test_first_level_folders_are_the_classes(tmp_path: Path) -> None:
    make(tmp_path, "swim/deep/b.MKV", "run/a.mp4", "run/c.gif", "swim/notes.txt", ".hidden/x.mp4", "run/._a.mp4")
    manifest = from_folder(tmp_path)
    assert manifest.classes == ["run", "swim"]
    assert in_short(manifest, tmp_path) == [
        ("run/a.mp4", 0, "video"),
        ("run/c.gif", 0, "video"),
        ("swim/deep/b.MKV", 1, "video"),
    ]


def test_records_have_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "data/a.mp4")
    monkeypatch.chdir(tmp_path)
    assert from_folder(Path("data")).records[0].path == str(tmp_path / "data" / "a.mp4")


@pytest.mark.parametrize("names", [("a.mp4", "run/b.mp4", "swim/c.mp4"), ("videos/a.mp4", "videos/b.mp4")])
def test_no_labels_where_folders_tell_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    manifest = from_folder(make(tmp_path, *names))
    assert manifest.classes == []
    assert [record.label for record in manifest.records] == [None] * len(names)


def test_cifar_like_numbered_images_are_images(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}/{i:04d}.png" for name in ("cat", "dog") for i in range(1, 6)))
    assert Counter(record.kind for record in from_folder(tmp_path).records) == {"image": 10}


def test_tiny_imagenet_images_are_images(tmp_path: Path) -> None:
    make(tmp_path, *(f"{wnid}/images/{wnid}_{i}.JPEG" for wnid in ("n01443537", "n01629819") for i in range(5)))
    assert Counter(record.kind for record in from_folder(tmp_path).records) == {"image": 10}


@pytest.mark.parametrize("name", ["{:08d}.jpg", "frame_{:04d}.png", "img{}.jpeg"])
def test_numbered_images_two_levels_down_are_frames(tmp_path: Path, name: str) -> None:
    for video, count in (("run/a", 12), ("run/b", 1), ("swim/c", 3)):
        make(tmp_path, *(f"{video}/{name.format(i)}" for i in range(1, count + 1)))
    assert in_short(from_folder(tmp_path), tmp_path) == [
        ("run/a", 0, "frames"),
        ("run/b", 0, "frames"),
        ("swim/c", 1, "frames"),
    ]


def test_frames_with_a_gap_are_asked_about(tmp_path: Path) -> None:
    make(tmp_path, "run/a/1.jpg", "run/a/2.jpg", "swim/b/1.jpg", "swim/b/3.jpg")
    with pytest.raises(ConfigError, match=r"swim/b.*data\.list"):
        from_folder(tmp_path)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "a.mp4")
    make(tmp_path / "root", "run/b.mp4")
    (tmp_path / "root" / "swim").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "run" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "run" / "itself").symlink_to(tmp_path / "root" / "run" / "itself")
    root = tmp_path / "root"
    assert in_short(from_folder(root), root) == [("run/b.mp4", 0, "video"), ("swim/a.mp4", 1, "video")]


def test_a_folder_without_media_says_what_it_holds(tmp_path: Path) -> None:
    make(tmp_path, "a.npy", "b.npy", "c.txt")
    with pytest.raises(ConfigError, match=r"2 x \.npy, 1 x \.txt.*\.mp4"):
        from_folder(tmp_path)


def test_no_such_folder_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.test_root=.*/nowhere does not exist"):
        from_folder(tmp_path / "nowhere", setting="data.test_root")


def test_a_test_folder_takes_the_labels_of_the_training_part(tmp_path: Path) -> None:
    make(tmp_path, "swim/a.mp4")
    assert from_folder(tmp_path, train_train_classes=["run", "swim"]).records[0].label == 1
    make(tmp_path, "swimm/a.mp4")
    with pytest.raises(
        ConfigError, match="'swimm' is not in the train split; both splits need the same classes; did you mean swim"
    ):
        from_folder(tmp_path, train_train_classes=["run", "swim"])


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
def test_lists_as_people_write_them(tmp_path: Path, text: str, expected: list[int | None], classes: list[str]) -> None:
    make(tmp_path, "a b.mp4", "c.mp4")
    manifest = from_list(write(tmp_path / "list.txt", text))
    assert in_short(manifest, tmp_path) == [("a b.mp4", expected[0], "video"), ("c.mp4", expected[1], "video")]
    assert manifest.classes == classes


def test_list_finds_folders_images_and_other_suffixes(tmp_path: Path) -> None:
    make(tmp_path / "data", "frames/1.jpg", "image.png", "now.mp4", "shot/1.jpg", "plain")
    listed = write(tmp_path / "list.csv", f"path\nframes\nimage.png\nnow.avi\nshot.avi\n{tmp_path}/data/plain\n")
    records = from_list(listed, root=tmp_path / "data").records
    assert [(Path(record.path).name, record.kind) for record in records] == [
        ("frames", "frames"),
        ("image.png", "image"),
        ("now.mp4", "video"),
        ("shot", "frames"),
        ("plain", "video"),
    ]


def test_all_that_is_wrong_with_a_list_is_said_at_once(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4")
    listed = write(tmp_path / "list.csv", "path,label\na.mp4,0\ngone.mp4,1\n,1\nlost.mp4,one\na.mp4,-1\na.mp4,\n")
    with pytest.raises(ConfigError) as caught:
        from_list(listed)
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    assert "line 5: label 'one'" in text
    assert "line 6: label '-1'" in text
    assert "line 7: a.mp4 has no label" in text
    assert "3 of 6 files do not exist: gone.mp4" in text
    assert "set data.root" in text


def test_one_number_has_one_name(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(ConfigError, match="line 3: label 0 is 'swim' here but 'run' on an earlier line"):
        from_list(write(tmp_path / "1.csv", "path,class,label\na.mp4,run,0\nb.mp4,swim,0\n"))
    with pytest.raises(ConfigError, match="several numbers"):
        from_list(write(tmp_path / "2.csv", "path,class,label\na.mp4,run,0\nb.mp4,run,1\n"))


@pytest.mark.parametrize("text", ["path,label\na.mp4,swim\n", "a.mp4 1\n", "path,class,label\na.mp4,swim,7\n"])
def test_a_test_list_takes_the_labels_of_the_training_part(tmp_path: Path, text: str) -> None:
    make(tmp_path, "a.mp4")
    manifest = from_list(write(tmp_path / "list.txt", text), train_train_classes=["run", "swim"])
    assert (manifest.records[0].label, manifest.classes) == (1, ["run", "swim"])


@pytest.mark.parametrize(("label", "classes"), [("swimm", ["run", "swim"]), ("2", ["run", "swim"]), ("0", ["3", "7"])])
def test_a_class_the_training_part_has_not(tmp_path: Path, label: str, classes: list[str]) -> None:
    make(tmp_path, "a.mp4")
    with pytest.raises(ConfigError, match=f"class '{label}' is not in the train split"):
        from_list(write(tmp_path / "list.txt", f"a.mp4,{label}\n"), train_train_classes=classes)


def test_empty_and_missing_lists(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lists no files"):
        from_list(write(tmp_path / "list.csv", "path,label\n"))
    with pytest.raises(ConfigError, match=r"data\.list=.*none\.csv does not exist"):
        from_list(tmp_path / "none.csv")


def labeled(counts: dict[str, int]) -> Manifest:
    classes = sorted(counts)
    names = [(name, i) for name in classes for i in range(counts[name])]
    records = [MediaRecord(f"/data/{name}/{i}.mp4", classes.index(name), "video") for name, i in names]
    return Manifest(records, classes, "/data")


def test_holdout_takes_the_share_of_each_class_and_loses_none() -> None:
    whole = labeled({"many": 100, "pair": 2, "sole": 1})
    train, test = holdout(whole, fraction=0.2, seed=3)
    assert sorted(train.records + test.records) == sorted(whole.records)
    assert Counter(record.label for record in test.records) == {0: 20, 1: 1}
    assert train.classes == test.classes == whole.classes
    assert holdout(whole, fraction=0.2, seed=3) == (train, test)
    assert holdout(whole, fraction=0.2, seed=4) != (train, test)


def test_holdout_of_a_class_does_not_depend_on_the_others() -> None:
    alone, together = labeled({"a": 30, "b": 30}), labeled({"a": 30, "aa": 10, "b": 30})
    held = [{record.path for record in holdout(each, 0.3, seed=0)[1].records} for each in (alone, together)]
    assert held[0] == {path for path in held[1] if "/aa/" not in path}


def test_holdout_needs_two_of_a_kind() -> None:
    with pytest.raises(ConfigError, match="no class has two files"):
        holdout(labeled({"a": 1, "b": 1}), fraction=0.5, seed=0)
    with pytest.raises(ConfigError, match=r"data\.test_fraction=1"):
        holdout(labeled({"a": 5}), fraction=1, seed=0)


def test_a_file_in_both_parts_is_named_even_through_a_linked_folder(tmp_path: Path) -> None:
    make(tmp_path / "train", "run/a.mp4", "swim/b.mp4")
    (tmp_path / "val").symlink_to(tmp_path / "train")
    train, test = from_folder(tmp_path / "train"), from_folder(tmp_path / "val")
    with pytest.raises(ConfigError, match=r"2 files are in train .* and in test .*val/run/a\.mp4"):
        check_disjoint(train, test)
    check_disjoint(Manifest(train.records[:1], [], ""), Manifest(test.records[1:], [], ""))


def test_a_share_is_drawn_of_each_class() -> None:
    whole = labeled({"many": 100, "pair": 2, "sole": 1})
    drawn = draw_fraction(whole, fraction=0.1, seed=3)
    assert Counter(record.label for record in drawn.records) == {0: 10, 1: 1, 2: 1}
    assert drawn.classes == whole.classes
    assert drawn.records == [record for record in whole.records if record in drawn.records]  # in their order
    assert drawn == draw_fraction(whole, fraction=0.1, seed=3)
    assert drawn.records != draw_fraction(whole, fraction=0.1, seed=4).records
    assert draw_fraction(whole, fraction=1, seed=3).records == whole.records
    assert "the fraction 0.1 of each class drawn with seed 3 (12 records)" in drawn.source


def test_a_larger_share_holds_the_smaller() -> None:
    whole = labeled({"a": 200, "b": 50})
    small, large = ({record.path for record in draw_fraction(whole, share, seed=0).records} for share in (0.01, 0.1))
    assert small < large


def test_a_published_subset_by_names_or_by_the_ends_of_paths(tmp_path: Path) -> None:
    make(tmp_path, *(f"train/{name}/{name}_{i}.JPEG" for name in ("n01", "n02") for i in range(3)), "train/n02/x.png")
    train = from_folder(tmp_path / "train")
    for text in ("n02_0.JPEG\nn01_2.JPEG\nn01_2.JPEG\n\n", "n02/n02_0.JPEG\r\nn01/n01_2.JPEG\r\n"):
        kept = keep_listed(train, write(tmp_path / "1percent.txt", text))
        assert in_short(kept, tmp_path / "train") == [("n01/n01_2.JPEG", 0, "image"), ("n02/n02_0.JPEG", 1, "image")]
        assert kept.classes == ["n01", "n02"]
        assert f"only the 2 records in {tmp_path}/1percent.txt" in kept.source


def test_a_subset_that_does_not_fit(tmp_path: Path) -> None:
    make(tmp_path, "train/cat/1.png", "train/dog/1.png", "train/dog/2.png")
    train = from_folder(tmp_path / "train")
    with pytest.raises(ConfigError) as caught:
        keep_listed(train, write(tmp_path / "list.txt", "1.png\ngone.png\n2.png\nat/1.png\n"))
    assert len(caught.value.problems) == 2
    assert "2 of 4 names are not in the train split: gone.png, at/1.png" in caught.value.problems[0]
    assert "1 names match several files: 1.png" in caught.value.problems[1]
    with pytest.raises(ConfigError, match=r"data\.train_subset=.*nowhere\.txt does not exist"):
        keep_listed(train, tmp_path / "nowhere.txt")
    with pytest.raises(ConfigError, match="lists no files"):
        keep_listed(train, write(tmp_path / "empty.txt", "\n"))


def test_kept_classes_have_new_labels_and_take_what_is_missing_with_them() -> None:
    whole = labeled({"a": 1, "b b": 2, "c": 1})
    whole.missing = [("gone_a", 0), ("gone_c", 2)]
    kept = keep_classes(whole, ["c", "b_b"], where="list.txt")
    assert kept.classes == ["b b", "c"]
    assert [record.label for record in kept.records] == [0, 0, 1]
    assert kept.missing == [("gone_c", 1)]
    with pytest.raises(ConfigError, match="no labels"):
        keep_classes(Manifest([], [], "somewhere"), ["a"], where="list.txt")


def test_a_part_of_the_labels_is_for_what_uses_labels(tmp_path: Path) -> None:
    folders = [f"{part}/{name}/{part}_{name}" for part in ("train", "val") for name in "ab"]
    make(tmp_path, *(f"{folder}_{number}.png" for folder in folders for number in range(20)))
    root = str(tmp_path)
    train, test = DataConfig(root=root, train_share=0.1).open_with_test(seed=1)
    assert Counter(record.label for record in train.records) == {0: 2, 1: 2}
    assert len(test.records) == 40
    assert train == DataConfig(root=root, train_share=0.1).open_with_test(seed=1)[0]
    listed = write(tmp_path / "list.txt", "train_b_3.png\n")
    train, test = DataConfig(root=root, train_subset=str(listed)).open_with_test(seed=1)
    assert [Path(record.path).name for record in train.records] == ["train_b_3.png"]
    assert len(test.records) == 40
    with pytest.raises(ConfigError, match=r"data\.train_share=0\.1 has no effect without labels"):
        DataConfig(root=root, train_share=0.1).open()


def test_invalid_fractions_of_the_labels_are_reported() -> None:
    for fraction in (0.0, -0.1, 1.1):
        [message] = invalid_settings(DataConfig(root="x", train_share=fraction), "data")
        assert message == f"data.train_share={fraction:g} must be greater than 0 and at most 1"
    [message] = invalid_settings(DataConfig(root="x", train_share=0.1, train_subset="list.txt"), "data")
    assert message == "data.train_share=0.1 and data.train_subset=list.txt exclude each other; set only one of them"
    assert invalid_settings(DataConfig(root="x", train_share=1), "data") == []
