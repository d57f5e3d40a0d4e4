"""Tests of the encoding of copies: clips read from them are exact, and most of their frames can be skipped."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from eztorch_sce.curation.video_writer import fast_to_decode, write_frames
from eztorch_sce.data.decoders.decord import DecordDecoder
from eztorch_sce.data.decoders.pyav.decoder import PyAVDecoder
from eztorch_sce.types import ClipSpan

FPS = 25


@pytest.mark.parametrize(
    ("num_frames", "gop", "crf"), [(1, 16, 18), (2, 16, 18), (3, 16, 18), (21, 1, 18), (21, 2, 18), (41, 17, 0)]
)
def test_clips_of_a_copy_equal_its_frames_decoded_in_order(
    num_frames: int, gop: int, crf: int, numbered_image: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.mp4"
    # At uneven times: every third frame lasts twice as long.
    timed = [((number + number // 3) / FPS, numbered_image(number)) for number in range(num_frames)]
    write_frames(copy, timed, FPS, fast_to_decode(gop, crf))
    with av.open(str(copy)) as container:
        decoded = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert [time_s for time_s, _ in decoded] == pytest.approx([time_s for time_s, _ in timed])
    spans = [ClipSpan(time_s + 0.01, time_s + 0.02) for time_s, _ in timed]
    for decoder in (PyAVDecoder(), DecordDecoder()):
        together = decoder.read(str(copy), spans, 1)
        alone = [decoder.read(str(copy), [span], 1)[0] for span in spans]
        for clips in (together, alone):
            for clip, (_, pixels) in zip(clips, decoded, strict=True):
                assert np.array_equal(clip.frames[:, 0].permute(1, 2, 0).numpy(), pixels)


def test_no_frame_refers_to_most_frames_of_a_copy(tmp_path: Path) -> None:
    rows = np.arange(32, dtype=np.uint8)[:, None, None]
    images = [np.broadcast_to(4 * rows + number, (32, 32, 3)) for number in range(64)]
    timed = [(number / FPS, np.ascontiguousarray(image)) for number, image in enumerate(images)]
    write_frames(tmp_path / "copy.mp4", timed, FPS, fast_to_decode(gop=16, crf=18))
    with av.open(str(tmp_path / "copy.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    others = [bytes(packet) for packet in packets if not packet.is_keyframe]
    referenced = [data for data in others if data[4] >> 5 & 3]  # nal_ref_idc of the first unit
    assert (len(packets), len(others)) == (64, 60)
    assert len(referenced) == 2 * 4  # two per key frame
