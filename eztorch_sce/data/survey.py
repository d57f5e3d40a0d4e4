"""A survey of the records of a data set: their kind, number, and typical size and duration, from a few file headers."""

import statistics
from typing import NamedTuple

import numpy as np

from eztorch_sce import signals
from eztorch_sce.data.decoders.base import Decoder
from eztorch_sce.data.decoders.by_kind import decoder_of
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import KINDS
from eztorch_sce.errors import MediaError
from eztorch_sce.types import MediaInfo, MediaRecord

_NUM_PROBED = 32


class Survey(NamedTuple):
    """Typical properties of the records of a data set.

    Attributes:
        kind: "image" or "video"; a frame folder is a video.
        num_records: Number of records.
        short_side: Median of the short sides, in pixels.
        duration_s: Median duration in seconds, of the segments if records are segments of videos; 0 for images.
        fps: Median frame rate; 0 for images.
    """

    kind: str
    num_records: int
    short_side: int
    duration_s: float = 0.0
    fps: float = 0.0

    @property
    def is_video(self) -> bool:
        """Whether the records are videos."""
        return self.kind == "video"


def survey(manifest: Manifest, decoder: Decoder) -> Survey:
    """Probe a few dozen evenly spaced records, reading headers only.

    If there are videos or frame folders, only they are probed.

    Raises:
        MediaError: If none of the probed records can be read.
    """
    records = manifest.records
    is_video = not records.all_images()
    probed = records.where(records.kind_codes != KINDS.index("image")) if is_video else records
    rows = np.unique(np.linspace(0, len(probed) - 1, min(len(probed), _NUM_PROBED)).round().astype(np.int64))
    infos, failures = [], []
    for index in rows.tolist():
        signals.poll()
        record = probed[index]
        try:
            info = decoder_of(probed, index, decoder).probe(record.path)
            infos.append(info._replace(duration_s=_used_s(record, info)))
        except MediaError as error:
            failures.append(error)
    if not infos:
        raise failures[0]
    return Survey(
        "video" if is_video else "image",
        len(records),
        round(statistics.median(min(info.width, info.height) for info in infos)),
        statistics.median(info.duration_s for info in infos) if is_video else 0.0,
        statistics.median(info.fps for info in infos) if is_video else 0.0,
    )


def _used_s(record: MediaRecord, info: MediaInfo) -> float:
    """Return the duration of the part of a video that a record uses."""
    end_s = info.duration_s if record.end_s is None else record.end_s
    return max(0.0, end_s - (record.start_s or 0.0))
