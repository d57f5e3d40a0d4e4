"""Tests of the conversion of frames to upright RGB."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from eztorch_sce.data.decoders.decord import DecordConfig, DecordDecoder
from eztorch_sce.data.decoders.pyav.decoder import PyAVConfig
from eztorch_sce.data.decoders.pyav.pixels import FrameConverter
from eztorch_sce.types import ClipSpan


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_are_upright(turns: int, mirrored: bool, write_video: Callable[..., Path], tmp_path: Path) -> None:
    import av

    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:20, :40] = 255  # a mark in one corner
    stored = np.rot90(upright[:, ::-1] if mirrored else upright, -turns)
    plain = write_video(tmp_path / "plain.mp4", num_frames=4, image=lambda _: np.ascontiguousarray(stored))
    with av.open(str(plain)) as source, av.open(str(tmp_path / "turned.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(90 * turns, hflip=mirrored)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)

    for decoder in (PyAVConfig().build(), DecordConfig().build()):
        info = decoder.probe(str(tmp_path / "turned.mp4"))
        assert (info.width, info.height) == (96, 64)
        if mirrored and isinstance(decoder, DecordDecoder):
            continue  # decord rotates frames, but does not mirror them
        [clip] = decoder.read(str(tmp_path / "turned.mp4"), [ClipSpan(0.0, 0.1)], 1)
        assert torch.equal(clip.frames[:, 0].permute(1, 2, 0) > 128, torch.from_numpy(upright > 128))


def test_sizes_account_for_rotation_and_pixel_aspect() -> None:
    quarter_turn = np.array([[0, 65536, 0], [-65536, 0, 0], [0, 0, 1]], np.int32)
    stored = FrameConverter("wide.mp4", width=80, height=32, pixel_aspect=2.0, matrix=None)
    turned = FrameConverter("wide.mp4", width=80, height=32, pixel_aspect=2.0, matrix=quarter_turn)
    assert (stored.upright_size(), stored.full_size()) == ((32, 80), (32, 160))
    assert (turned.upright_size(), turned.full_size()) == ((80, 32), (80, 16))
    assert stored.square_pixel_size(short_side=16) == (80, 16)
    assert stored.square_pixel_size(short_side=1000) == (160, 32)
