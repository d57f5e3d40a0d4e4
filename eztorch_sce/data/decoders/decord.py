"""Videos through decord: fast, but with an FFmpeg of 2018, so it opens fewer files than PyAV does.

Where decord is known to return wrong frames and the file can be told by its looks, this decoder refuses it instead
of passing them on. What remains wrong and cannot be told: open groups of images and 4:4:4 from old versions of x264
(after a seek), and files with several video streams (it may choose another one than FFmpeg does).
"""

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch  # before decord, which otherwise loads libraries that torch cannot live with

from eztorch_sce.data.decoders.base import (
    LONG_HOLD_S,
    Decoder,
    Spans,
    choose_spans,
    ends_early,
    frame_times,
    grace_s,
    in_a_hole,
    shown_at,
)
from eztorch_sce.data.decoders.pyav.stream import PyAVDecoder
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.registry import register
from eztorch_sce.types import Clip, MediaInfo


@register("decoder", "decord")
@dataclass
class DecordConfig:
    """decord, with one decoding thread per call."""

    def build(self) -> Decoder:
        """Return the decoder.

        Raises:
            ConfigError: If decord is not installed.
        """
        try:
            import decord  # noqa: F401
        except (ImportError, OSError, RuntimeError) as error:  # OSError: its shared library does not load
            how = "pip install decord, or eva-decord where decord has no wheel"
            problem = f"decoder=decord needs the package decord, which cannot be imported ({error}): {how}"
            raise ConfigError([problem]) from error
        return DecordDecoder()


class DecordDecoder:
    """Reads clips as `Decoder` describes."""

    def probe(self, path: str) -> MediaInfo:
        """Return what PyAV says: decord does not tell the codec, and a clip must not depend on the decoder."""
        return PyAVDecoder().probe(path)

    def read(self, path: str, spans: Spans, num_frames: int) -> list[Clip]:
        """Return one clip per span; decord seeks and sorts the frames itself."""
        reader, starts_s, ends_s = _open(path)
        # What PyAV says, not `ends_s[-1]`: which stretches are chosen must not depend on the decoder.
        timing, full_size = PyAVDecoder().timing_and_size(path)
        chosen_spans = choose_spans(spans, lambda: timing)
        times = [frame_times(span, num_frames) for span in chosen_spans]
        rows = [[shown_at(starts_s, time_s) for time_s in row] for row in times]
        end_s, interval_s = ends_s[-1], ends_s[-1] - starts_s[-1]
        latest_s = max(row[-1] for row in times)
        if latest_s > end_s + grace_s(interval_s):
            raise ends_early(path, latest_s, end_s, timing.duration_s)
        for time_s, number in chain.from_iterable(map(zip, times, rows)):
            if time_s > ends_s[number] + LONG_HOLD_S:
                raise in_a_hole(path, time_s, ends_s[number])

        chosen = sorted({i for row in rows for i in row})
        images = _decode(path, reader, chosen)  # (N, H, W, 3)
        place = {frame: i for i, frame in enumerate(chosen)}
        return [
            Clip(
                torch.from_numpy(images[[place[i] for i in row]]).permute(3, 0, 1, 2),  # (3, T, H, W)
                torch.tensor([starts_s[i] for i in row], dtype=torch.float64),
                full_size,
            )
            for row in rows
        ]


def _open(path: str) -> tuple[Any, list[float], list[float]]:
    """Return a reader, and when each of its frames starts and ends, in seconds from the first displayed frame."""
    import decord
    from decord._ffi.base import DECORDError

    decord.logging.set_level(decord.logging.QUIET)
    decord.bridge.set_bridge("native")  # arrays, whatever another part of the program asked decord for
    try:
        with open(path, "rb") as file:
            head = file.read(189)
    except OSError as error:
        raise MediaError(path, f"cannot be opened ({error.strerror})") from error
    container = _seeks_wrong(head)
    if container:
        raise MediaError(path, f"is {container}, in which decord returns wrong frames: decoder=pyav reads it")
    try:
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        shown = reader.get_frame_timestamp(np.arange(len(reader))).astype(np.float64)  # (frames, 2)
    except (DECORDError, RuntimeError, AssertionError) as error:
        raise MediaError(path, f"decord cannot open it ({_in_short(error)})") from error
    if not (np.diff(shown[:, 0]) > 0).all():
        raise MediaError(path, "decord finds no ascending time stamps in it: decoder=pyav may read it")
    if shown[0, 0] < 0:
        raise MediaError(path, "hides its first frames (an edit list): decord miscounts them, decoder=pyav reads it")
    return reader, shown[:, 0].tolist(), shown[:, 1].tolist()


def _seeks_wrong(head: bytes) -> str:
    """Return which container it is, by its first bytes, if decord seeks to wrong places in it and does not notice."""
    if head[:4] == b"\x00\x00\x01\xba":
        return "an MPEG program stream"
    if head[:4] == b"\x30\x26\xb2\x75":
        return "a Windows Media file"
    if head[:1] == head[188:189] == b"\x47":  # every packet of 188 bytes starts so
        return "an MPEG transport stream"
    return ""


def _decode(path: str, reader: Any, chosen: list[int]) -> np.ndarray:
    from decord._ffi.base import DECORDError

    try:
        return np.asarray(reader.get_batch(chosen).asnumpy())
    except (DECORDError, RuntimeError) as error:
        raise MediaError(path, f"decord cannot decode it ({_in_short(error)})") from error


def _in_short(error: Exception) -> str:
    """Return the first line of a message of decord, without the place in its source code."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return first.rsplit(".cc:", 1)[-1].partition(": ")[2] or first
