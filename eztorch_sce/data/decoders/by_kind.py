"""The decoder of each record, by its kind or by the source that it belongs to."""

from eztorch_sce.data.decoders.base import Decoder
from eztorch_sce.data.decoders.frames import FPS, FramesDecoder
from eztorch_sce.data.decoders.image import ImageDecoder, LeastScale, full_scale
from eztorch_sce.data.decoders.source import SourceDecoder
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.source import kind_of_file


def decoder_of(records: Records, index: int, video: Decoder, least_scale: LeastScale = full_scale) -> Decoder:
    """Return the decoder of a record, which reads it by its path.

    Args:
        records: The records.
        index: Index of the record.
        video: The decoder of videos.
        least_scale: Returns the smallest scale at which an image may be decoded, see `ImageDecoder`.
    """
    if (place := records.place_in_source(index)) is None:
        return _decoder_for(records.kind(index), video, least_scale)
    source, row = place
    fps = source.fps or FPS
    return SourceDecoder(source, row, fps, lambda path: _decoder_for(kind_of_file(path), video, least_scale, fps))


def _decoder_for(kind: str, video: Decoder, least_scale: LeastScale, fps: float = FPS) -> Decoder:
    """Return the decoder of a kind of file.

    Args:
        kind: "video", "image" or "frames".
        video: The decoder of videos.
        least_scale: As for `decoder_of`.
        fps: Images per second of a frame folder.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind == "video":
        return video
    if kind == "image":
        return ImageDecoder(least_scale)
    if kind == "frames":
        return FramesDecoder(fps)
    raise ValueError(f"kind={kind!r} must be 'video', 'image' or 'frames'")
