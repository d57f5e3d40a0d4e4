"""Tests of videos that were joined with `cat`, and of other files that are not what they seem."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, jpeg, smooth
from torch import Tensor

from eztorch_sce.curation.doctor import diagnose
from eztorch_sce.data.decoders.image import load_image
from eztorch_sce.data.decoders.pyav.decoder import PyAVDecoder
from eztorch_sce.data.decoders.pyav.joined import joints
from eztorch_sce.data.decoders.pyav.pixels import display_matrix, upright
from eztorch_sce.data.members import member_path
from eztorch_sce.errors import MediaError
from eztorch_sce.types import ClipSpan

Write = Callable[..., Path]


def write_mpeg(path: Path, numbers: range, image: Callable[[int], np.ndarray], container: str) -> bytes:
    """Return MPEG-2 video that shows some numbers, in an MPEG container, of 30 frames per second."""
    import av

    with av.open(str(path), "w", format=container) as target:
        stream = target.add_stream("mpeg2video", rate=30, options={"b": "3M", "bf": "2", "g": "12", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 80, 32, "yuv420p"
        for place, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(image(number), format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, 30)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize("container", ["mpegts", "mpeg", "vob"])
def test_joined_mpeg_streams_are_read_whole(
    container: str,
    tmp_path: Path,
    numbered_image: Callable[[int], np.ndarray],
    numbers_shown: Callable[[Tensor], list[int]],
) -> None:
    parts = [range(0, 45), range(45, 105), range(105, 135)]
    data = [write_mpeg(tmp_path / "part", numbers, numbered_image, container) for numbers in parts]
    path = tmp_path / "videos" / ("a.ts" if container == "mpegts" else "a.mpg")
    path.parent.mkdir()
    path.write_bytes(b"".join(data))
    decoder = PyAVDecoder()
    (clip,) = decoder.read(str(path), lambda timing: [ClipSpan(0.0, timing.duration_s)], 9)
    assert decoder.probe(str(path)).duration_s == pytest.approx(135 / 30, abs=0.15)
    assert numbers_shown(clip.frames) == pytest.approx(range(7, 135, 15), abs=2)
    (late,) = decoder.read(str(path), [ClipSpan(3.7, 4.1)], 2)
    assert numbers_shown(late.frames) == pytest.approx([114, 120], abs=3)
    assert len(list(decoder.frames(str(path), 32))) == pytest.approx(135, abs=3)  # program streams lack timestamps
    [row] = diagnose(path.parent).rows
    assert (row.usable, row.num_frames) == (True, 135)
    assert "joined recordings: 3, which are read as one; only data.decoder=pyav can" in row.findings
    with pytest.raises(MediaError, match=r"is 3 recordings joined; use data\.decoder=pyav"):
        decoder.timing_and_size(str(path))


def test_joined_transport_streams_are_read_whole_from_a_shard(
    tmp_path: Path, write_video: Write, numbers_shown: Callable[[Tensor], list[int]]
) -> None:
    part = write_video(tmp_path / "a.ts", num_frames=60).read_bytes()
    (tmp_path / "shard.tar").write_bytes(bytes(512) + part + part)
    path = member_path(str(tmp_path / "shard.tar"), "a.ts", 512, 2 * len(part))
    (clip,) = PyAVDecoder().read(path, lambda timing: [ClipSpan(0.0, timing.duration_s)], 4)
    assert numbers_shown(clip.frames) == [15, 45, 15, 45]


def test_a_single_stray_timestamp_is_no_joint() -> None:
    def of(*stamps: int) -> dict[int, int]:
        return joints([(stamp, 1) for stamp in stamps], tick_s=0.1, interval_s=0.1)

    assert of(0, 1, 2, 3) == {}
    assert of(10, 11, 2, 13, 14) == {}
    assert of(10, 11, 99, 13, 14) == {}
    assert of(10, 11, 12, 0, 1, 2) == {3: 13}
    assert of(10, 11, 0, 1, 0, 1) == {2: 12}  # the second goes back by only 0.1 s


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "flv"])
def test_the_doctor_names_joined_files_of_which_only_the_first_is_read(
    suffix: str, tmp_path: Path, write_video: Write
) -> None:
    first = write_video(tmp_path / f"a.{suffix}", num_frames=30).read_bytes()
    second = write_video(tmp_path / f"b.{suffix}", num_frames=60).read_bytes()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / f"both.{suffix}").write_bytes(first + second)
    (tmp_path / "videos" / f"one.{suffix}").write_bytes(second)
    both, one = diagnose(tmp_path / "videos").rows
    assert f"joined files: another begins at byte {len(first)}, and only the first is read" in both.findings
    assert one.findings == []


def test_the_doctor_names_a_video_of_several_streams(
    tmp_path: Path, numbered_image: Callable[[int], np.ndarray]
) -> None:
    import av

    with av.open(str(tmp_path / "two.mp4"), "w") as target:
        streams = [target.add_stream("libx264", rate=30, options={"threads": "1"}) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 80, 32, "yuv420p"
        for number in range(30):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(numbered_image(number), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 30)
                target.mux(stream.encode(frame))
        for stream in streams:
            target.mux(stream.encode(None))
    [row] = diagnose(tmp_path).rows
    assert row.findings == ["several video streams: 2, of which one is read"]


def test_a_file_that_is_no_video_is_named_for_what_it_is(tmp_path: Path) -> None:
    contents = {
        "is a JPEG image, not a video": jpeg(),
        "is a PNG image, not a video": encoded(smooth(64, 64), "PNG"),
        "is a TIFF image, not a video": encoded(smooth(64, 64), "TIFF"),
        "is an AVIF image, not a video": encoded(smooth(64, 64), "AVIF"),
        "it is an HTML page, not a video": b"<!DOCTYPE html><html><title>404</title></html>" * 9,
        "it is a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "is empty": b"",
    }
    for reason, data in contents.items():
        (tmp_path / "a.mp4").write_bytes(data)
        with pytest.raises(MediaError, match=reason):
            PyAVDecoder().probe(str(tmp_path / "a.mp4"))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_in_a_motion_jpeg_does_not_end_the_run(orientation: int, tmp_path: Path) -> None:
    """FFmpeg attaches EXIF to frames as a kind of data that PyAV has no name for."""
    import av

    exif = smooth(32, 64).getexif()
    exif[0x0112] = orientation
    (tmp_path / "a.jpg").write_bytes(encoded(smooth(32, 64), "JPEG", exif=exif.tobytes()))
    with av.open(str(tmp_path / "a.jpg")) as container:
        frame = next(container.decode(video=0))
    turned = upright(frame.to_ndarray(format="rgb24"), display_matrix(frame))
    expected = load_image(str(tmp_path / "a.jpg"))
    assert turned.shape == expected.shape
    assert np.abs(turned.astype(int) - expected).mean() < 5
