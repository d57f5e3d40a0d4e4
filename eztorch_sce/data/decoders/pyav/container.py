"""Opening of a file with FFmpeg, and the choice of its video stream."""

import io
from typing import TYPE_CHECKING

from eztorch_sce.data.decoders.base import check_is_file, first_bytes
from eztorch_sce.data.media import content_of
from eztorch_sce.data.members import is_member, read_member
from eztorch_sce.errors import MediaError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


def open_container(path: str) -> "InputContainer":
    """Open a video file, or a video in a tar shard.

    Raises:
        MediaError: If it is missing, empty, or not a file that FFmpeg can open.
    """
    import av

    member = read_member(path) if is_member(path) else None
    if member is None:
        check_is_file(path)
    try:
        # The prefix keeps FFmpeg from mistaking "a:b.mp4" for a network protocol.
        source = f"file:{path}" if member is None else io.BytesIO(member)
        container = av.open(source, "r", metadata_errors="ignore")
    except av.InvalidDataError as error:
        raise MediaError(path, _unrecognized(first_bytes(path, 512) if member is None else member)) from error
    except (av.FFmpegError, OSError) as error:
        raise MediaError(path, f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    if _is_image(container):
        container.close()
        content = content_of(first_bytes(path, 64) if member is None else member[:64]) or "an image"
        raise MediaError(path, f"is {content}, not a video: rename it")
    return container


def _is_image(container: "InputContainer") -> bool:
    """Return whether FFmpeg found a still image by its content, whatever the suffix of the file."""
    brand = container.metadata.get("major_brand", "")
    return container.format.name.endswith("_pipe") or brand in ("heic", "heix", "avif", "mif1")


def choose_stream(container: "InputContainer", path: str) -> "VideoStream":
    """Return the stream that FFmpeg's own tools would play, which is not always the first.

    Raises:
        MediaError: If there is no video stream, or FFmpeg has no decoder for it.
    """
    from av.stream import Disposition

    streams = container.streams
    still_images = Disposition.attached_pic | Disposition.timed_thumbnails
    candidates = [stream for stream in streams.video if not stream.disposition & still_images]
    if not candidates:
        content = "only a cover image" if streams.video else "audio only?" if len(streams) else "it is empty"
        raise MediaError(path, f"has no video stream ({content})")
    best = streams.best("video")
    stream = next((stream for stream in candidates if best is not None and stream.index == best.index), candidates[0])
    if stream.codec_context is None:
        raise MediaError(path, "has a video stream that this FFmpeg cannot decode")
    return stream


def _unrecognized(head: bytes) -> str:
    """Return why FFmpeg does not recognize a file, given its beginning."""
    if head[4:8] == b"ftyp":
        return "cannot be opened: its index (moov) is missing or damaged; was it truncated while written or copied?"
    if content := content_of(head):
        damaged = content.endswith("video")
        return f"cannot be opened: it is {content}" + (", but damaged or truncated" if damaged else ", not a video")
    return "cannot be opened: FFmpeg does not recognize it as a video"
