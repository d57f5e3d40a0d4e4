"""Tests of the guarantees that all video decoders share."""

import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from eztorch_sce.data.decoders.base import Decoder, DecoderConfig, Timing
from eztorch_sce.data.decoders.decord import DecordConfig
from eztorch_sce.data.decoders.pyav.decoder import PyAVConfig
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.types import ClipSpan

FPS = 30
Numbers = Callable[[Tensor], list[int]]
ExpectedNumbers = Callable[[ClipSpan, int, int], list[int]]
BuildDecoder = Callable[[str], Decoder]
WriteVideo = Callable[..., Path]


def test_random_clips_contain_the_frames_shown_at_their_times(
    decoder: Decoder, numbered_video: Path, numbers_shown: Numbers, expected_numbers: ExpectedNumbers
) -> None:
    draw = random.Random(0)
    for _ in range(15):
        starts = [draw.uniform(0, 7.4) for _ in range(3)]
        spans = [ClipSpan(start, start + draw.choice([0.2, 1.28, 2.56])) for start in starts]
        num_frames = draw.choice([1, 8, 16])
        clips = decoder.read(str(numbered_video), spans, num_frames)
        for clip, span in zip(clips, spans, strict=True):
            assert clip.frames.shape == (3, num_frames, 32, 80)
            assert clip.frames.dtype == torch.uint8
            assert numbers_shown(clip.frames) == expected_numbers(span, num_frames, 299)
            assert clip.pts_s.dtype == torch.float64
            assert clip.pts_s.tolist() == pytest.approx([n / FPS for n in numbers_shown(clip.frames)], abs=1e-4)


def test_a_clip_does_not_depend_on_the_other_spans_or_their_order(decoder: Decoder, numbered_video: Path) -> None:
    spans = [ClipSpan(6.0, 8.56), ClipSpan(0.0, 2.56), ClipSpan(6.5, 9.06), ClipSpan(0.0, 2.56)]
    together = decoder.read(str(numbered_video), spans, 8)
    for span, clip in zip(spans, together, strict=True):
        [alone] = decoder.read(str(numbered_video), [span], 8)
        assert torch.equal(clip.frames, alone.frames)
        assert torch.equal(clip.pts_s, alone.pts_s)


def test_a_clip_repeats_frames_if_the_video_has_fewer(
    decoder: Decoder, write_video: WriteVideo, numbers_shown: Numbers, tmp_path: Path
) -> None:
    path = str(write_video(tmp_path / "three.mp4", num_frames=3))
    [clip] = decoder.read(path, [ClipSpan(0.0, decoder.probe(path).duration_s)], 8)
    assert numbers_shown(clip.frames) == [0, 0, 0, 1, 1, 2, 2, 2]


def test_a_video_of_one_frame_is_a_clip_of_that_frame(
    decoder: Decoder, write_video: WriteVideo, numbers_shown: Numbers, tmp_path: Path
) -> None:
    path = str(write_video(tmp_path / "one.mp4", num_frames=1))
    [clip] = decoder.read(path, [ClipSpan(0.0, 0.0)], 4)
    assert numbers_shown(clip.frames) == [0, 0, 0, 0]


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv", "avi", "flv", "ts"])
@pytest.mark.parametrize("first_pts", [0, 17])
def test_time_starts_at_the_first_displayed_frame_in_every_container(
    container: str,
    first_pts: int,
    build_decoder: BuildDecoder,
    write_video: WriteVideo,
    numbers_shown: Numbers,
    expected_numbers: ExpectedNumbers,
    tmp_path: Path,
) -> None:
    path = write_video(tmp_path / f"video.{container}", first_pts=first_pts)
    for name in ("pyav", "decord"):
        if name == "decord" and container in ("avi", "ts"):
            continue  # refused: AVI has no timestamps, and decord seeks to wrong frames in MPEG-TS
        decoder = build_decoder(name)
        for span in (ClipSpan(0.0, 1.0), ClipSpan(2.3, 3.9)):
            [clip] = decoder.read(str(path), [span], 8)
            assert numbers_shown(clip.frames) == expected_numbers(span, 8, 119)
        assert decoder.probe(str(path)).duration_s == pytest.approx(4.0, abs=0.1)


def test_probe_returns_the_duration_rate_size_and_codec(decoder: Decoder, numbered_video: Path) -> None:
    info = decoder.probe(str(numbered_video))
    assert info.duration_s == pytest.approx(10.0, abs=0.04)
    assert info.fps == pytest.approx(FPS)
    assert (info.width, info.height, info.codec) == (80, 32, "h264")


def test_spans_may_depend_on_the_timing(decoder: Decoder, numbered_video: Path, numbers_shown: Numbers) -> None:
    def last_second(timing: Timing) -> list[ClipSpan]:
        assert timing.fps == pytest.approx(FPS)
        return [ClipSpan(timing.duration_s - 1, timing.duration_s)]

    [clip] = decoder.read(str(numbered_video), last_second, 3)
    assert numbers_shown(clip.frames) == [275, 285, 295]


@pytest.mark.parametrize("turns", [0, 1])
def test_a_clip_of_non_square_pixels_has_its_display_size(
    decoder: Decoder, turns: int, numbered_video: Path, tmp_path: Path
) -> None:
    import av

    with av.open(str(numbered_video)) as source, av.open(str(tmp_path / "wide.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.sample_aspect_ratio = Fraction(2, 1)
        if turns:
            stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    [clip] = decoder.read(str(tmp_path / "wide.mp4"), [ClipSpan(0.0, 1.0)], 2)
    assert clip.frames.shape[-2:] == ((80, 32) if turns else (32, 80))
    assert clip.full_size == ((80, 16) if turns else (32, 160))  # 1 : 5 and 5 : 1


def test_a_time_after_the_last_frame_is_refused(decoder: Decoder, numbered_video: Path) -> None:
    [clip] = decoder.read(str(numbered_video), [ClipSpan(9.9, 10.4)], 2)  # a rounded duration is not damage
    assert clip.pts_s[-1].item() == pytest.approx(299 / FPS, abs=1e-4)
    with pytest.raises(MediaError, match=r"ends at 10\.0"):
        decoder.read(str(numbered_video), [ClipSpan(10.0, 12.0)], 4)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.mp4", None),
        ("empty.mp4", b""),
        ("text.mp4", b"not a video\n" * 50),
        ("noise.avi", random.Random(0).randbytes(5000)),
    ],
)
def test_a_file_that_is_not_a_video_raises_a_media_error_with_its_name(
    decoder: Decoder, name: str, content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError, match=name):
        decoder.read(str(path), [ClipSpan(0.0, 1.0)], 8)
    with pytest.raises(MediaError, match=name):
        decoder.probe(str(path))


def test_audio_alone_is_not_a_video(decoder: Decoder, tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="video stream"):
        decoder.read(str(tmp_path / "sound.mp4"), [ClipSpan(0.0, 0.1)], 2)


def test_file_names_may_contain_any_characters(
    decoder: Decoder, write_video: WriteVideo, numbers_shown: Numbers, tmp_path: Path
) -> None:
    path = write_video(tmp_path / "a:b %03d ünï (1) #?&.mp4", num_frames=10)
    [clip] = decoder.read(str(path), [ClipSpan(0.0, 10 / FPS)], 10)
    assert numbers_shown(clip.frames) == list(range(10))


def test_a_decoder_can_be_pickled(decoder: Decoder, numbered_video: Path) -> None:
    copy: Decoder = pickle.loads(pickle.dumps(decoder))
    [clip] = copy.read(str(numbered_video), [ClipSpan(0.0, 1.0)], 2)
    assert clip.frames.shape == (3, 2, 32, 80)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc, which is missing")
def test_reading_leaves_no_file_open(decoder: Decoder, write_video: WriteVideo, tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "short.mp4", num_frames=20))
    (tmp_path / "text.mp4").write_text("no video" * 40)
    decoder.read(path, [ClipSpan(0.0, 0.5)], 2)
    num_open = len(os.listdir("/proc/self/fd"))
    for _ in range(300):
        decoder.read(path, [ClipSpan(0.0, 0.5)], 2)
        with pytest.raises(MediaError):
            decoder.read(str(tmp_path / "text.mp4"), [ClipSpan(0.0, 0.5)], 2)
    assert len(os.listdir("/proc/self/fd")) == num_open


@pytest.mark.parametrize(("config", "package"), [(PyAVConfig(), "av"), (DecordConfig(), "decord")])
def test_the_error_for_a_missing_package_says_how_to_install_it(
    config: DecoderConfig, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"pip install {package}"):
        config.build()


@pytest.mark.long
@pytest.mark.skipif(not os.path.isfile("/proc/self/statm"), reason="memory is read from /proc, which is missing")
@pytest.mark.parametrize(
    ("name", "num_reads", "max_bytes_per_read"),  # torchcodec itself leaks up to 15 kB per read
    [("pyav", 2000, 200), ("decord", 1000, 1000), ("torchcodec", 1000, 20000)],
)
def test_thousands_of_reads_leak_neither_files_nor_memory(
    name: str,
    num_reads: int,
    max_bytes_per_read: int,
    build_decoder: BuildDecoder,
    write_video: WriteVideo,
    tmp_path: Path,
) -> None:
    build_decoder(name)  # skips a decoder that is not installed
    video, text = write_video(tmp_path / "short.mp4", num_frames=12, key_every=6), tmp_path / "text.mp4"
    text.write_text("no video" * 40)
    # Measure in a fresh process, whose memory no other test has used and freed.
    command = [sys.executable, "-c", _READ_AND_MEASURE, name, str(num_reads), str(video), str(text)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    new_files, new_bytes = map(int, output.split())
    assert new_files == 0
    assert new_bytes < num_reads * max_bytes_per_read


_READ_AND_MEASURE = """
import ctypes, os, sys
from eztorch_sce.errors import MediaError
from eztorch_sce.registry import choices
from eztorch_sce.types import ClipSpan

name, num_reads, video, text = sys.argv[1:]
decoder = choices("decoder")[name]().build()

def read(times):
    for number in range(times):
        decoder.read(video, [ClipSpan(0.0, 0.1), ClipSpan(0.2, 0.4)], 4)
        if number % 10 == 0:
            try:
                decoder.read(text, [ClipSpan(0.0, 0.5)], 2)
                raise SystemExit("text was read as a video")
            except MediaError:
                pass

def in_use():
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # memory that is free but kept for reuse is not leaked
    with open("/proc/self/statm") as file:
        return len(os.listdir("/proc/self/fd")), int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

read(int(num_reads) // 10)
files, memory = in_use()
read(int(num_reads))
new_files, new_memory = in_use()
print(new_files - files, new_memory - memory)
"""
