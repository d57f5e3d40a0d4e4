"""Which decoder reads which kind of record."""

from collections.abc import Callable

from eztorch_sce.data.decoders.base import Decoder
from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.data.decoders.image import ImageDecoder, whole


def decoder_for(kind: str, video: Decoder, least_scale: Callable[[int, int], float] = whole) -> Decoder:
    """Return the decoder of a kind of record: `video` for "video", and the one there is for "image" and "frames".

    Args:
        kind: Of the record.
        video: What decodes videos.
        least_scale: How far an image may be shrunk, see `ImageDecoder`.

    Raises:
        ValueError: If there is no such kind.
    """
    if kind == "video":
        return video
    if kind == "image":
        return ImageDecoder(least_scale)
    if kind == "frames":
        return FramesDecoder()
    raise ValueError(f"kind is {kind!r}, and must be 'video', 'image' or 'frames'")
