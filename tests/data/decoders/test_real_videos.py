"""Tests on real videos, intact and broken: every decoder returns FFmpeg's own frames, or refuses the file."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from eztorch_sce.data import clip_sampling
from eztorch_sce.data.decoders.base import SNAP_S, Decoder, Timing, frame_times, shown_at
from eztorch_sce.data.decoders.decord import DecordConfig
from eztorch_sce.data.decoders.pyav.decoder import PyAVConfig
from eztorch_sce.errors import MediaError
from eztorch_sce.types import ClipSpan

_DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
_REAL = sorted(path.name for path in (_DATA / "assorted" / "real").glob("*"))
_ASSORTED = [f"real/{name}" for name in _REAL] + sorted(
    f"transcoded/{path.name}" for path in (_DATA / "assorted" / "transcoded").glob("*")
)
_BROKEN = sorted(path.name for path in (_DATA / "broken").glob("*") if path.name != "ODD.tsv")
_BLANK = {"decord__unordered.mov"}  # four white frames

_UNREADABLE = {  # text in the error
    "audio_only.mp4": "no video stream",
    "dangling_link.mp4": "cannot be opened",
    "random_bytes.avi": "cannot be opened",
    "text_renamed.mp4": "cannot be opened",
    "truncated_no_moov.mp4": "moov",
    "zero_bytes.mp4": "empty",
    "zero_frames.mp4": "no video stream",
}
_UNREADABLE_TO_THE_END = {  # text in the error
    "corrupt_middle.mp4": "damaged",  # half a second is lost
    "corrupt_middle.ts": "truncated",  # claims to last 5454 s
    "timestamp_gap_600s.mkv": "jump",
    "truncated_midstream.mp4": "truncated",
}
_CONCEALED_DIFFERENTLY = {"bit_noise.mp4", "corrupt_middle.avi", "truncated_no_index.avi"}  # decord fills in frames

_DECORD_REFUSES = {
    "real/decord__corrupted.mp4": "stops at a packet that it cannot decode",
    "real/hfdatasets__test_video_66x50.mov": "an edit list hides the first frames",
    "real/imageio__newtonscradle.gif": "cannot read GIF",
    "real/mmaction2__test.avi": "finds no usable timestamps in AVI with B-frames",
    "real/torchcodec__av1_video.mkv": "cannot decode AV1",
    "transcoded/av1_aom.webm": "cannot decode AV1",
    "transcoded/av1_svt.mkv": "cannot decode AV1",
    "transcoded/edit_list_copy_cut.mp4": "an edit list hides the first frames",
    "transcoded/gif_anim.gif": "cannot read GIF",
    "transcoded/h264.ts": "seeks to wrong frames in MPEG-TS",
    "transcoded/mpeg2.mpg": "seeks to wrong frames in MPEG-PS",
    "transcoded/mpeg2.ts": "seeks to wrong frames in MPEG-TS",
    "transcoded/tiny_16x16.mp4": "pads frames to 32 bytes",
    "transcoded/wmv2.wmv": "seeks to wrong frames in ASF",
}
_DECORD_TOLERANCES = {  # largest mean difference per clip in gray levels, and its reason
    "real/torchcodec__h264_10bits.mp4": (5, "upsamples 10-bit chroma differently; a test chart of sharp colors"),
    "real/torchcodec__h265_10bits.mp4": (5, "as above"),
    "transcoded/dv.avi": (0.5, "uses another inverse cosine transform"),
    "transcoded/hmdb51_like_divx_noaudio_240p_30fps.avi": (0.01, "uses another inverse cosine transform"),
    "transcoded/interlaced_tff.mp4": (1.5, "upsamples the chroma of interlaced fields differently"),
    "transcoded/odd_161x121_vp9.webm": (1.5, "upsamples the chroma of odd sizes differently"),
}
_DECORD_IS_WRONG = {
    "real/imageio__cockatoo.mp4": "after a seek, it does not know that an old x264 coded this 4:4:4 video",
    "real/torchcodec__h265_video.mp4": "open groups of pictures: frames before a key frame lack their references",
    "transcoded/h264_open_gop.mkv": "open groups of pictures, as above",
    "transcoded/two_video_two_audio.mkv": "chooses the other of two video streams",
}
_TORCHCODEC_REFUSES = {  # with FFmpeg 5.1; also AVI files, which store no presentation times
    "real/decord__corrupted.mp4": "stops at a packet that it cannot decode",
    "real/hfdatasets__test_video_66x50.mov": "an edit list hides the first frames",
    "transcoded/edit_list_copy_cut.mp4": "an edit list hides the first frames",
    "transcoded/h264.ts": "cannot seek in MPEG-TS",
    "transcoded/mpeg2.mpg": "cannot seek in MPEG-PS",
    "transcoded/mpeg2.ts": "cannot seek in MPEG-TS",
}
_TORCHCODEC_TOLERANCES = {  # largest mean difference per clip in gray levels, as for decord
    "real/torchcodec__h264_10bits.mp4": 5,
    "real/torchcodec__h265_10bits.mp4": 5,
    "transcoded/interlaced_tff.mp4": 1.5,
    "transcoded/odd_161x121_vp9.webm": 1.5,
}


def _spans(duration_s: float, seed: str) -> list[ClipSpan]:
    """Return the beginning, the end, and two random spans of a video."""
    draw = random.Random(seed)
    clip_s = min(duration_s, 1.28)
    starts = [0.0, duration_s - clip_s, *(draw.uniform(0, duration_s - clip_s) for _ in range(2))]
    return [ClipSpan(start, start + clip_s) for start in starts]


def _decode_in_order(path: str, requested_s: set[float]) -> tuple[list[float], dict[float, Tensor]]:
    """Decode a whole video without seeking; return the times of all intact frames, and the frames at `requested_s`."""
    import av
    from av.video.stream import VideoStream

    times_s: list[float] = []
    kept: dict[float, Tensor] = {}
    first_s: float | None = None
    with av.open(path) as container:
        stream = container.streams.best("video")
        assert isinstance(stream, VideoStream)
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        is_avi, tick_s = container.format.name == "avi", float(stream.time_base)
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                continue
            for frame in frames:
                if frame.is_corrupt:
                    continue  # FFmpeg filled it in where data are missing
                stamp = frame.dts if is_avi else frame.pts
                time_s = times_s[-1] + (first_s or 0.0) + tick_s if stamp is None else stamp * tick_s
                first_s = time_s if first_s is None else first_s
                times_s.append(time_s - first_s)
                if any(abs(times_s[-1] - requested) < 1e-6 for requested in requested_s):
                    image = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                    kept[round(times_s[-1], 5)] = torch.rot90(image, frame.rotation // 90)
    return times_s, kept


@pytest.mark.real_data
@pytest.mark.parametrize("name", _REAL)
def test_real_videos_are_read_as_plausible_clips(name: str, shared: Path) -> None:
    path, decoder = str(shared / "data" / "assorted" / "real" / name), PyAVConfig().build()
    info = decoder.probe(path)
    assert 0.05 < info.duration_s < 140
    assert 1 < info.fps <= 120
    spans = _spans(info.duration_s, name)[1:3]
    for clip, span in zip(decoder.read(path, spans, 4), spans, strict=True):
        assert clip.frames.shape == (3, 4, info.height, info.width)
        assert clip.frames.dtype == torch.uint8
        assert clip.frames.float().std(dim=(0, 2, 3)).min() > 2 or name in _BLANK
        assert clip.frames.float().mean() > 5
        assert (clip.pts_s.diff() >= 0).all()
        assert (clip.pts_s <= torch.tensor(frame_times(span, 4)) + SNAP_S).all()
        assert clip.pts_s[0] > span.start_s - max(0.5, 1 / info.fps)


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("name", _ASSORTED)
def test_seeking_changes_no_frame_of_any_real_video(name: str, shared: Path) -> None:
    path, decoder = str(shared / "data" / "assorted" / name), PyAVConfig().build()
    spans = _spans(decoder.probe(path).duration_s, name)
    together = decoder.read(path, spans, 4)
    alone = [decoder.read(path, [span], 4)[0] for span in spans]
    times_s, kept = _decode_in_order(path, {t for clip in together for t in clip.pts_s.tolist()})
    assert times_s == sorted(set(times_s))
    for clips in (together, alone):
        for clip, span in zip(clips, spans, strict=True):
            shown_s = [times_s[shown_at(times_s, time_s)] for time_s in frame_times(span, 4)]
            assert clip.pts_s.tolist() == pytest.approx(shown_s, abs=1e-6)
            for slot, time_s in enumerate(shown_s):
                assert torch.equal(clip.frames[:, slot].permute(1, 2, 0), kept[round(time_s, 5)])


def _all_samplers(timing: Timing) -> list[ClipSpan]:
    """Return the spans of every sampler, for clips of a sixth of the video or 1.28 s, whichever is longer."""
    duration_s, draw = timing.duration_s, torch.Generator().manual_seed(0)
    clip_s = max(duration_s / 6, 1.28)
    return [
        clip_sampling.random_span(duration_s, clip_s, draw),
        clip_sampling.random_span(duration_s, clip_sampling.strided_clip_s(2, 5, timing.fps), draw),
        *clip_sampling.random_spans(duration_s, clip_s, 2, draw),
        *clip_sampling.near_spans(duration_s, clip_s, draw, 2),
        *clip_sampling.uniform_spans(duration_s, clip_s, 3),
        *clip_sampling.half_overlap_spans(duration_s, clip_s),
        *clip_sampling.cover_spans(duration_s, clip_s),
        *clip_sampling.whole_span(duration_s, clip_s),
    ]


@pytest.mark.real_data
@pytest.mark.long
@pytest.mark.parametrize("name", _ASSORTED)
def test_every_sampler_gets_the_frames_that_ffmpeg_decodes(name: str, shared: Path) -> None:
    path, decoder = str(shared / "data" / "assorted" / name), PyAVConfig().build()
    spans: list[ClipSpan] = []

    def record_spans(timing: Timing) -> list[ClipSpan]:
        spans.extend(_all_samplers(timing))
        return spans

    clips = decoder.read(path, record_spans, 2)
    times_s, kept = _decode_in_order(path, {t for clip in clips for t in clip.pts_s.tolist()})
    for clip, span in zip(clips, spans, strict=True):
        assert clip.frames.shape[1] == 2
        for slot, time_s in enumerate(frame_times(span, 2)):
            shown_s = times_s[shown_at(times_s, time_s)]
            assert clip.pts_s[slot].item() == pytest.approx(shown_s, abs=1e-6)
            assert torch.equal(clip.frames[:, slot].permute(1, 2, 0), kept[round(shown_s, 5)])


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in _ASSORTED if name not in _DECORD_IS_WRONG])
def test_decord_agrees_with_pyav_on_real_videos_or_refuses_them(name: str, shared: Path) -> None:
    path = str(shared / "data" / "assorted" / name)
    spans = _spans(PyAVConfig().build().probe(path).duration_s, name)
    if name in _DECORD_REFUSES:
        with pytest.raises(MediaError):
            DecordConfig().build().read(path, spans, 4)
        return
    tolerance, _ = _DECORD_TOLERANCES.get(name, (0, ""))
    with_pyav, with_decord = (config.build().read(path, spans, 4) for config in (PyAVConfig(), DecordConfig()))
    for a, b in zip(with_pyav, with_decord, strict=True):
        assert a.pts_s.tolist() == pytest.approx(b.pts_s.tolist(), abs=1e-4)
        assert a.frames.shape == b.frames.shape
        assert (a.frames.int() - b.frames.int()).abs().float().mean() <= tolerance


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("name", _ASSORTED)
def test_torchcodec_agrees_with_pyav_on_real_videos_or_refuses_them(
    name: str, build_decoder: Callable[[str], Decoder], shared: Path
) -> None:
    path, torchcodec = str(shared / "data" / "assorted" / name), build_decoder("torchcodec")
    spans = _spans(PyAVConfig().build().probe(path).duration_s, name)
    if name in _TORCHCODEC_REFUSES or name.endswith(".avi"):
        with pytest.raises(MediaError):
            torchcodec.read(path, spans, 4)
        return
    tolerance = _TORCHCODEC_TOLERANCES.get(name, 0)
    for a, b in zip(PyAVConfig().build().read(path, spans, 4), torchcodec.read(path, spans, 4), strict=True):
        assert a.pts_s.tolist() == pytest.approx(b.pts_s.tolist(), abs=1e-4)
        assert a.frames.shape == b.frames.shape
        assert a.full_size == b.full_size
        assert (a.frames.int() - b.frames.int()).abs().float().mean() <= tolerance


@pytest.mark.real_data
@pytest.mark.parametrize("name", [name for name in _BROKEN if name in _UNREADABLE])
def test_unreadable_files_raise_a_media_error_with_the_reason(name: str, shared: Path) -> None:
    path, decoder = str(shared / "data" / "broken" / name), PyAVConfig().build()
    with pytest.raises(MediaError, match=_UNREADABLE[name]):
        decoder.probe(path)
    with pytest.raises(MediaError, match=_UNREADABLE[name]):
        decoder.read(path, [ClipSpan(0.0, 1.0)], 4)


@pytest.mark.real_data
@pytest.mark.parametrize("name", [name for name in _BROKEN if name not in _UNREADABLE])
def test_broken_files_are_read_up_to_the_damage(name: str, shared: Path) -> None:
    path, decoder = str(shared / "data" / "broken" / name), PyAVConfig().build()
    info = decoder.probe(path)
    [start] = decoder.read(path, [ClipSpan(0.0, min(info.duration_s, 1.0))], 8)
    assert start.frames.shape == (3, 8, info.height, info.width)
    assert start.frames.float().std() > 2
    whole = [ClipSpan(0.0, info.duration_s)]
    if name in _UNREADABLE_TO_THE_END:
        with pytest.raises(MediaError, match=_UNREADABLE_TO_THE_END[name]):
            decoder.read(path, whole, 200)
        return
    [clip] = decoder.read(path, whole, 200)
    assert clip.frames.shape == (3, 200, info.height, info.width)
    # No frame is black, or the plain gray with which FFmpeg conceals missing data.
    assert clip.frames.float().std(dim=(0, 2, 3)).min() > 2
    held_s = torch.tensor(frame_times(whole[0], 200), dtype=torch.float64) - clip.pts_s
    assert held_s.max() < 0.5 + 1 / 3  # vfr.mp4 has 3 frames per second


@pytest.mark.real_data
@pytest.mark.parametrize("other", ["decord", "torchcodec"])
@pytest.mark.parametrize("name", [name for name in _BROKEN if name not in _CONCEALED_DIFFERENTLY])
def test_other_decoders_read_broken_files_like_pyav_or_refuse_them(
    other: str, name: str, build_decoder: Callable[[str], Decoder], shared: Path
) -> None:
    path, decoder = str(shared / "data" / "broken" / name), build_decoder(other)

    def whole(timing: Timing) -> list[ClipSpan]:
        return [ClipSpan(0.0, timing.duration_s)]

    try:
        [with_other] = decoder.read(path, whole, 60)
    except MediaError:
        return
    [with_pyav] = PyAVConfig().build().read(path, whole, 60)
    assert with_other.pts_s.tolist() == pytest.approx(with_pyav.pts_s.tolist(), abs=1e-4)
    assert with_other.frames.shape == with_pyav.frames.shape
    # decord upsamples 10-bit chroma differently.
    assert (with_other.frames.int() - with_pyav.frames.int()).abs().float().mean() < 1


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["rotated_90.mp4", "rotated_270.mov"])
def test_rotated_videos_are_upright_with_every_decoder(name: str, shared: Path) -> None:
    path, span = str(shared / "data" / "broken" / name), [ClipSpan(1.0, 2.0)]
    [with_pyav] = PyAVConfig().build().read(path, span, 2)
    [with_decord] = DecordConfig().build().read(path, span, 2)
    assert with_pyav.frames.shape == (3, 2, 160, 120)
    assert torch.equal(with_pyav.frames, with_decord.frames)
