"""Videos through torchcodec, which uses the system's FFmpeg: its version determines which files can be read."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from eztorch_sce.data.decoders import base
from eztorch_sce.data.decoders.pyav.decoder import PyAVDecoder
from eztorch_sce.errors import ConfigError, MediaError, first_line
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings
from eztorch_sce.types import Clip, MediaInfo

if TYPE_CHECKING:
    from torchcodec import FrameBatch
    from torchcodec.decoders import VideoDecoder


@register("decoder", "torchcodec")
@dataclass
class TorchcodecConfig(Settings):
    """torchcodec, with one decoding thread per call."""

    def build(self) -> base.Decoder:
        """Return the decoder.

        Raises:
            ConfigError: If torchcodec is not installed, or does not find FFmpeg.
        """
        try:
            import torchcodec.decoders  # noqa: F401
        except ImportError as error:
            install = "run pip install 'eztorch-sce[torchcodec]'"
            raise base.missing_package("torchcodec", "torchcodec", error, install) from error
        except (OSError, RuntimeError) as error:  # its message is a page long
            cure = (
                "install FFmpeg's shared libraries (apt install ffmpeg, conda install ffmpeg, ...) and the version of"
                " torchcodec that matches torch, or use data.decoder=pyav, which ships its own FFmpeg"
            )
            raise ConfigError(
                [f"data.decoder=torchcodec: torchcodec is installed but does not load; {cure}"]
            ) from error
        return TorchcodecDecoder()


class TorchcodecDecoder:
    """Decoder that reads clips as the `Decoder` protocol describes."""

    def probe(self, path: str) -> MediaInfo:
        """Return PyAV's result: spans must not depend on the decoder."""
        return PyAVDecoder().probe(path)

    def read(self, path: str, spans: base.Spans, num_frames: int) -> list[Clip]:
        """Return one clip per span; torchcodec decodes each frame once."""
        reader = _open(path)
        timing, full_size = PyAVDecoder().timing_and_size(path)
        rows = [base.frame_times(span, num_frames) for span in base.choose_spans(spans, lambda: timing)]
        begin_s, end_s = reader.metadata.begin_stream_seconds, reader.metadata.end_stream_seconds
        interval_s = 1 / (reader.metadata.average_fps or 25.0)
        latest_s = max(row[-1] for row in rows)
        if latest_s > end_s - begin_s + base.grace_s(interval_s):
            raise base.ends_early(path, latest_s, end_s - begin_s, timing.duration_s)

        times_s = sorted({time_s for row in rows for time_s in row})
        batch = _frames_at(path, reader, times_s)
        starts_s = batch.pts_seconds.double() - begin_s
        _check_shown(path, times_s, starts_s, batch.duration_seconds.double())
        place = {time_s: number for number, time_s in enumerate(times_s)}
        numbers = [torch.tensor([place[time_s] for time_s in row]) for row in rows]
        return [Clip(batch.data[number].permute(3, 0, 1, 2), starts_s[number], full_size) for number in numbers]


def _open(path: str) -> "VideoDecoder":
    from torchcodec.decoders import VideoDecoder

    if base.first_bytes(path, 12)[8:] == b"AVI ":
        reason = "is an AVI file, which stores no presentation timestamps, and torchcodec guesses them wrong"
        raise MediaError(path, f"{reason}; use data.decoder=pyav")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
    except (RuntimeError, ValueError) as error:
        problem = "has no video stream, or is not a video" if "video stream" in str(error) else "cannot be opened"
        raise MediaError(path, f"{problem}: torchcodec says {first_line(error)}") from error
    metadata = reader.metadata
    if not metadata.num_frames:
        raise MediaError(path, "torchcodec finds no frame in it")
    if (metadata.num_frames_from_header or 0) > metadata.num_frames:
        raise MediaError(
            path, "an edit list hides some of its frames, which torchcodec miscounts; use data.decoder=pyav"
        )
    return reader


def _frames_at(path: str, reader: "VideoDecoder", times_s: list[float]) -> "FrameBatch":
    """Return the frames shown at the given times, in seconds from the first displayed frame."""
    begin_s, last_s = reader.metadata.begin_stream_seconds, reader.metadata.end_stream_seconds - 1e-6
    stream_times_s = [min(max(begin_s + time_s + base.SNAP_S, begin_s), last_s) for time_s in times_s]
    try:
        return reader.get_frames_played_at(stream_times_s)
    except (RuntimeError, IndexError, ValueError) as error:
        raise MediaError(path, f"torchcodec cannot decode it ({first_line(error)})") from error


def _check_shown(path: str, times_s: list[float], starts_s: torch.Tensor, durations_s: torch.Tensor) -> None:
    """Raise an error if a frame is not the one shown at its time; all tensors are float64 (N,)."""
    ends_s = starts_s + durations_s
    for time_s, start_s, end_s in zip(times_s, starts_s.tolist(), ends_s.tolist(), strict=True):
        if start_s > max(time_s, 0.0) + 2 * base.SNAP_S:
            raise MediaError(path, f"at {time_s:.2f} s, torchcodec returns a frame that is due at {start_s:.2f} s")
        base.check_hold(path, time_s, end_s)
