"""Videos through decord: fast, but its FFmpeg dates from 2018 and opens fewer files than PyAV's.

Files for which decord is known to return wrong frames are rejected if they can be recognized. Two kinds cannot be
recognized, and decord may return different frames than FFmpeg for them: files in which a seek goes wrong (open groups
of pictures, and 4:4:4 video from old versions of x264), and files with several video streams.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch  # before decord, which otherwise loads libraries that conflict with torch's
from jaxtyping import UInt8

from eztorch_sce.data.decoders import base
from eztorch_sce.data.decoders.pyav.decoder import PyAVDecoder
from eztorch_sce.errors import MediaError, first_line
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings
from eztorch_sce.types import Clip, MediaInfo


@register("decoder", "decord")
@dataclass
class DecordConfig(Settings):
    """decord, with one decoding thread per call."""

    def build(self) -> base.Decoder:
        """Return the decoder.

        Raises:
            ConfigError: If decord cannot be imported.
        """
        try:
            import decord  # noqa: F401
        except (ImportError, OSError, RuntimeError) as error:  # OSError: its shared library does not load
            install = "run pip install decord, or pip install eva-decord if decord has no wheel for this system"
            raise base.missing_package("decord", "decord", error, install) from error
        return DecordDecoder()


class DecordDecoder:
    """Decoder that reads clips as the `Decoder` protocol describes."""

    def probe(self, path: str) -> MediaInfo:
        """Return PyAV's result: decord does not know the codec, and spans must not depend on the decoder."""
        return PyAVDecoder().probe(path)

    def read(self, path: str, spans: base.Spans, num_frames: int) -> list[Clip]:
        """Return one clip per span. decord itself sorts the frames and seeks."""
        video = _open(path)
        # PyAV's duration, not `video.ends_s[-1]`: spans must not depend on the decoder.
        timing, full_size = PyAVDecoder().timing_and_size(path)
        rows = [
            _frames_at(path, video, base.frame_times(span, num_frames), timing)
            for span in base.choose_spans(spans, lambda: timing)
        ]
        chosen = sorted({number for row in rows for number in row})
        images = _decode(path, video.reader, chosen)
        place = {number: i for i, number in enumerate(chosen)}
        return [
            Clip(
                torch.from_numpy(images[[place[number] for number in row]]).permute(3, 0, 1, 2),  # (3, T, H, W)
                torch.tensor([video.starts_s[number] for number in row], dtype=torch.float64),
                full_size,
            )
            for row in rows
        ]


class _Video(NamedTuple):
    """An open video, with the start and end of each frame in seconds from the first displayed frame."""

    reader: Any  # decord.VideoReader, which has no types
    starts_s: list[float]
    ends_s: list[float]


def _open(path: str) -> _Video:
    import decord
    from decord._ffi.base import DECORDError

    decord.logging.set_level(decord.logging.QUIET)
    decord.bridge.set_bridge("native")  # NumPy arrays, whatever bridge other code has set
    container = _container_with_wrong_seeks(base.first_bytes(path, 189))
    if container:
        raise MediaError(path, f"is {container}, for which decord returns wrong frames; use data.decoder=pyav")
    try:
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        spans_s = reader.get_frame_timestamp(np.arange(len(reader))).astype(np.float64)  # (frames, 2): start and end
    except (DECORDError, RuntimeError, AssertionError) as error:
        raise MediaError(path, f"decord cannot open it ({_first_line(error)})") from error
    if not (np.diff(spans_s[:, 0]) > 0).all():
        raise MediaError(path, "decord finds timestamps in it that do not ascend; try data.decoder=pyav")
    if spans_s[0, 0] < 0:
        raise MediaError(path, "an edit list hides frames, which decord miscounts; use data.decoder=pyav")
    return _Video(reader, spans_s[:, 0].tolist(), spans_s[:, 1].tolist())


def _container_with_wrong_seeks(head: bytes) -> str:
    """Return the name of the container if decord silently seeks to wrong frames in it, else "".

    Args:
        head: The first 189 bytes of the file.
    """
    if head[:4] == b"\x00\x00\x01\xba":
        return "an MPEG program stream"
    if head[:4] == b"\x30\x26\xb2\x75":
        return "a Windows Media file"
    if head[:1] == head[188:189] == b"\x47":  # the first byte of every packet of 188 bytes
        return "an MPEG transport stream"
    return ""


def _frames_at(path: str, video: _Video, times_s: list[float], timing: base.Timing) -> list[int]:
    """Return the numbers of the frames shown at ascending times.

    Raises:
        MediaError: If no frame is on screen at one of the times.
    """
    end_s, interval_s = video.ends_s[-1], video.ends_s[-1] - video.starts_s[-1]
    if times_s[-1] > end_s + base.grace_s(interval_s):
        raise base.ends_early(path, times_s[-1], end_s, timing.duration_s)
    numbers = [base.shown_at(video.starts_s, time_s) for time_s in times_s]
    for time_s, number in zip(times_s, numbers, strict=True):
        base.check_hold(path, time_s, video.ends_s[number])
    return numbers


def _decode(path: str, reader: Any, numbers: list[int]) -> UInt8[np.ndarray, "N H W 3"]:
    from decord._ffi.base import DECORDError

    try:
        return np.asarray(reader.get_batch(numbers).asnumpy())
    except (DECORDError, RuntimeError) as error:
        raise MediaError(path, f"decord cannot decode it ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    """Return the first line of an error of decord, without the position in its source code."""
    first = first_line(error)
    return first.rsplit(".cc:", 1)[-1].partition(": ")[2] or first
