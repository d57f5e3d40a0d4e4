"""Tests of how listed files are found: by their names, and never as something else without a word."""

import os
from pathlib import Path

import pytest
from data_sets import summary, touch, write

from eztorch_sce.data.sources.list_file import from_list
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.media_table import MediaRow, write_table
from eztorch_sce.errors import ConfigError

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"  # as Linux and macOS store the same name


def opened(folder: Path, *paths: str, missing_ok: bool = False) -> Manifest:
    return from_list(write(folder / "list.csv", "\n".join(["path", *paths])), missing_ok=missing_ok)


def names(manifest: Manifest) -> list[str]:
    return [Path(path).name for path in manifest.records.paths()]


def test_a_missing_video_is_found_with_another_video_suffix_and_that_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "a.mkv", "b.mp4", "c.MP4")
    manifest = opened(tmp_path, "a.avi", "b.mp4", "c.webm")
    assert names(manifest) == ["a.mkv", "b.mp4", "c.MP4"]
    [note] = manifest.notes
    assert "videos found with another suffix: a.avi as a.mkv and 1 more" in note


@pytest.mark.parametrize("beside", ["a.jpg", "a.gif", "a.txt", "a.mp4.part", "a.webp"])
def test_a_missing_video_is_never_replaced_by_another_kind_of_file(tmp_path: Path, beside: str) -> None:
    touch(tmp_path, beside, "b.mp4")
    with pytest.raises(ConfigError, match=r"1 of 2 files do not exist: a\.mp4"):
        opened(tmp_path, "a.mp4", "b.mp4")


def test_a_missing_image_is_not_replaced_and_the_near_file_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.jpg", "a.mp4")
    with pytest.raises(ConfigError, match=r"a\.jpg \(a\.mp4, a\.png are there\)"):
        opened(tmp_path, "a.jpg", "b.jpg")


def test_two_videos_of_one_name_are_not_chosen_between(tmp_path: Path) -> None:
    touch(tmp_path, "a.mkv", "a.webm", "b.mp4")
    with pytest.raises(ConfigError, match=r"a\.mp4 \(a\.mkv, a\.webm are there\)"):
        opened(tmp_path, "a.mp4", "b.mp4")


def test_folders_of_frames_replace_videos_if_all_are_so_and_that_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "run/a/1.jpg", "run/b/1.jpg")
    manifest = opened(tmp_path, "run/a.mp4", "run/b.avi")
    assert summary(manifest, tmp_path) == [("run/a", None, "frames"), ("run/b", None, "frames")]
    [note] = manifest.notes
    assert "videos found as folders of frames: run/a.mp4 as a and 1 more" in note


def test_a_folder_does_not_replace_one_missing_video(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b.mp4", "c.mp4")
    with pytest.raises(ConfigError, match=r"1 of 3 files do not exist: a\.mp4 \(a is there\)"):
        opened(tmp_path, "a.mp4", "b.mp4", "c.mp4")


def test_a_folder_without_images_does_not_replace_a_video(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4")
    with pytest.raises(ConfigError, match=r"1 of 1 files do not exist: a\.mp4 \(a is there\)"):
        opened(tmp_path, "a.mp4")


def test_names_without_a_suffix_are_found_if_there_is_one_file_and_that_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "000a.jpg", "v1.5.jpg", "c.mp4", "c.jpg")
    manifest = opened(tmp_path, "000a", "v1.5")
    assert names(manifest) == ["000a.jpg", "v1.5.jpg"]
    assert "files found with a suffix that is not listed: 000a as 000a.jpg and 1 more" in manifest.notes[0]
    with pytest.raises(ConfigError, match=r"c \(c\.jpg, c\.mp4 are there\)"):
        opened(tmp_path, "000a", "c")


@pytest.mark.parametrize(("listed", "on_disk"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_names_are_found_in_any_unicode_normalization(tmp_path: Path, listed: str, on_disk: str) -> None:
    touch(tmp_path, f"{on_disk}/{on_disk}.mp4", "b.mp4")
    manifest = opened(tmp_path, f"{listed}/{listed}.mp4", "b.mp4")
    assert summary(manifest, tmp_path)[0] == (f"{on_disk}/{on_disk}.mp4", None, "video")
    assert "files found in other case or with accents encoded differently: " in manifest.notes[0]


def test_names_and_folders_in_another_case_are_found_and_that_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "Train/Clips/a.MP4", "b.mp4")
    manifest = opened(tmp_path, "train/clips/A.mp4", "b.mp4")
    assert summary(manifest, tmp_path)[0] == ("Train/Clips/a.MP4", None, "video")
    assert (
        "files found in other case or with accents encoded differently: train/clips/A.mp4 as a.MP4" in manifest.notes[0]
    )


def test_names_that_differ_only_in_case_are_not_chosen_between(tmp_path: Path) -> None:
    touch(tmp_path, "a.MP4", "A.mp4", "b.mp4")
    assert names(opened(tmp_path, "a.MP4", "A.mp4")) == ["a.MP4", "A.mp4"]
    with pytest.raises(ConfigError, match=r"a\.mp4 \(A\.mp4, a\.MP4 are there\)"):
        opened(tmp_path, "a.mp4", "b.mp4")


def test_near_names_of_missing_files_and_folders_are_suggested(tmp_path: Path) -> None:
    touch(tmp_path, "train/holiday.mp4", "b.mp4")
    with pytest.raises(ConfigError, match=r"train/holidays\.mp4 \(did you mean holiday\.mp4\?\)"):
        opened(tmp_path, "train/holidays.mp4", "b.mp4")
    with pytest.raises(ConfigError, match=r"the folder .*/trian does not exist; did you mean train\?"):
        opened(tmp_path, "trian/holiday.mp4", "b.mp4")


def test_absolute_paths_that_do_not_exist_have_their_own_cure(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the paths are absolute: correct them, or make them relative and set"):
        opened(tmp_path, "/elsewhere/a.mp4", "/elsewhere/b.mp4")


def test_a_file_listed_twice_is_an_error_with_both_lines(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(ConfigError, match=r"lines 2 and 4 are the same file: .*/a\.mp4; keep one of them"):
        opened(tmp_path, "a.mp4", "b.mp4", "./a.mp4")
    with pytest.raises(ConfigError, match="lines 2 and 3 are the same file"):
        opened(tmp_path, "a.mp4", "A.mp4")  # found without case
    with pytest.raises(ConfigError, match="lines 2 and 3 are the same file"):
        opened(tmp_path, "a.mp4", str(tmp_path / "a.mp4"))


def test_a_file_with_two_labels_is_an_error_that_names_both(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(ConfigError, match=r"lines 1 and 3 are the same file: .*, with the labels 'run' and 'swim'"):
        from_list(write(tmp_path / "list.txt", "a.mp4 run\nb.mp4 run\na.mp4 swim\n"))


def test_missing_lines_are_no_repetitions(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    manifest = opened(tmp_path, "a.mp4", "gone.mp4", "gone.mp4", "lost.mp4", missing_ok=True)
    assert names(manifest) == ["a.mp4"]
    assert manifest.missing == [("gone.mp4", None), ("gone.mp4", None), ("lost.mp4", None)]


def test_hidden_files_and_files_in_folders_that_cannot_be_listed_are_found(tmp_path: Path) -> None:
    touch(tmp_path, ".a.mp4", "closed/b.mp4")
    (tmp_path / "closed").chmod(0o111)  # may be entered, not listed
    try:
        assert names(opened(tmp_path, ".a.mp4", "closed/b.mp4")) == [".a.mp4", "b.mp4"]
    finally:
        (tmp_path / "closed").chmod(0o755)


@pytest.mark.parametrize("path", [".", "./", "..", "sub/.."])
def test_the_folder_of_the_list_itself_is_no_record(tmp_path: Path, path: str) -> None:
    touch(tmp_path, "sub/a.mp4")
    with pytest.raises(ConfigError, match="1 of 2 files do not exist"):
        opened(tmp_path, "sub/a.mp4", path)


def test_a_leading_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(touch(tmp_path / "home", "a.mp4")))
    assert names(opened(tmp_path, "~/a.mp4")) == ["a.mp4"]


def test_a_table_of_the_doctor_replaces_listing_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "run/a.mp4", "run/b.mp4", "run/c.txt", "flow/1.jpg")
    rows = [
        MediaRow(path, kind, True, [], 0, "", 1.0, 30.0, 8, 8, "h264", 30, 1)
        for path, kind in (("flow", "frames"), ("run/a.mp4", "video"), ("run/b.mp4", "video"))
    ]
    write(tmp_path / "list.csv", "path\nrun/a.mp4\nflow\nrun/b.mp4\n")
    write_table(tmp_path, rows)
    listed: list[str] = []
    monkeypatch.setattr("eztorch_sce.data.sources.listed_files.list_if_readable", listed.append)
    assert [record.kind for record in from_list(tmp_path / "list.csv").records] == ["video", "frames", "video"]
    assert listed == []


def test_files_that_the_table_of_the_doctor_lacks_are_found_on_disk(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "clip")
    write_table(tmp_path, [MediaRow("a.mp4", "video", True, [], 0, "", 1.0, 30.0, 8, 8, "h264", 30, 1)])
    os.utime(tmp_path, ns=(0, 0))
    assert names(opened(tmp_path, "a.mp4", "b.avi", "clip")) == ["a.mp4", "b.mp4", "clip"]
