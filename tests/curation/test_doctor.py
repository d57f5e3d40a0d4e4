"""Tests of the doctor: its findings, its table, and how training uses the table."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, jpeg, smooth, wide_png
from PIL import Image

from eztorch_sce import cli
from eztorch_sce.curation import doctor_work
from eztorch_sce.curation.doctor import diagnose
from eztorch_sce.curation.findings import judge
from eztorch_sce.curation.inspection import inspect_video
from eztorch_sce.curation.settings import DoctorConfig
from eztorch_sce.data.config import DECODER_FILE, DataConfig
from eztorch_sce.data.decoders.pyav.decoder import PyAVDecoder
from eztorch_sce.data.sources.folder import from_folder
from eztorch_sce.data.sources.media_table import TABLE_NAME, MediaRow, find_table, write_table
from eztorch_sce.errors import ConfigError
from eztorch_sce.types import ClipSpan

SQUARE = "non-square pixels"

# For each file: whether every clip can be read, and the kinds of findings.
BROKEN: dict[str, tuple[bool, list[str]]] = {
    "audio_only.mp4": (False, ["audio only"]),
    "bit_noise.mp4": (True, ["damaged", SQUARE]),
    "corrupt_middle.avi": (True, ["duration mismatch"]),  # its index lists 88 of 100 frames
    "corrupt_middle.mp4": (True, ["damaged"]),
    "corrupt_middle.ts": (False, ["truncated", "damaged", "timestamp gap", "duration mismatch"]),
    "cover_art.mp4": (True, ["cover art"]),
    "dangling_link.mp4": (False, ["unreadable"]),
    "good.mp4": (True, []),
    "h264_10bit.mp4": (True, [SQUARE]),
    "hevc_422_10bit.mp4": (True, [SQUARE]),
    "name with spaces, ünïcödé & (brackets).mp4": (True, ["duplicate"]),
    "negative_start.mp4": (True, []),  # an edit list hides 24 frames on purpose
    "random_bytes.avi": (False, ["unreadable"]),
    "rotated_270.mov": (True, ["rotated"]),
    "rotated_90.mp4": (True, ["rotated"]),
    "seven_frames.mp4": (True, [SQUARE]),
    "single_frame.mp4": (True, ["single frame", SQUARE]),
    "size_17x13.mp4": (True, [SQUARE, "tiny"]),
    "size_2x400.mp4": (True, [SQUARE, "tiny"]),
    "text_renamed.mp4": (False, ["unreadable"]),
    "timestamp_gap_600s.mkv": (False, ["partly unreadable", "timestamp gap", "duration mismatch"]),
    "truncated_midstream.mp4": (False, ["truncated", "duration mismatch"]),
    "truncated_midstream.ts": (True, []),  # MPEG-TS stores no duration, so nothing is missing from it
    "truncated_no_index.avi": (False, ["truncated", "damaged"]),
    "truncated_no_moov.mp4": (False, ["truncated"]),
    "two_frames.mp4": (True, [SQUARE]),
    "vfr.mp4": (True, ["variable frame rate", SQUARE]),
    "wrong_extension.avi": (True, ["duplicate"]),
    "yuv444.mp4": (True, [SQUARE]),
    "zero_bytes.mp4": (False, ["unreadable"]),
    "zero_frames.mp4": (False, ["unreadable"]),
}
SKIPPED = ["ODD.tsv", "no_extension"]  # not videos by suffix: no command reads them


def kinds(row: MediaRow) -> list[str]:
    return [finding.split(":")[0] for finding in row.findings]


@pytest.mark.real_data
@pytest.mark.parametrize("full", [False, True])
def test_broken_files_have_the_expected_findings(
    full: bool, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_work, "_FULL_LIMIT_S" if full else "_LIMIT_S", 10.0)  # a slower file is reported
    shutil.copytree(shared / "data" / "broken", tmp_path / "broken", symlinks=True)
    os.chmod(tmp_path / "broken", 0o755)
    diagnosis = diagnose(tmp_path / "broken", DoctorConfig(full=full))
    actual = {row.path: (row.usable, kinds(row)) for row in diagnosis.rows}
    expected = dict(BROKEN)
    if full:  # only decoding every frame finds these
        expected["corrupt_middle.avi"] = (True, ["damaged", "duration mismatch"])
        expected["corrupt_middle.mp4"] = (False, ["partly unreadable", "damaged", "frame count mismatch"])
        expected["bit_noise.mp4"] = (True, ["damaged", "frame count mismatch", SQUARE])
        expected["corrupt_middle.ts"] = (False, [*BROKEN["corrupt_middle.ts"][1], "frame count mismatch"])
    differing = {name for name in expected | actual if expected.get(name) != actual.get(name)}
    assert {name: (expected.get(name), actual.get(name)) for name in differing} == {}
    assert diagnosis.skipped == SKIPPED
    assert {*actual, *SKIPPED} == {path.name for path in (shared / "data" / "broken").iterdir()}


@pytest.fixture
def tree(write_video: Callable[..., Path], tmp_path: Path) -> Path:
    """Labeled tree of three intact videos (two identical), a truncated one, and a text file named like a video."""
    root = tmp_path / "tree"
    write_video(root / "a" / "one.mp4", num_frames=40)
    write_video(root / "b" / "two.mp4", num_frames=50)
    shutil.copy(root / "a" / "one.mp4", root / "b" / "one again.mp4")
    (root / "a" / "text.mp4").write_text("not a video\n" * 30)
    whole = write_video(tmp_path / "long.mkv", num_frames=200).read_bytes()
    (root / "b" / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    return root


def test_unusable_files_are_named_and_make_the_exit_code_1(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "doctor", str(tree), "workers=2"])
    assert ended.value.code == 1
    output = capsys.readouterr().out
    assert "unusable: a/text.mp4: unreadable" in output
    assert "unusable: b/cut.mkv: truncated" in output
    assert "duplicate" in output
    assert "5 files, 2 unusable" in output
    assert max(map(len, output.splitlines()[:-1])) <= 80  # the last line is the path of the table


def test_an_intact_tree_makes_the_exit_code_0(write_video: Callable[..., Path], tmp_path: Path) -> None:
    write_video(tmp_path / "a" / "one.mp4", num_frames=40)
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "doctor", str(tmp_path)])
    assert ended.value.code == 0


def test_what_is_inspected_is_said_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (40, 40)).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").touch()
    diagnose(tmp_path)
    assert capsys.readouterr().err.splitlines()[:2] == ["data: 2 images", "ignored: 1 .txt"]


def test_content_in_two_lists_is_reported(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("path\na/one.mp4\nb/two.mp4\n")
    (tmp_path / "test.csv").write_text("path\nb/two.mp4\n")
    config = DoctorConfig(lists=[str(tmp_path / "train.csv"), str(tmp_path / "test.csv")])
    diagnosis = diagnose(tree, config)
    assert [row.path for row in diagnosis.rows if "in two lists" in row.findings] == ["b/two.mp4"]
    (tmp_path / "test.csv").write_text("path\nb/one again.mp4\n")  # a copy of a file in train.csv
    diagnosis = diagnose(tree, config)
    assert [row.path for row in diagnosis.rows if "in two lists" in row.findings] == ["a/one.mp4", "b/one again.mp4"]


def test_file_names_are_printed_verbatim(
    write_video: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a" / "[bold]one [id].mp4", num_frames=40)
    shutil.copy(tmp_path / "a" / "[bold]one [id].mp4", tmp_path / "a" / "z [x].mp4")
    (tmp_path / "a" / "no [suffix").write_text("a text")
    (tmp_path / "b [").mkdir()
    (tmp_path / "b [" / "red].mp4").write_text("not a video\n" * 30)
    (tmp_path / DECODER_FILE).write_text("{}")
    with pytest.raises(SystemExit):
        cli.main(["data", "doctor", str(tmp_path)])
    output = capsys.readouterr().out
    assert "unusable: b [/red].mp4: unreadable" in output
    assert "a/z [x].mp4" in output
    assert "skipped, neither a video nor an image by suffix: a/no [suffix\n" in output
    duplicate = diagnose(tmp_path).rows[1]
    assert duplicate.findings[-1] == "duplicate: same content as a/[bold]one [id].mp4"


def test_a_video_cut_at_its_start_has_no_key_frame_there(write_video: Callable[..., Path], tmp_path: Path) -> None:
    import av

    whole = write_video(tmp_path / "whole.ts", num_frames=90, key_every=30)
    (tmp_path / "folder").mkdir()
    with av.open(str(whole)) as source, av.open(str(tmp_path / "folder" / "late.ts"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None and number >= 5:
                packet.stream = stream
                target.mux(packet)
    [row] = diagnose(tmp_path / "folder").rows
    assert "no key frame at the start" in row.findings
    assert not row.usable  # the first 25 frames cannot be decoded


def test_a_change_of_resolution_is_reported(
    write_video: Callable[..., Path], numbered_image: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    def large(number: int) -> np.ndarray:
        return np.kron(numbered_image(number), np.ones((2, 2, 1), np.uint8))

    first = write_video(tmp_path / "first.ts", num_frames=60).read_bytes()
    second = write_video(tmp_path / "second.ts", num_frames=60, first_pts=60, image=large).read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "both.ts").write_bytes(first + second)
    [row] = diagnose(tmp_path / "folder", DoctorConfig(full=True)).rows
    assert "resolution change: 80x32, 160x64" in row.findings
    [clip] = PyAVDecoder().read(str(tmp_path / "folder" / "both.ts"), [ClipSpan(0.0, 4.0)], 8)
    assert clip.frames.shape == (3, 8, 32, 80)


def test_a_bug_in_a_library_is_reported_in_the_row_of_its_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(doctor_work, "inspect_video", faulty)
    row = doctor_work.examine(doctor_work.Examinee(str(tree / "a" / "one.mp4"), "video", full=False))
    assert row.findings == ["unreadable: IndexError: list index out of range; please report this file"]
    assert not row.usable


def test_a_file_that_hangs_costs_only_its_own_row(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_work, "_LIMIT_S", 0.0)
    rows = diagnose(tree).rows
    assert [row.findings[0] for row in rows] == ["unreadable: took longer than 0 s"] * 5


def test_training_leaves_out_unusable_files_and_reports_them(tree: Path) -> None:
    diagnose(tree)
    train = DataConfig(root=str(tree), duplicates="keep").open().train
    assert [os.path.relpath(record.path, tree) for record in train.records] == [
        "a/one.mp4",
        "b/one again.mp4",
        "b/two.mp4",
    ]
    assert [record.label for record in train.records] == [0, 1, 1]
    assert "2 of 5 left out as unusable" in train.source
    assert len(DataConfig(root=str(tree), on_error="raise", duplicates="keep").open().train.records) == 5


def test_a_run_lists_a_folder_only_if_it_has_changed_since_the_doctor(tree: Path) -> None:
    diagnose(tree)
    status = (tree / "a").stat()
    removed = next(path for path in sorted((tree / "a").iterdir()) if path.suffix == ".mp4")
    removed.unlink()
    os.utime(tree / "a", ns=(status.st_atime_ns, status.st_mtime_ns))  # as if nothing had changed
    manifest = from_folder(tree)
    assert (len(manifest.records), manifest.notes) == (5, [])
    os.utime(tree / "a")
    manifest = from_folder(tree)
    assert len(manifest.records) == 4
    assert "1 gone, written less than a minute ago" in manifest.notes[0]
    assert str(tree / TABLE_NAME) in manifest.notes[0]


def test_a_run_notices_files_and_folders_added_since_the_doctor(write_video: Callable[..., Path], tree: Path) -> None:
    diagnose(tree)
    (tree / "readme.txt").write_text("not media")
    (tree / "empty").mkdir()
    assert from_folder(tree).notes == ["not classes, because they hold no media: empty"]
    write_video(tree / "a" / "new.mp4", num_frames=10)
    write_video(tree / "new_class" / "deep" / "1.mp4", num_frames=10)
    manifest = from_folder(tree)
    assert "2 added" in manifest.notes[0]
    assert len(manifest.records) == 7
    diagnose(tree)
    assert from_folder(tree).notes == ["not classes, because they hold no media: empty"]


def test_a_table_of_an_earlier_version_is_named_and_not_read(write_video: Callable[..., Path], tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", num_frames=10)
    (tmp_path / "manifest.parquet").write_bytes(b"whatever")
    manifest = from_folder(tmp_path)
    assert len(manifest.records) == 1
    assert "manifest.parquet is out of date (written by an earlier version)" in manifest.notes[0]


def test_names_that_are_not_utf_8_are_in_the_table(tmp_path: Path) -> None:
    names = [b"caf\xe9.mp4", b"plain.mp4"]  # Latin-1
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(b"no video")
    rows = diagnose(tmp_path).rows
    assert [os.fsencode(row.path) for row in rows] == names
    assert [os.fsencode(os.path.basename(path)) for path in from_folder(tmp_path).records.paths()] == names


def test_images_and_frame_folders_are_inspected(tmp_path: Path) -> None:
    frames = tmp_path / "frames" / "a" / "v"
    frames.mkdir(parents=True)
    for number in range(1, 6):
        Image.fromarray(np.full((40, 40, 3), 9 * number, np.uint8)).save(frames / f"{number:08d}.jpg")
    (frames / "00000003.jpg").write_text("no image")
    [row] = diagnose(tmp_path / "frames").rows
    assert (row.kind, row.usable) == ("frames", False)
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (40, 30)).save(images / "black.png")
    [row] = diagnose(images).rows
    assert (row.kind, row.usable, row.width, row.height, row.num_frames) == ("image", True, 40, 30, 1)


def test_cover_art_is_reported(numbered_video: Path, tmp_path: Path) -> None:
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
    [row] = diagnose(folder).rows
    assert (row.usable, row.findings, row.width) == (True, ["cover art"], 80)
    inspection = inspect_video(str(folder / "covered.mp4"), full=False)
    assert judge(inspection._replace(cover="first")) == (["cover art as first stream"], True)  # FFmpeg cannot write one


def test_an_invalid_table_is_an_error_that_names_the_cure(tree: Path) -> None:
    (tree / TABLE_NAME).write_text("not a table")
    with pytest.raises(ConfigError, match="data doctor"):
        from_folder(tree)


def test_a_table_of_a_hundred_thousand_files_opens(tmp_path: Path) -> None:
    names = [f"class_{number % 400:03d}/{number:06d}.mp4" for number in range(100_000)]
    for number in range(400):
        (tmp_path / f"class_{number:03d}").mkdir()
    rows = [MediaRow(n, "video", True, [], 1, "", 1.0, 25.0, 8, 8, "h264", 25, 3) for n in sorted(names)]
    write_table(tmp_path, rows)
    started = time.perf_counter()
    manifest = DataConfig(root=str(tmp_path)).open().train
    print(f"{time.perf_counter() - started:.2f} s")  # not asserted, since it depends on the machine; `-s` shows it
    assert len(manifest.records) == 100_000
    assert len(manifest.classes) == 400
    assert manifest.records[0].path == str(tmp_path / "class_000" / "000000.mp4")


def test_a_subfolder_uses_the_table_of_its_parent(write_video: Callable[..., Path], tmp_path: Path) -> None:
    for number, name in enumerate(("train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4")):
        write_video(tmp_path / name, num_frames=10 + number)
    diagnose(tmp_path)
    table = find_table(tmp_path / "val")
    assert table is not None
    assert table.paths == [str(tmp_path / "val" / "a" / "3.mp4")]
    splits = DataConfig(root=str(tmp_path)).open()
    assert splits.test is not None
    assert (len(splits.train.records), len(splits.test.records)) == (2, 1)


def test_cut_images_are_found_without_decoding_all(tmp_path: Path) -> None:
    intact = jpeg(200, 200)
    (tmp_path / "cut.jpg").write_bytes(intact[: len(intact) * 6 // 10])
    (tmp_path / "intact.jpg").write_bytes(intact)
    (tmp_path / "padded.jpg").write_bytes(intact + bytes(4096))
    (tmp_path / "trailer.jpg").write_bytes(intact + b"what a phone adds" * 100)
    for name in ("PNG", "WEBP", "BMP"):
        data = encoded(smooth(200, 200), name)
        (tmp_path / f"cut.{name.lower()}").write_bytes(data[: len(data) * 6 // 10])
        (tmp_path / f"intact.{name.lower()}").write_bytes(data)
    rows = {row.path: row for row in diagnose(tmp_path).rows}
    assert {name for name, row in rows.items() if not row.usable} == {"cut.jpg", "cut.png", "cut.webp", "cut.bmp"}
    assert [row.findings for row in rows.values() if row.usable] == [[]] * 6


def test_full_decodes_images_to_their_last_pixel(tmp_path: Path) -> None:
    intact = jpeg(200, 200)
    closed = intact[: len(intact) * 6 // 10] + b"\xff\xd9"  # as a repair tool leaves it
    (tmp_path / "closed.jpg").write_bytes(closed)
    frames = tmp_path / "videos" / "a" / "v"
    frames.mkdir(parents=True)
    for number in range(1, 6):
        (frames / f"{number}.jpg").write_bytes(closed if number == 2 else jpeg(200, 200, seed=number))
    assert [row.usable for row in diagnose(tmp_path / "videos").rows] == [True]
    [frames_row] = diagnose(tmp_path / "videos", DoctorConfig(full=True)).rows
    assert (frames_row.usable, frames_row.findings[0].partition(" (")[0]) == (False, "unreadable: is damaged")
    shutil.rmtree(tmp_path / "videos")
    [row] = diagnose(tmp_path).rows
    assert row.usable
    [row] = diagnose(tmp_path, DoctorConfig(full=True)).rows
    assert (row.usable, "premature end of data segment" in row.findings[0]) == (False, True)


def test_peculiar_images_are_named(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (40, 40), "blue")
    contents = {
        "animation.webp": encoded(first, "WEBP", save_all=True, append_images=[second]),
        "animation.png": encoded(first, "PNG", save_all=True, append_images=[second]),
        "dark.png": wide_png(np.full((40, 40, 1), 1000, np.uint16)),
        "joined.jpg": jpeg() + jpeg(seed=1),
        "joined.png": encoded(first, "PNG") + encoded(second, "PNG"),
        "phone.jpg": encoded(first, "MPO", save_all=True, append_images=[second]),
        "plain.jfif": jpeg(),
        "png.jpg": encoded(first, "PNG"),
        "stray.jpg": jpeg()[:20] + bytes(5) + jpeg()[20:],  # behind the first segment
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    rows = diagnose(tmp_path, DoctorConfig(full=True)).rows
    assert {row.path: kinds(row) for row in rows} == {
        "animation.webp": ["several images"],
        "animation.png": ["several images"],
        "dark.png": ["dark"],
        "joined.jpg": ["joined files"],
        "joined.png": ["joined files"],
        "phone.jpg": [],
        "plain.jfif": [],
        "png.jpg": ["wrong suffix"],
        "stray.jpg": ["damaged"],
    }
    assert all(row.usable for row in rows)


def test_names_that_are_not_utf_8_become_rows_and_are_left_out_of_training_when_unusable(tmp_path: Path) -> None:
    good, bad = os.fsencode(tmp_path) + b"/caf\xe9.jpg", os.fsencode(tmp_path) + b"/d\xfcnn.jpg"
    for name, data in ((good, jpeg()), (bad, jpeg()[:900])):
        with open(name, "wb") as file:
            file.write(data)
    diagnosis = diagnose(tmp_path)
    assert [(os.fsencode(row.path), row.usable) for row in diagnosis.rows] == [
        (b"caf\xe9.jpg", True),
        (b"d\xfcnn.jpg", False),
    ]
    assert [os.fsencode(record.path) for record in DataConfig(root=str(tmp_path)).open().train.records] == [good]


def test_broken_links_are_rows_of_the_report_and_those_to_folders_not_of_the_table(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "video").symlink_to(tmp_path / "unmounted")
    (tmp_path / "lost+found").mkdir()
    diagnosis = diagnose(tmp_path, DoctorConfig(workers=1))
    assert [(row.path, row.usable) for row in diagnosis.rows] == [("a.png", True), ("b.png", False), ("video", False)]
    assert diagnosis.rows[-1].findings == ["unreadable folder: broken link"]
    table = find_table(tmp_path)
    assert table is not None
    assert [os.path.basename(path) for path in table.paths] == ["a.png", "b.png"]
    assert table.ignored == {"unreadable folders": 1, "system leftovers": 1}


def test_each_of_several_image_sequences_is_inspected(tmp_path: Path) -> None:
    (tmp_path / "run" / "v").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (40, 30)).save(tmp_path / "run" / "v" / f"img_{number}.png")
        Image.new("RGB", (20, 16)).save(tmp_path / "run" / "v" / f"flow_x_{number}.png")
    (tmp_path / "run" / "v" / "flow_x_1.png").write_text("no image")
    diagnosis = diagnose(tmp_path, DoctorConfig(workers=1))
    assert [(row.path, row.kind, row.usable, row.num_frames) for row in diagnosis.rows] == [
        ("run/v/flow_x_*.png", "frames", False, 0),
        ("run/v/img_*.png", "frames", True, 3),
    ]
    assert diagnosis.skipped == []
