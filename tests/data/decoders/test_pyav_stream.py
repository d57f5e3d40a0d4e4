"""Tests of reading a video stream with PyAV: seeking, damage, and unusual files."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from eztorch_sce.data.decoders.pyav.decoder import PyAVConfig
from eztorch_sce.errors import MediaError
from eztorch_sce.types import ClipSpan

Numbers = Callable[[Tensor], list[int]]
ExpectedNumbers = Callable[[ClipSpan, int, int], list[int]]
WriteVideo = Callable[..., Path]


@pytest.mark.parametrize("key_every", [1, 7, 1000])
@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "avi"])
def test_seeking_returns_the_same_frames_as_decoding_from_the_start(
    container: str,
    key_every: int,
    write_video: WriteVideo,
    numbers_shown: Numbers,
    expected_numbers: ExpectedNumbers,
    tmp_path: Path,
) -> None:
    path = write_video(tmp_path / f"video.{container}", num_frames=400, key_every=key_every, b_frames=3)
    for start_s in (0.01, 3.14, 6.0, 12.9):
        spans = [ClipSpan(start_s, start_s + 0.4), ClipSpan(11.0, 11.4)]
        for clip, span in zip(PyAVConfig().build().read(str(path), spans, 6), spans, strict=True):
            assert numbers_shown(clip.frames) == expected_numbers(span, 6, 399)


def test_a_truncated_video_is_read_up_to_the_cut_and_refused_after_it(
    write_video: WriteVideo, numbers_shown: Numbers, expected_numbers: ExpectedNumbers, tmp_path: Path
) -> None:
    whole = write_video(tmp_path / "whole.mkv", num_frames=300)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    decoder, path = PyAVConfig().build(), str(tmp_path / "cut.mkv")
    span = ClipSpan(1.0, 2.0)
    [clip] = decoder.read(path, [span], 8)
    assert numbers_shown(clip.frames) == expected_numbers(span, 8, 299)
    with pytest.raises(MediaError, match="truncated"):
        decoder.read(path, [span, ClipSpan(8.0, 9.0)], 8)


def test_damaged_packets_do_not_affect_frames_elsewhere(
    write_video: WriteVideo, numbers_shown: Numbers, expected_numbers: ExpectedNumbers, tmp_path: Path
) -> None:
    whole = write_video(tmp_path / "whole.mp4", num_frames=300, key_every=30)
    content = bytearray(whole.read_bytes())
    start, length = len(content) // 4, len(content) // 10  # about two of the ten seconds
    content[start : start + length] = random.Random(0).randbytes(length)
    (tmp_path / "noisy.mp4").write_bytes(content)
    decoder, path = PyAVConfig().build(), str(tmp_path / "noisy.mp4")
    for span in (ClipSpan(1.0, 2.0), ClipSpan(9.1, 9.9)):
        [clip] = decoder.read(path, [span], 8)
        assert numbers_shown(clip.frames) == expected_numbers(span, 8, 299)
    with pytest.raises(MediaError, match="damaged"):
        decoder.read(path, [ClipSpan(0.0, 10.0)], 100)


def test_reading_continues_past_a_stream_that_begins_midway(
    write_video: WriteVideo, numbers_shown: Numbers, expected_numbers: ExpectedNumbers, tmp_path: Path
) -> None:
    import av

    first = write_video(tmp_path / "first.ts", num_frames=400).read_bytes()
    second = write_video(tmp_path / "second.ts", num_frames=100, first_pts=400, audio=True).read_bytes()
    audio = [second[at : at + 188] for at in range(0, len(second), 188) if second[at + 2] == 1]
    # The audio packets once more, with a stream number that no table declares.
    stray = b"".join(packet[:1] + bytes([packet[1] & 0xE0 | 0x0A]) + packet[2:] for packet in audio)
    padding = (b"\x47\x1f\xff\x10" + bytes(184)) * 32_000  # more than FFmpeg probes when it opens a file
    path = str(tmp_path / "joined.ts")
    Path(path).write_bytes(first + padding + stray + padding + second)
    with av.open(path) as container, pytest.raises(IndexError):  # PyAV only knows the streams found on opening
        for _ in container.demux(video=0):
            pass
    span = ClipSpan(12.0, 16.4)
    [clip] = PyAVConfig().build().read(path, [span], 8)
    assert numbers_shown(clip.frames) == [number % 400 for number in expected_numbers(span, 8, 499)]


def test_a_gif_is_read_as_a_video(
    tmp_path: Path, numbered_image: Callable[[int], np.ndarray], numbers_shown: Numbers
) -> None:
    images = [Image.fromarray(numbered_image(i)) for i in range(6)]
    images[0].save(tmp_path / "moving.gif", save_all=True, append_images=images[1:], duration=100, loop=0)
    spans = [ClipSpan(0.3, 0.6), ClipSpan(0.0, 0.3)]
    late, early = PyAVConfig().build().read(str(tmp_path / "moving.gif"), spans, 3)
    assert numbers_shown(late.frames) == [3, 4, 5]
    assert numbers_shown(early.frames) == [0, 1, 2]


def test_each_image_of_a_gif_is_shown_for_its_own_duration(
    tmp_path: Path, numbered_image: Callable[[int], np.ndarray], numbers_shown: Numbers
) -> None:
    images = [Image.fromarray(numbered_image(i)) for i in range(3)]
    durations_ms = [100, 400, 100]
    images[0].save(tmp_path / "slow.gif", save_all=True, append_images=images[1:], duration=durations_ms, loop=0)
    decoder, path = PyAVConfig().build(), str(tmp_path / "slow.gif")
    assert decoder.probe(path).duration_s == pytest.approx(0.6, abs=0.02)
    [clip] = decoder.read(path, [ClipSpan(0.0, 0.6)], 6)
    assert numbers_shown(clip.frames) == [0, 1, 1, 1, 1, 2]
    images[2].save(tmp_path / "still.gif")
    [clip] = decoder.read(str(tmp_path / "still.gif"), [ClipSpan(0.0, 0.0)], 2)
    assert numbers_shown(clip.frames) == [2, 2]
