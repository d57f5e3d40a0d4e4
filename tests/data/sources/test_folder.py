"""Tests of folders of media."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from data_sets import open_folder_for_all, open_layout, summary, touch, without_permission
from PIL import Image

from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.data.sources.folder import from_folder
from eztorch_sce.data.sources.media_kinds import MediaChoice
from eztorch_sce.data.sources.walk import Skipped, walk
from eztorch_sce.errors import ConfigError
from eztorch_sce.types import ClipSpan


def test_first_level_folders_are_the_classes(tmp_path: Path) -> None:
    touch(tmp_path, "swim/deep/b.MKV", "run/a.mp4", "run/c.gif", "swim/notes.txt", ".hidden/x.mp4", "run/._a.mp4")
    manifest = from_folder(tmp_path)
    assert manifest.classes == ["run", "swim"]
    assert summary(manifest, tmp_path) == [
        ("run/a.mp4", 0, "video"),
        ("run/c.gif", 0, "video"),
        ("swim/deep/b.MKV", 1, "video"),
    ]


def test_records_have_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "data/a.mp4")
    monkeypatch.chdir(tmp_path)
    assert from_folder(Path("data")).records[0].path == str(tmp_path / "data" / "a.mp4")


@pytest.mark.parametrize("names", [("a.mp4", "b.mp4"), ("a.mp4", "run/b.mp4"), ("videos/a.mp4", "videos/b.mp4")])
def test_a_flat_or_lone_folder_has_no_labels(tmp_path: Path, names: tuple[str, ...]) -> None:
    manifest = from_folder(touch(tmp_path, *names))
    assert manifest.classes == []
    assert [record.label for record in manifest.records] == [None] * len(names)


def test_numbered_images_in_class_folders_are_images(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{i:04d}.png" for name in ("cat", "dog") for i in range(1, 6)))
    assert Counter(record.kind for record in from_folder(tmp_path).records) == {"image": 10}


def test_tiny_imagenet_images_are_images(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{wnid}/images/{wnid}_{i}.JPEG" for wnid in ("n01443537", "n01629819") for i in range(5)))
    assert Counter(record.kind for record in from_folder(tmp_path).records) == {"image": 10}


@pytest.mark.parametrize("name", ["{:08d}.jpg", "frame_{:04d}.png", "img{}.jpeg"])
def test_numbered_images_two_levels_down_are_frames(tmp_path: Path, name: str) -> None:
    for video, count in (("run/a", 12), ("run/b", 1), ("swim/c", 3)):
        touch(tmp_path, *(f"{video}/{name.format(i)}" for i in range(1, count + 1)))
    assert summary(from_folder(tmp_path), tmp_path) == [
        ("run/a", 0, "frames"),
        ("run/b", 0, "frames"),
        ("swim/c", 1, "frames"),
    ]


def test_links_are_followed_but_not_in_cycles(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "a.mp4")
    touch(tmp_path / "root", "run/b.mp4")
    (tmp_path / "root" / "swim").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "run" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "run" / "itself").symlink_to(tmp_path / "root" / "run" / "itself")
    root = tmp_path / "root"
    assert summary(from_folder(root), root) == [("run/b.mp4", 0, "video"), ("swim/a.mp4", 1, "video")]


def test_a_folder_without_media_is_reported_with_its_contents(tmp_path: Path) -> None:
    touch(tmp_path, "a.npy", "b.npy", "c.txt")
    with pytest.raises(ConfigError, match=r"2 x \.npy, 1 x \.txt.*\.mp4"):
        from_folder(tmp_path)


def test_a_missing_folder_is_reported_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.test_root=.*/nowhere does not exist"):
        from_folder(tmp_path / "nowhere", setting="data.test_root")


def test_a_test_folder_has_the_labels_of_the_train_split(tmp_path: Path) -> None:
    touch(tmp_path, "swim/a.mp4")
    assert from_folder(tmp_path, train_classes=["run", "swim"]).records[0].label == 1
    touch(tmp_path, "swimm/a.mp4")
    with pytest.raises(
        ConfigError, match="'swimm' is not in the train split; both splits need the same classes; did you mean swim"
    ):
        from_folder(tmp_path, train_classes=["run", "swim"])


@pytest.mark.parametrize("suffix", [".jpe", ".jfif"])
def test_frames_with_rare_jpeg_suffixes_are_found_and_read(tmp_path: Path, suffix: str) -> None:
    for video, gray in (("run/a", 40), ("swim/b", 200)):
        (tmp_path / video).mkdir(parents=True)
        for number in range(1, 4):
            frame = Image.new("RGB", (16, 12), (gray, gray, gray))
            frame.save(tmp_path / video / f"{number:05d}{suffix}", format="JPEG")
    records = from_folder(tmp_path).records
    assert [record.kind for record in records] == ["frames", "frames"]
    for record, gray in zip(records, (40, 200), strict=True):
        [clip] = FramesDecoder().read(record.path, [ClipSpan(0.0, 0.12)], num_frames=3)
        assert clip.frames.shape == (3, 3, 12, 16)
        assert (clip.frames.int() - gray).abs().max() <= 2


def test_class_folders_match_whatever_unicode_normalization_their_names_have(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"  # as Linux and macOS store the same name
    touch(tmp_path, f"train/{decomposed}/a.png", "train/tea/b.png", f"val/{composed}/c.png", "val/tea/d.png")
    train = from_folder(tmp_path / "train")
    test = from_folder(tmp_path / "val", train.classes)
    assert train.classes == test.classes == [composed, "tea"]
    assert test.records.labels.tolist() == [0, 1]


def test_classes_that_differ_in_case_between_splits_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/Run/a.png", "train/swim/b.png", "val/run/c.png", "val/swim/d.png")
    with pytest.raises(ConfigError, match=r"class 'run' .* the train split has 'Run', which differs only in upper and"):
        from_folder(tmp_path / "val", from_folder(tmp_path / "train").classes)


def test_a_file_beside_class_folders_is_an_error_with_the_choices(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4", "swim/b.mp4", "stray.mp4")
    with pytest.raises(ConfigError, match=r"stray\.mp4 lies beside 2 folders \(run, swim\).*folder .*=unlabeled"):
        from_folder(tmp_path)
    labeled = from_folder(tmp_path, classes="folders")
    assert summary(labeled, tmp_path) == [("run/a.mp4", 0, "video"), ("swim/b.mp4", 1, "video")]
    assert labeled.ignored == {".mp4 beside the class folders": 1}
    unlabeled = from_folder(tmp_path, classes="none")
    assert [record.label for record in unlabeled.records] == [None] * 3


def test_a_stray_image_beside_class_folders_of_videos_is_an_error_of_kinds(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4", "swim/b.mp4", "cover.jpg")
    with pytest.raises(ConfigError, match=r"mixes 2 videos .* 1 image \(1 \.jpg; cover\.jpg\)"):
        from_folder(tmp_path)
    manifest = from_folder(tmp_path, choice=MediaChoice("video"))
    assert (manifest.classes, manifest.ignored) == (["run", "swim"], {".jpg beside videos": 1})


def test_a_single_folder_is_no_class_and_the_notes_say_so(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.jpg", "cat/b.jpg", "docs/readme.txt")
    assert from_folder(tmp_path).notes == ["no labels: cat is the only folder (no media in docs)"]


def test_folders_without_media_are_no_classes_and_the_notes_say_so(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4", "swim/b.mp4", "docs/readme.txt")
    (tmp_path / "jump").mkdir()
    manifest = from_folder(tmp_path)
    assert manifest.classes == ["run", "swim"]
    assert manifest.notes == ["not classes, because they hold no media: docs, jump"]


def test_class_folders_that_differ_in_case_are_named(tmp_path: Path) -> None:
    touch(tmp_path / "train", "Run/a.mp4", "Swim/b.mp4")
    with pytest.raises(ConfigError, match="class 'run' is not in the train split; the train split has 'Run'"):
        from_folder(touch(tmp_path / "test", "run/a.mp4", "Swim/b.mp4"), ["Run", "Swim"])
    with pytest.raises(ConfigError, match="the classes 'Run' and 'run' differ only in upper and lower case"):
        from_folder(touch(tmp_path / "train", "run/c.mp4"))


def test_class_folders_are_matched_after_unicode_normalization(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    train = from_folder(touch(tmp_path / "train", f"{composed}/a.mp4", "bar/b.mp4"))
    test = from_folder(touch(tmp_path / "test", f"{decomposed}/c.mp4", "bar/d.mp4"), train.classes)
    assert [record.label for record in test.records] == [0, 1]
    assert (test.classes, test.notes) == (["bar", composed], [])


def test_names_that_are_not_utf8_are_records(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    manifest = from_folder(touch(tmp_path, f"{name}/{name}.mp4", "bar/b.mp4", f"bar/notes.{name}"))
    assert summary(manifest, tmp_path) == [("bar/b.mp4", 0, "video"), (f"{name}/{name}.mp4", 1, "video")]
    assert manifest.ignored == {f".{name}": 1}


def test_a_broken_link_to_a_video_is_a_record_and_one_to_a_folder_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4", "swim/b.mp4")
    (tmp_path / "swim" / "c.mp4").symlink_to(tmp_path / "gone.mp4")
    (tmp_path / "jump").symlink_to(tmp_path / "unmounted")
    manifest = from_folder(tmp_path)
    assert [path for path, _, _ in summary(manifest, tmp_path)] == ["run/a.mp4", "swim/b.mp4", "swim/c.mp4"]
    assert manifest.ignored == {"unreadable folders": 1}
    assert manifest.notes == [f"cannot be read: {tmp_path}/jump (broken link)"]


@pytest.fixture
def public() -> Iterator[Path]:
    """Return a temporary folder that all users may list."""
    with open_folder_for_all() as folder:
        yield folder


def test_folders_without_permission_are_counted_and_named(public: Path) -> None:
    touch(public, "run/a.mp4", "swim/b.mp4", "swim/private/c.mp4", "secret/d.mp4")
    with without_permission(public / "secret", public / "swim/private"):
        manifest = from_folder(public)
    assert [path for path, _, _ in summary(manifest, public)] == ["run/a.mp4", "swim/b.mp4"]
    assert (manifest.classes, manifest.ignored) == (["run", "swim"], {"unreadable folders": 2})
    secret, private = (f"{public}/{name} (Permission denied)" for name in ("secret", "swim/private"))
    assert manifest.notes[0] == f"cannot be read: {secret}, {private}"


def test_a_root_without_permission_is_an_error(public: Path) -> None:
    root = touch(public / "private", "a.mp4")
    message = r"private cannot be listed \(Permission denied\); change its permissions"
    with without_permission(root), pytest.raises(ConfigError, match=message):
        open_layout("auto", root)


def test_a_folder_that_vanishes_during_the_walk_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4")
    (tmp_path / "swim").mkdir()
    skipped = Skipped()
    for folder, _, _ in walk(str(tmp_path), skipped):
        if folder == str(tmp_path):
            (tmp_path / "swim").rmdir()
    assert skipped.unreadable == {str(tmp_path / "swim"): "No such file or directory"}


def test_an_archive_in_place_of_a_folder_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "videos.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(ConfigError, match=r"is a file, not a folder; unpack it"):
        from_folder(tmp_path / "videos.zip")
