"""The decoder of each kind of record."""

from eztorch_sce.data.decoders.base import Decoder
from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.data.decoders.image import ImageDecoder, LeastScale, full_scale


def decoder_for(kind: str, video: Decoder, least_scale: LeastScale = full_scale) -> Decoder:
    """Return the decoder of a kind of record.

    Args:
        kind: "video", "image" or "frames".
        video: The decoder of videos.
        least_scale: Returns the smallest scale at which an image may be decoded, see `ImageDecoder`.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind == "video":
        return video
    if kind == "image":
        return ImageDecoder(least_scale)
    if kind == "frames":
        return FramesDecoder()
    raise ValueError(f"kind={kind!r} must be 'video', 'image' or 'frames'")
