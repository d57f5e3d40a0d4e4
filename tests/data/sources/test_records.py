"""Tests of records in columns."""

import pytest

from eztorch_sce.data.sources.records import Records
from eztorch_sce.types import MediaRecord

VIDEOS = Records.of([MediaRecord("/a/x.mp4", 1, "video", 1.0, None), MediaRecord("/b/y.mp4", 0, "video")])
IMAGES = Records.of([MediaRecord("/b/z.jpg", None, "image"), MediaRecord("/c/caf\udce9.png", None, "image")])


@pytest.mark.parametrize(
    "parts", [[VIDEOS, IMAGES], [IMAGES, IMAGES], [VIDEOS[1:], Records.of([]), IMAGES.take([1, 0])]]
)
def test_concatenated_records_are_those_of_the_parts_in_order(parts: list[Records]) -> None:
    assert list(Records.concatenate(parts)) == [record for part in parts for record in part]
