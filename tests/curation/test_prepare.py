"""Tests of `data prepare`: copies show the same frames as their sources, and interrupted runs continue."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from eztorch_sce.curation.inspection import inspect_video
from eztorch_sce.curation.prepare import prepare
from eztorch_sce.curation.settings import PrepareConfig
from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.data.decoders.pyav.decoder import PyAVDecoder
from eztorch_sce.data.sources.media_table import TABLE_NAME
from eztorch_sce.errors import ConfigError
from eztorch_sce.types import ClipSpan

SMALL = PrepareConfig(short_side=16, workers=1)


@pytest.fixture
def sources(write_video: Callable[..., Path], tmp_path: Path) -> Path:
    """Tree of two videos with numbered frames, one of them with B-frames and a late start, and a broken file."""
    root = tmp_path / "sources"
    write_video(root / "a" / "one.mp4", num_frames=60, key_every=100)
    write_video(root / "b" / "two.mkv", num_frames=45, b_frames=3, first_pts=20)
    (root / "b" / "text.avi").write_text("not a video\n" * 30)
    return root


def shown(path: Path, duration_s: float, count: int) -> list[list[int]]:
    """Return the bits shown by the blocks of each frame, whatever the size of the blocks."""
    [clip] = PyAVDecoder().read(str(path), [ClipSpan(0.0, duration_s)], count)
    height, width = clip.frames.shape[-2:]
    blocks = clip.frames.float().mean(dim=0).reshape(count, 2, height // 2, 5, width // 5).mean(dim=(2, 4))
    return (blocks > 128).flatten(start_dim=1).int().tolist()


def test_a_copy_shows_the_same_frames_at_the_same_times(sources: Path, tmp_path: Path) -> None:
    prepared = prepare(sources, tmp_path / "copies", SMALL)
    assert (prepared.num_written, prepared.num_kept) == (2, 0)
    assert [Path(path).name for path in prepared.failed] == ["text.avi"]
    assert prepared.speedup is not None
    for name, num_frames in (("a/one.mp4", 60), ("b/two.mkv", 45)):
        source, copy = sources / name, (tmp_path / "copies" / name).with_suffix(".mp4")
        info = PyAVDecoder().probe(str(copy))
        assert (info.width, info.height, info.codec) == (40, 16, "h264")
        assert info.duration_s == pytest.approx(num_frames / 30, abs=0.01)
        inspection = inspect_video(str(copy), full=True)
        assert (inspection.num_packets, inspection.num_decoded) == (num_frames, num_frames)
        assert inspection.num_keys >= num_frames // 16
        assert shown(copy, num_frames / 30, num_frames) == shown(source, num_frames / 30, num_frames)


def test_a_second_run_writes_only_missing_copies(sources: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    prepare(sources, copies, SMALL)
    before = (copies / "a" / "one.mp4").stat().st_mtime_ns
    (copies / "b" / "two.mp4").unlink()
    for name in (
        ".two.mp4.1a2b3c4d.partial",
        "two.mp4.partial",
    ):  # left by killed runs of this and an earlier version
        (copies / "b" / name).write_text("half a copy")
    (copies / "b" / ".three.mp4.1a2b3c4d.partial").write_text("a file of another process")
    prepared = prepare(sources, copies, SMALL)
    assert (prepared.num_written, prepared.num_kept) == (1, 1)
    assert (copies / "a" / "one.mp4").stat().st_mtime_ns == before
    assert [path.name for path in copies.rglob("*.partial")] == [".three.mp4.1a2b3c4d.partial"]


def test_a_second_run_tries_failed_videos_again_and_keeps_the_copies_of_their_shard(
    sources: Path, tmp_path: Path
) -> None:
    copies, broken = tmp_path / "copies", sources / "b" / "text.avi"
    assert list(prepare(sources, copies, SMALL).failed) == [str(broken)]
    assert list(prepare(sources, copies, SMALL).failed) == [str(broken)]
    shutil.copy(sources / "a" / "one.mp4", broken)
    prepared = prepare(sources, copies, SMALL)
    assert (prepared.num_written, prepared.num_kept, prepared.num_copies, prepared.failed) == (1, 2, 3, {})


def test_a_copy_of_a_source_that_has_changed_is_written_again(sources: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    prepare(sources, copies, SMALL)
    shutil.copy(sources / "b" / "two.mkv", sources / "a" / "one.mp4")
    assert prepare(sources, copies, SMALL).num_written == 1
    assert PyAVDecoder().probe(str(copies / "a" / "one.mp4")).duration_s == pytest.approx(45 / 30, abs=0.01)


def test_a_half_written_file_of_settings_does_not_matter(sources: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / ".prepare.json.1a2b3c4d.partial").write_text("{")  # left by a killed run
    assert prepare(sources, copies, SMALL).num_written == 2


def test_a_gap_is_not_filled_with_copies_of_one_frame(write_video: Callable[..., Path], tmp_path: Path) -> None:
    import av

    whole = write_video(tmp_path / "whole.mkv", num_frames=60)
    (tmp_path / "s").mkdir()
    with av.open(str(whole)) as source, av.open(str(tmp_path / "s" / "hole.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                late = 600_000 if packet.pts > 1000 else 0  # milliseconds
                packet.pts, packet.dts, packet.stream = packet.pts + late, packet.dts + late, stream
                target.mux(packet)
    for out, fps in (("c", None), ("d", 10)):
        prepared = prepare(tmp_path / "s", tmp_path / out, replace(SMALL, fps=fps))
        assert "timestamps jump" in prepared.failed[str(tmp_path / "s" / "hole.mkv")]


def test_the_error_for_a_full_disk_says_how_to_continue(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Iterator[None]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield

    monkeypatch.setattr("eztorch_sce.curation.shard_tasks.for_each", full)
    with pytest.raises(
        ConfigError, match=r"No space left on device.* run the same command again; finished shards are kept"
    ):
        prepare(sources, tmp_path / "copies", SMALL)


def test_a_folder_without_videos_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "s" / "image.png")
    with pytest.raises(ConfigError, match="no video"):
        prepare(tmp_path / "s", tmp_path / "c", SMALL)


def test_copies_are_upright_with_square_pixels(numbered_video: Path, tmp_path: Path) -> None:
    import av

    (tmp_path / "s").mkdir()
    with av.open(str(numbered_video)) as source, av.open(str(tmp_path / "s" / "odd.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.sample_aspect_ratio = 2
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    prepare(tmp_path / "s", tmp_path / "c", SMALL)
    [clip] = PyAVDecoder().read(str(tmp_path / "c" / "odd.mp4"), [ClipSpan(0.0, 1.0)], 1)
    assert clip.frames.shape[-2:] == (80, 16)  # stored 80 x 32, displayed 160 x 32, rotated, short side 16
    assert clip.full_size is None


def test_a_lower_frame_rate_keeps_the_frames_shown_at_its_times(sources: Path, tmp_path: Path) -> None:
    prepare(sources, tmp_path / "copies", replace(SMALL, fps=10))
    inspection = inspect_video(str(tmp_path / "copies" / "a" / "one.mp4"), full=False)
    assert inspection.num_packets == 20
    assert shown(tmp_path / "copies" / "a" / "one.mp4", 2.0, 20) == shown(sources / "a" / "one.mp4", 2.0, 60)[::3]


def test_copies_can_be_frame_folders(sources: Path, tmp_path: Path) -> None:
    prepared = prepare(sources, tmp_path / "copies", replace(SMALL, to="frames"))
    assert prepared.num_written == 2
    info = FramesDecoder().probe(str(tmp_path / "copies" / "a" / "one"))
    assert info.duration_s == pytest.approx(2.0, abs=0.05)
    assert (info.width, info.height) == (40, 16)


def test_sources_and_foreign_files_are_not_overwritten(sources: Path, tmp_path: Path) -> None:
    for out in (sources, sources / "copies", sources.parent):
        with pytest.raises(ConfigError, match="outside"):
            prepare(sources, out, SMALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.mp4").write_text("a video")
    with pytest.raises(ConfigError, match="not made by `data prepare`"):
        prepare(sources, tmp_path / "mine", SMALL)


def test_all_mistakes_are_reported_at_once(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        prepare(sources, sources, PrepareConfig(short_side=0, gop=0, crf=99, to="gif"))
    for setting in ("short_side=0", "gop=0", "crf=99", "to=gif", "OUT="):
        assert any(setting in problem for problem in refused.value.problems)
    prepare(sources, tmp_path / "copies", SMALL)
    with pytest.raises(ConfigError, match="short_side=16"):
        prepare(sources, tmp_path / "copies", PrepareConfig(short_side=24))
    shutil.copy(sources / "a" / "one.mp4", sources / "a" / "one.mov")
    with pytest.raises(ConfigError, match="the same name"):
        prepare(sources, tmp_path / "others", SMALL)
    assert not (tmp_path / "others").exists()


def test_the_command_writes_the_table(sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from eztorch_sce import cli

    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "prepare", str(sources), str(tmp_path / "copies"), "short_side=16", "workers=1"])
    assert ended.value.code == 1  # text.avi
    assert "no copy of" in capsys.readouterr().out
    assert (tmp_path / "copies" / TABLE_NAME).is_file()
    assert json.loads((tmp_path / "copies" / "prepare.json").read_text())["short_side"] == 16
