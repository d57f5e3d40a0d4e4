"""Tests of the selection of frames: which packets are decoded, and which timestamps are trusted."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from eztorch_sce.data.decoders.pyav.decoder import PyAVConfig
from eztorch_sce.data.decoders.pyav.select import drop_stray_timestamps
from eztorch_sce.types import ClipSpan

FPS = 30
IS_SLICE = (1, 5)  # types of H.264 units with pixels: of other frames, and of key frames


def h264_units(packet: bytes) -> list[bytes]:
    """Split an H.264 packet of an mp4 file into NAL units."""
    units, start = [], 0
    while start < len(packet):
        length = int.from_bytes(packet[start : start + 4], "big")
        units.append(packet[start + 4 : start + 4 + length])
        start += 4 + length
    return units


def test_frames_neither_requested_nor_referred_to_are_not_decoded(
    numbered_video: Path, numbers_shown: Callable[[Tensor], list[int]], tmp_path: Path
) -> None:
    import av

    # Zero the pixels of every unreferenced frame: decoding one of them would fail and lose its frame.
    content, spoiled = bytearray(numbered_video.read_bytes()), []
    with av.open(str(numbered_video)) as container:
        for packet in container.demux(video=0):
            slices = [unit for unit in h264_units(bytes(packet)) if unit[0] & 31 in IS_SLICE]
            if slices and all(unit[0] >> 5 & 3 == 0 for unit in slices):  # nal_ref_idc 0: unreferenced
                assert packet.pts is not None
                assert packet.pos is not None
                spoiled.append(round(packet.pts * packet.time_base * FPS))
                content[packet.pos + 6 : packet.pos + packet.size] = bytes(packet.size - 6)
    assert len(spoiled) > 100
    (tmp_path / "spoiled.mp4").write_bytes(content)

    intact = sorted(set(range(300)) - set(spoiled))
    spans = [ClipSpan((number + 0.4) / FPS, (number + 0.6) / FPS) for number in intact]
    clips = PyAVConfig().build().read(str(tmp_path / "spoiled.mp4"), spans, 1)
    assert [numbers_shown(clip.frames)[0] for clip in clips] == intact


def test_stray_timestamps_are_dropped() -> None:
    times_s = [0.0, 0.1, 5000.0, 0.3, 0.2, 0.4, -3.0, 60.0, 60.1, 70.5]
    kept_s = [time_s for time_s, _ in drop_stray_timestamps((time_s, None) for time_s in times_s)]
    assert kept_s == [0.0, 0.1, 0.3, 0.4, 60.0, 60.1, 70.5]
