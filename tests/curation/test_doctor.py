"""What the doctor says of files, and what runs make of its table."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eztorch_sce import cli
from eztorch_sce.curation import doctor
from eztorch_sce.curation.doctor import diagnose, judge
from eztorch_sce.curation.inspection import inspect_video
from eztorch_sce.data.config import CHOICE, DataConfig
from eztorch_sce.data.decoders.pyav.decoder import PyAVDecoder
from eztorch_sce.data.sources.manifest import from_folder
from eztorch_sce.data.sources.media_table import NAME, MediaRow, find_table, write_table
from eztorch_sce.errors import ConfigError
from eztorch_sce.types import ClipSpan

SQUARE = "pixels not square"

# Of each file: whether clips can be read from all of it, and the kinds of what is odd.
BROKEN = {
    "audio_only.mp4": (False, ["audio only"]),
    "bit_noise.mp4": (True, ["damaged", SQUARE]),
    "corrupt_middle.avi": (True, ["duration against frames"]),  # the index names 88 of 100 frames
    "corrupt_middle.mp4": (True, ["damaged"]),
    "corrupt_middle.ts": (False, ["truncated", "damaged", "wild time stamps", "duration against frames"]),
    "cover_art.mp4": (True, ["cover art"]),
    "dangling_link.mp4": (False, ["unreadable"]),
    "good.mp4": (True, []),
    "h264_10bit.mp4": (True, [SQUARE]),
    "hevc_422_10bit.mp4": (True, [SQUARE]),
    "name with spaces, ünïcödé & (brackets).mp4": (True, ["duplicate"]),
    "negative_start.mp4": (True, []),  # an edit list hides 24 frames, as it is meant to
    "random_bytes.avi": (False, ["unreadable"]),
    "rotated_270.mov": (True, ["turned"]),
    "rotated_90.mp4": (True, ["turned"]),
    "seven_frames.mp4": (True, [SQUARE]),
    "single_frame.mp4": (True, ["a single frame", SQUARE]),
    "size_17x13.mp4": (True, [SQUARE, "tiny"]),
    "size_2x400.mp4": (True, [SQUARE, "tiny"]),
    "text_renamed.mp4": (False, ["unreadable"]),
    "timestamp_gap_600s.mkv": (False, ["unreadable in part", "wild time stamps", "duration against frames"]),
    "truncated_midstream.mp4": (False, ["truncated", "duration against frames"]),
    "truncated_midstream.ts": (True, []),  # MPEG-TS does not say how long it is: nothing is missing from it
    "truncated_no_index.avi": (False, ["truncated", "damaged"]),
    "truncated_no_moov.mp4": (False, ["truncated"]),
    "two_frames.mp4": (True, [SQUARE]),
    "vfr.mp4": (True, ["variable frame rate", SQUARE]),
    "wrong_extension.avi": (True, ["duplicate"]),
    "yuv444.mp4": (True, [SQUARE]),
    "zero_bytes.mp4": (False, ["unreadable"]),
    "zero_frames.mp4": (False, ["unreadable"]),
}
NOT_LOOKED_AT = ["ODD.tsv", "no_extension"]  # a name without a suffix of videos: no run reads it


def kinds(row: MediaRow) -> list[str]:
    return [finding.split(":")[0] for finding in row.findings]


@pytest.mark.real_data
@pytest.mark.parametrize("full", [False, True])
def test_what_it_says_of_broken_files(
    full: bool, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_LIMIT_S", {full: 10.0})  # a file that takes longer is reported for it
    shutil.copytree(shared / "data" / "broken", tmp_path / "broken", symlinks=True)
    os.chmod(tmp_path / "broken", 0o755)
    diagnosis, _ = diagnose(tmp_path / "broken", full)
    found = {row.path: (row.usable, kinds(row)) for row in diagnosis.rows}
    expected = dict(BROKEN)
    if full:  # only who decodes all of it meets these
        expected["corrupt_middle.avi"] = (True, ["damaged", "duration against frames"])
        expected["corrupt_middle.mp4"] = (False, ["unreadable in part", "damaged", "frames against packets"])
        expected["bit_noise.mp4"] = (True, ["damaged", "frames against packets", SQUARE])
        expected["corrupt_middle.ts"] = (False, [*BROKEN["corrupt_middle.ts"][1], "frames against packets"])
    differing = {name for name in expected | found if expected.get(name) != found.get(name)}
    assert {name: (expected.get(name), found.get(name)) for name in differing} == {}
    assert diagnosis.others == NOT_LOOKED_AT
    assert {*found, *NOT_LOOKED_AT} == {path.name for path in (shared / "data" / "broken").iterdir()}


@pytest.fixture
def tree(write_video: Callable[..., Path], tmp_path: Path) -> Path:
    """Is a labeled tree of three sound videos, two of them alike, a text named as one, and a truncated one."""
    root = tmp_path / "tree"
    write_video(root / "a" / "one.mp4", num_frames=40)
    write_video(root / "b" / "two.mp4", num_frames=50)
    shutil.copy(root / "a" / "one.mp4", root / "b" / "one again.mp4")
    (root / "a" / "text.mp4").write_text("not a video\n" * 30)
    whole = write_video(tmp_path / "long.mkv", num_frames=200).read_bytes()
    (root / "b" / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    return root


def test_it_names_what_is_wrong_and_exits_with_1(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "doctor", str(tree), "--workers", "2"])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "unusable: a/text.mp4: unreadable" in said
    assert "unusable: b/cut.mkv: truncated" in said
    assert "duplicate" in said
    assert "5 files, 2 unusable" in said


def test_a_sound_tree_is_exit_0(write_video: Callable[..., Path], tmp_path: Path) -> None:
    write_video(tmp_path / "a" / "one.mp4", num_frames=40)
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "doctor", str(tmp_path)])
    assert ended.value.code == 0


def test_the_same_file_in_two_lists_is_found(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("path\na/one.mp4\nb/two.mp4\n")
    (tmp_path / "test.csv").write_text("path\nb/two.mp4\n")
    diagnosis, _ = diagnose(tree, lists=[tmp_path / "train.csv", tmp_path / "test.csv"])
    assert [row.path for row in diagnosis.rows if "in two lists" in row.findings] == ["b/two.mp4"]
    (tmp_path / "test.csv").write_text("path\nb/one again.mp4\n")  # what train.csv has under another name
    diagnosis, _ = diagnose(tree, lists=[tmp_path / "train.csv", tmp_path / "test.csv"])
    assert [row.path for row in diagnosis.rows if "in two lists" in row.findings] == ["a/one.mp4", "b/one again.mp4"]


def test_names_are_shown_as_they_are(
    write_video: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a" / "[bold]one [id].mp4", num_frames=40)
    shutil.copy(tmp_path / "a" / "[bold]one [id].mp4", tmp_path / "a" / "z [x].mp4")
    (tmp_path / "a" / "no [suffix").write_text("a text")
    (tmp_path / "b [").mkdir()
    (tmp_path / "b [" / "red].mp4").write_text("not a video\n" * 30)
    (tmp_path / CHOICE).write_text("{}")
    with pytest.raises(SystemExit):
        cli.main(["data", "doctor", str(tmp_path)])
    said = capsys.readouterr().out
    assert "unusable: b [/red].mp4: unreadable" in said
    assert "a/z [x].mp4" in said
    assert "want of a suffix of videos or images: a/no [suffix\n" in said
    duplicate = diagnose(tmp_path)[0].rows[1]
    assert duplicate.findings[-1] == "duplicate: the content of a/[bold]one [id].mp4"


def test_a_video_that_starts_in_the_middle_has_no_key_frame_at_its_start(
    write_video: Callable[..., Path], tmp_path: Path
) -> None:
    import av

    whole = write_video(tmp_path / "whole.ts", num_frames=90, key_every=30)
    (tmp_path / "folder").mkdir()
    with av.open(str(whole)) as source, av.open(str(tmp_path / "folder" / "late.ts"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None and number >= 5:
                packet.stream = stream
                target.mux(packet)
    [row] = diagnose(tmp_path / "folder")[0].rows
    assert "no key frame at the start" in row.findings
    assert not row.usable  # nothing can be shown for the first 25 frames


def test_a_change_of_resolution_is_told(
    write_video: Callable[..., Path], numbered_image: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    def large(number: int) -> np.ndarray:
        return np.kron(numbered_image(number), np.ones((2, 2, 1), np.uint8))

    first = write_video(tmp_path / "first.ts", num_frames=60).read_bytes()
    second = write_video(tmp_path / "second.ts", num_frames=60, first_pts=60, image=large).read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "both.ts").write_bytes(first + second)
    [row] = diagnose(tmp_path / "folder", full=True)[0].rows
    assert "resolution change: 80x32, 160x64" in row.findings
    [clip] = PyAVDecoder().read(str(tmp_path / "folder" / "both.ts"), [ClipSpan(0.0, 4.0)], 8)
    assert clip.frames.shape == (3, 8, 32, 80)


def test_a_fault_in_a_library_is_told_in_the_row_of_its_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(doctor, "inspect_video", faulty)
    row = doctor._examine(doctor._Job(str(tree / "a" / "one.mp4"), "video", full=False))
    assert row.findings == ["unreadable: IndexError: list index out of range: please report this file"]
    assert not row.usable


def test_a_file_that_hangs_or_kills_its_reader_costs_its_own_row(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LIMIT_S", {False: 0.0})
    rows = diagnose(tree)[0].rows
    assert [row.findings[0] for row in rows] == ["unreadable: took longer than 0 s"] * 5


def test_a_run_is_without_what_is_unusable_and_says_so(tree: Path) -> None:
    diagnose(tree)
    train = DataConfig(root=str(tree)).open().train
    assert [os.path.relpath(record.path, tree) for record in train.records] == [
        "a/one.mp4",
        "b/one again.mp4",
        "b/two.mp4",
    ]
    assert [record.label for record in train.records] == [0, 1, 1]
    assert "2 of 5 left out as unusable" in train.source
    assert len(DataConfig(root=str(tree), on_error="raise").open().train.records) == 5


def test_a_run_takes_the_files_from_the_table_and_looks_at_none(tree: Path) -> None:
    diagnose(tree)
    shutil.rmtree(tree / "a")
    assert len(from_folder(tree).records) == 5


def test_images_and_frame_folders_are_looked_at(tmp_path: Path) -> None:
    frames = tmp_path / "frames" / "a" / "v"
    frames.mkdir(parents=True)
    for number in range(1, 6):
        Image.fromarray(np.full((40, 40, 3), 9 * number, np.uint8)).save(frames / f"{number:08d}.jpg")
    (frames / "00000003.jpg").write_text("no image")
    [row] = diagnose(tmp_path / "frames")[0].rows
    assert (row.kind, row.usable) == ("frames", False)
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (40, 30)).save(images / "black.png")
    [row] = diagnose(images)[0].rows
    assert (row.kind, row.usable, row.width, row.height, row.num_frames) == ("image", True, 40, 30, 1)


def test_cover_art_is_told(numbered_video: Path, tmp_path: Path) -> None:
    import av
    from av.stream import Disposition

    Image.new("RGB", (40, 30)).save(tmp_path / "cover.png")
    folder = tmp_path / "videos"
    folder.mkdir()
    with (
        av.open(str(tmp_path / "cover.png")) as cover,
        av.open(str(numbered_video)) as video,
        av.open(str(folder / "covered.mp4"), "w") as target,
    ):
        streams = [target.add_stream_from_template(source.streams.video[0]) for source in (cover, video)]
        streams[0].disposition = Disposition.attached_pic
        for source, stream in zip((cover, video), streams, strict=True):
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
    [row] = diagnose(folder)[0].rows
    assert (row.usable, row.findings, row.width) == (True, ["cover art"], 80)
    seen = inspect_video(str(folder / "covered.mp4"), full=False)
    assert judge(seen._replace(cover="first")) == (["cover art as first stream"], True)  # FFmpeg writes none so


def test_a_table_that_is_none_is_an_error_that_says_what_to_do(tree: Path) -> None:
    (tree / NAME).write_text("not a table")
    with pytest.raises(ConfigError, match="data doctor"):
        from_folder(tree)


def test_a_hundred_thousand_files_are_known_at_once(tmp_path: Path) -> None:
    names = [f"class_{number % 400:03d}/{number:06d}.mp4" for number in range(100_000)]
    write_table(
        tmp_path, [MediaRow(n, "video", True, [], 1, "", 1.0, 25.0, 8, 8, "h264", 25, 3) for n in sorted(names)]
    )
    started = time.perf_counter()
    manifest = DataConfig(root=str(tmp_path)).open().train
    print(f"{time.perf_counter() - started:.2f} s")  # a time is never a test's assertion; `-s` shows it
    assert len(manifest.records) == 100_000
    assert len(manifest.classes) == 400
    assert manifest.records[0].path == str(tmp_path / "class_000" / "000000.mp4")


def test_a_part_of_the_tree_reads_the_table_above_it(write_video: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4"):
        write_video(tmp_path / name, num_frames=10)
    diagnose(tmp_path)
    table = find_table(tmp_path / "val")
    assert table is not None
    assert table.paths == [str(tmp_path / "val" / "a" / "3.mp4")]
    splits = DataConfig(root=str(tmp_path)).open()
    assert splits.test is not None
    assert (len(splits.train.records), len(splits.test.records)) == (2, 1)
