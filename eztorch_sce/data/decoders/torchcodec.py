"""Videos through torchcodec, which decodes with the FFmpeg of the system: its version decides what can be read."""

import os
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from eztorch_sce.data.decoders.base import (
    LONG_HOLD_S,
    SNAP_S,
    Decoder,
    Spans,
    choose_spans,
    ends_early,
    frame_times,
    grace_s,
    in_a_hole,
)
from eztorch_sce.data.decoders.pyav.stream import PyAVDecoder
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.registry import register
from eztorch_sce.types import Clip, MediaInfo


@register("decoder", "torchcodec")
@dataclass
class TorchcodecConfig:
    """torchcodec, with one decoding thread per call."""

    def build(self) -> Decoder:
        """Return the decoder.

        Raises:
            ConfigError: If torchcodec is not installed, or does not find FFmpeg.
        """
        try:
            import torchcodec.decoders  # noqa: F401
        except ImportError as error:
            how = "pip install 'eztorch-sce[torchcodec]'"
            problem = f"decoder=torchcodec needs the package torchcodec, which cannot be imported ({error}): {how}"
            raise ConfigError([problem]) from error
        except (OSError, RuntimeError) as error:  # its message is a page long
            how = (
                "it needs FFmpeg's shared libraries from the system (apt install ffmpeg, conda install ffmpeg, ...)"
                " and the version that fits torch; decoder=pyav brings its own"
            )
            raise ConfigError([f"decoder=torchcodec: torchcodec is installed, but does not load: {how}"]) from error
        return TorchcodecDecoder()


class TorchcodecDecoder:
    """Reads clips as `Decoder` describes."""

    def probe(self, path: str) -> MediaInfo:
        """Return what PyAV says: a clip must not depend on the decoder."""
        return PyAVDecoder().probe(path)

    def read(self, path: str, spans: Spans, num_frames: int) -> list[Clip]:
        """Return one clip per span; torchcodec sorts the times and decodes each frame once."""
        reader = _open(path)
        timing, full_size = PyAVDecoder().timing_and_size(path)
        rows = [frame_times(span, num_frames) for span in choose_spans(spans, lambda: timing)]
        begin_s, end_s = reader.metadata.begin_stream_seconds, reader.metadata.end_stream_seconds
        interval_s = 1 / (reader.metadata.average_fps or 25.0)
        latest_s = max(row[-1] for row in rows)
        if latest_s > end_s - begin_s + grace_s(interval_s):
            raise ends_early(path, latest_s, end_s - begin_s, timing.duration_s)
        last_s = end_s - 1e-6  # the last instant of the last frame
        times_s = sorted({time_s for row in rows for time_s in row})
        wanted_s = [min(max(begin_s + time_s + SNAP_S, begin_s), last_s) for time_s in times_s]
        try:
            found = reader.get_frames_played_at(wanted_s)
        except (RuntimeError, IndexError, ValueError) as error:
            raise MediaError(path, f"torchcodec cannot decode it ({_in_short(error)})") from error
        starts_s, lasts_s = found.pts_seconds.double() - begin_s, found.duration_seconds.double()
        for time_s, start_s, end_s in zip(times_s, starts_s.tolist(), (starts_s + lasts_s).tolist(), strict=True):
            if start_s > max(time_s, 0.0) + 2 * SNAP_S:
                raise MediaError(path, f"torchcodec shows at {time_s:.2f} s a frame that is due at {start_s:.2f} s")
            if time_s > end_s + LONG_HOLD_S:
                raise in_a_hole(path, time_s, end_s)
        place = {time_s: number for number, time_s in enumerate(times_s)}
        numbers = [torch.tensor([place[time_s] for time_s in row]) for row in rows]
        return [Clip(found.data[number].permute(3, 0, 1, 2), starts_s[number], full_size) for number in numbers]


def _open(path: str) -> Any:
    from torchcodec.decoders import VideoDecoder

    if not os.path.isfile(path):
        raise MediaError(path, "is no file, or a link to nowhere" if os.path.lexists(path) else "does not exist")
    with open(path, "rb") as file:
        if file.read(12)[8:] == b"AVI ":
            why = "is an AVI, which stores no times to show frames at, and torchcodec guesses them wrong"
            raise MediaError(path, f"{why}: decoder=pyav reads it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
    except (RuntimeError, ValueError) as error:
        what = "has no video stream, or is none" if "video stream" in str(error) else "cannot be opened"
        raise MediaError(path, f"{what}: torchcodec says {_in_short(error)}") from error
    facts = reader.metadata
    if not facts.num_frames:
        raise MediaError(path, "torchcodec finds no frame in it")
    if (facts.num_frames_from_header or 0) > facts.num_frames:
        raise MediaError(path, "hides frames (an edit list), which torchcodec miscounts: decoder=pyav reads it")
    return reader


def _in_short(error: Exception) -> str:
    """Return the first line of a message of torchcodec."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
