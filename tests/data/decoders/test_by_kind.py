"""Tests of the choice of a decoder by kind of record."""

from eztorch_sce.data.decoders.by_kind import decoder_of
from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.data.decoders.image import ImageDecoder
from eztorch_sce.data.decoders.pyav.decoder import PyAVConfig
from eztorch_sce.data.sources.records import Records
from eztorch_sce.types import MediaRecord


def test_every_kind_of_record_has_a_decoder() -> None:
    video = PyAVConfig().build()
    records = Records.of(MediaRecord(f"/data/{kind}", None, kind) for kind in ("video", "image", "frames"))
    assert decoder_of(records, 0, video) is video
    assert isinstance(decoder_of(records, 1, video), ImageDecoder)
    assert isinstance(decoder_of(records, 2, video), FramesDecoder)
