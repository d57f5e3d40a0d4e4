"""Tests of the choice of a decoder by kind of record."""

import pytest

from eztorch_sce.data.decoders.by_kind import decoder_for
from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.data.decoders.image import ImageDecoder
from eztorch_sce.data.decoders.pyav.decoder import PyAVConfig


def test_every_kind_of_record_has_a_decoder() -> None:
    video = PyAVConfig().build()
    assert decoder_for("video", video) is video
    assert isinstance(decoder_for("image", video), ImageDecoder)
    assert isinstance(decoder_for("frames", video), FramesDecoder)
    with pytest.raises(ValueError, match="kind='sound'"):
        decoder_for("sound", video)
