"""Which decoder reads which kind of record."""

from eztorch_sce.data.decoders.base import Decoder
from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.data.decoders.image import ImageDecoder


def decoder_for(kind: str, video: Decoder) -> Decoder:
    """Return the decoder of a kind of record: `video` for "video", and the one there is for "image" and "frames".

    Raises:
        ValueError: If there is no such kind.
    """
    if kind == "video":
        return video
    if kind == "image":
        return ImageDecoder()
    if kind == "frames":
        return FramesDecoder()
    raise ValueError(f"kind is {kind!r}, and must be 'video', 'image' or 'frames'")
