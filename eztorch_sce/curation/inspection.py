"""Inspection of a file: facts about a video's packets, index and frames, or an image, for the doctor to judge."""

import math
import os
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int32

from eztorch_sce.curation.containers import second_file_at
from eztorch_sce.data.decoders.image import (
    ByteFile,
    decode_image,
    open_file,
    open_image,
    read_bytes,
    remarks_on,
    upright_size,
)
from eztorch_sce.data.decoders.image_depth import is_wide
from eztorch_sce.data.decoders.pyav.pixels import upright
from eztorch_sce.data.decoders.pyav.select import drop_stray_timestamps, frames_at
from eztorch_sce.data.decoders.pyav.stream import VideoFile
from eztorch_sce.data.media import suffix_of
from eztorch_sce.errors import MediaError
from eztorch_sce.types import MediaInfo

if TYPE_CHECKING:
    from eztorch_sce.data.decoders.pyav.stream import VideoPacket


class Inspection(NamedTuple):
    """Facts about a video file.

    Attributes:
        info: Facts that `Decoder.probe` returns.
        num_packets: Packets of the video stream whose frames are shown.
        num_keys: Key frames among them.
        starts_with_key: Whether the first packet of the file is a key frame.
        times_s: Time at which the frame of each packet is first shown, in storage order; NaN if not stored.
        interval_s: Time between frames according to the frame rate.
        ends_at_s: End of the last frame.
        bytes_missing: Bytes past the end of the file that its index refers to.
        cover: "first" if a cover image precedes the video stream, "later" if one follows it, else "".
        rotation: Rotation for display, such as "90 degrees clockwise mirrored"; "" if none.
        pixel_aspect: Width over height of a stored pixel.
        sizes: Width and height of the decoded frames, in order of first appearance.
        num_decoded: Number of frames in the file if all were decoded, else 0.
        num_streams: Number of video streams, covers excluded; FFmpeg chooses the one that is read.
        num_parts: Number of recordings joined to one MPEG stream, which are read as one.
        second_file_at: Byte at which a second file begins, which is not read; None if there is none.
        complaint: FFmpeg's message about a damaged packet; "" if there was none.
        unreadable: Reason why the beginning, middle or end of the video, or any frame if all were decoded, cannot be
            read; "" if all can.
    """

    info: MediaInfo
    num_packets: int
    num_keys: int
    starts_with_key: bool
    times_s: list[float]
    interval_s: float
    ends_at_s: float
    bytes_missing: int
    cover: str
    rotation: str
    pixel_aspect: float
    sizes: list[tuple[int, int]]
    num_decoded: int
    num_streams: int
    num_parts: int
    second_file_at: int | None
    complaint: str
    unreadable: str


class _Decoded(NamedTuple):
    """Results of decoding, with the meaning of the same fields of `Inspection`."""

    sizes: list[tuple[int, int]]
    num_decoded: int
    unreadable: str


def inspect_video(path: str, full: bool) -> Inspection:
    """Read all packets of a video; decode the first, middle and last frame, or all frames.

    Args:
        path: The file.
        full: Decode all frames.

    Raises:
        MediaError: If the file cannot be opened, has no video stream, or no frame of it can be decoded.
    """
    with VideoFile(path) as video:
        stored = _stored_packets(video)
        packets = [packet for packet in stored if not packet.is_discard]  # an edit list hides the others
        times_s = [math.nan if packet.pts is None else video.seconds(packet.pts) for packet in packets]
        bytes_missing = _bytes_missing(video)
        first = next(video.frames(), None)
        if first is None:
            raise video.no_frame_error()
        converter = video.converter(first.frame)
        height, width = converter.upright_size()
        duration_s = video.duration_s()
        decoded = _decode(video, duration_s, (first.frame.width, first.frame.height), full)
        return Inspection(
            info=MediaInfo(duration_s, video.fps, width, height, video.codec),
            num_packets=len(packets),
            num_keys=sum(packet.is_keyframe for packet in packets),
            starts_with_key=bool(stored) and stored[0].is_keyframe,
            times_s=times_s,
            interval_s=video.interval_s,
            ends_at_s=max((time_s for time_s in times_s if not math.isnan(time_s)), default=0.0) + video.interval_s,
            bytes_missing=bytes_missing,
            cover=_cover(video),
            rotation=rotation_in_words(converter.matrix),
            pixel_aspect=video.pixel_aspect,
            sizes=decoded.sizes,
            num_decoded=decoded.num_decoded,
            num_streams=_num_streams(video),
            num_parts=video.num_parts,
            second_file_at=second_file_at(path),
            complaint=video.complaint,
            unreadable=decoded.unreadable,
        )


def inspect_image(path: str, full: bool) -> tuple[MediaInfo, list[str]]:
    """Read the header of an image and look for its end; decode it if the end is not certain, or with `full`.

    Returns:
        Its facts, and findings of the form "kind: details".

    Raises:
        MediaError: If it cannot be read.
    """
    with open_file(path) as file, open_image(path, file) as image:
        findings = remarks_on(image)
        file.seek(0)
        must_decode = full or is_wide(image, file.read(64)) or not _has_end(file, image.format or "")
        height, width = upright_size(image)
        findings += _wrong_suffix(path, image.format or "")
    if must_decode:
        data = read_bytes(path)
        _, _, decoded = decode_image(path, data)
        findings = [*dict.fromkeys([*decoded, *findings, *_second_image(data)])]
    return MediaInfo(duration_s=0.0, fps=0.0, width=width, height=height, codec="image"), findings


def _second_image(data: bytes) -> list[str]:
    """Return a finding if a second JPEG or PNG file follows the first; the images of an MPO file belong together."""
    for end, start in ((b"\xff\xd9", b"\xff\xd8\xff"), (b"IEND\xaeB`\x82", b"\x89PNG")):
        place = data.find(end + start)
        if data.startswith(start) and place > 0 and b"MPF\0" not in data[:place]:
            return [f"joined files: another begins at byte {place + len(end)}, and only the first is read"]
    return []


def _wrong_suffix(path: str, image_format: str) -> list[str]:
    from PIL import Image

    expected = Image.registered_extensions().get(suffix_of(path))
    return [] if expected in (None, image_format) or image_format == "MPO" else [f"wrong suffix: holds {image_format}"]


def _has_end(file: ByteFile, image_format: str) -> bool:
    """Return whether a file ends as its format demands. Formats without such an end count as not ending."""
    num_bytes = file.seek(0, os.SEEK_END)
    file.seek(max(0, num_bytes - 64))
    tail = file.read().rstrip(b"\0")
    file.seek(0)
    head = file.read(12)
    if image_format in ("JPEG", "MPO"):
        return tail.endswith(b"\xff\xd9")
    if image_format == "PNG":
        return b"IEND" in tail
    return image_format == "WEBP" and 8 + int.from_bytes(head[4:8], "little") <= num_bytes


def rotation_in_words(matrix: Int32[np.ndarray, "3 3"] | None) -> str:
    """Return how a display matrix rotates frames, such as "90 degrees clockwise mirrored"; "" if it does not.

    >>> rotation_in_words(np.array([[0, 65536, 0], [-65536, 0, 0], [0, 0, 1]], np.int32))
    '90 degrees clockwise'
    """
    if matrix is None:
        return ""
    corners = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    shown = upright(corners, matrix)
    for mirrored, stored in (("", corners), ("mirrored", corners[:, ::-1])):
        for turns in range(4):
            if np.array_equal(np.rot90(stored, -turns), shown):
                degrees = f"{90 * turns} degrees clockwise" if turns else ""
                return " ".join(filter(None, (degrees, mirrored)))
    raise AssertionError("a quarter turn, mirrored or not, is one of eight")


def _stored_packets(video: VideoFile) -> "list[VideoPacket]":
    video.rewind()
    return [packet for packet in video.packets() if packet.size]


def _bytes_missing(video: VideoFile) -> int:
    entries = getattr(video.stream, "index_entries", ())  # since PyAV 17
    end = max((entry.pos + entry.size for entry in entries), default=0)
    return max(0, end - os.path.getsize(video.path))


def _decode(video: VideoFile, duration_s: float, first_size: tuple[int, int], full: bool) -> _Decoded:
    sizes, unreadable = [first_size], ""
    try:
        times_s = [0.0, duration_s / 2, max(0.0, duration_s - video.interval_s / 2)]
        sizes += [(shown.frame.width, shown.frame.height) for _, shown in frames_at(video, times_s)]
    except MediaError as error:
        unreadable = error.reason
    spans_s: list[tuple[float, float]] = []  # when each frame is first shown, and when it ends
    if full:
        for shown in video.frames():
            spans_s.append((shown.time_s, video.end_s(shown)))
            sizes.append((shown.frame.width, shown.frame.height))
        unreadable = unreadable or _first_gap(video, spans_s)
    return _Decoded(list(dict.fromkeys(sizes)), len(spans_s), unreadable)


def _first_gap(video: VideoFile, spans_s: list[tuple[float, float]]) -> str:
    """Return why nothing can be read in the first gap between frames, or "" if there is no gap."""
    try:
        for (_, end_s), (start_s, _) in pairwise(drop_stray_timestamps(spans_s)):
            video.check_hold(start_s, end_s)
    except MediaError as error:
        return error.reason
    return ""


def _num_streams(video: VideoFile) -> int:
    from av.stream import Disposition

    still_images = Disposition.attached_pic | Disposition.timed_thumbnails
    return sum(not stream.disposition & still_images for stream in video.container.streams.video)


def _cover(video: VideoFile) -> str:
    from av.stream import Disposition

    streams = list(video.container.streams.video)
    covers = [stream.index for stream in streams if stream.disposition & Disposition.attached_pic]
    if not covers:
        return ""
    return "first" if covers[0] < video.stream.index else "later"
