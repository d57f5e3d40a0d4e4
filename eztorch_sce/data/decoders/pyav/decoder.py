"""Videos through PyAV, which ships its own FFmpeg: frame-exact on everything FFmpeg reads.

A file is opened once for all spans, and overlapping spans share their frames. Only requested frames are converted to
RGB.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from eztorch_sce.data.decoders.base import (
    Decoder,
    Spans,
    Timing,
    choose_spans,
    ends_early,
    frame_times,
    grace_s,
    missing_package,
)
from eztorch_sce.data.decoders.pyav.select import drop_stray_timestamps, frames_at
from eztorch_sce.data.decoders.pyav.stream import VideoFile
from eztorch_sce.errors import MediaError
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings
from eztorch_sce.types import Clip, ClipSpan, MediaInfo


@register("decoder", "pyav")
@dataclass
class PyAVConfig(Settings):
    """FFmpeg through PyAV: reads nearly everything, with one decoding thread per call."""

    def build(self) -> Decoder:
        """Return the decoder.

        Raises:
            ConfigError: If PyAV cannot be imported.
        """
        try:
            import av  # noqa: F401
        except ImportError as error:
            raise missing_package("pyav", "av", error, "run pip install av") from error
        return PyAVDecoder()


class PyAVDecoder:
    """Decoder that reads clips as the `Decoder` protocol describes."""

    def probe(self, path: str) -> MediaInfo:
        """Return the facts in the header, and the upright size of the first frame."""
        with VideoFile(path) as video:
            first = next(video.frames(), None)
            if first is None:
                raise video.no_frame_error()
            height, width = video.converter(first.frame).upright_size()
            return MediaInfo(video.duration_s(), video.fps, width, height, video.codec)

    def read(self, path: str, spans: Spans, num_frames: int) -> list[Clip]:
        """Return one clip per span."""
        frames: list[UInt8[np.ndarray, "T H W 3"]] = []
        full_size = None
        with VideoFile(path) as video:
            chosen = choose_spans(spans, video.timing)
            slots = _slots_by_time(chosen, num_frames)
            pts_s = np.zeros((len(chosen), num_frames))
            converted, image = None, None
            for time_s, (first_shown_s, frame) in frames_at(video, sorted(slots)):
                if image is None or frame is not converted:
                    converted, image = frame, video.converter(frame).to_rgb(frame)
                if not frames:
                    full_size = video.converter(frame).full_size()
                    frames = [np.empty((num_frames, *image.shape), np.uint8) for _ in chosen]
                for clip, slot in slots[time_s]:
                    frames[clip][slot] = image
                    pts_s[clip, slot] = first_shown_s
        return [
            Clip(torch.from_numpy(thwc).permute(3, 0, 1, 2), torch.from_numpy(pts), full_size)
            for thwc, pts in zip(frames, pts_s, strict=True)
        ]

    def timing_and_size(self, path: str) -> tuple[Timing, tuple[int, int] | None]:
        """Return the timing and `Clip.full_size` of a video, for decoders that do not report them.

        Raises:
            MediaError: If several recordings were joined to the file, which other decoders do not read whole.
        """
        with VideoFile(path) as video:
            if video.num_parts > 1:
                raise MediaError(path, f"is {video.num_parts} recordings joined; use data.decoder=pyav")
            first = None if video.pixel_aspect == 1 else next(video.frames(), None)
            return video.timing(), None if first is None else video.converter(first.frame).full_size()

    def frames(self, path: str, short_side: int) -> Iterator[tuple[float, UInt8[np.ndarray, "H W 3"]]]:
        """Yield the time in seconds and the pixels of every frame, in display order.

        Frames are upright and of even size, and their pixels are square. They are shrunk to a short side of
        `short_side` pixels, but never enlarged.

        Raises:
            MediaError: If the file cannot be read, or as soon as damage is found.
        """
        with VideoFile(path) as video:
            end_s = None
            for shown in drop_stray_timestamps(video.frames()):
                if video.damaged:
                    break
                if end_s is not None:
                    video.check_hold(shown.time_s, end_s)
                end_s = video.end_s(shown)
                converter = video.converter(shown.frame)
                yield shown.time_s, converter.to_rgb(shown.frame, converter.square_pixel_size(short_side))
            if video.damaged:
                raise MediaError(path, "has damaged packets")
            if end_s is None:
                raise video.no_frame_error()
            if video.duration_s() > end_s + grace_s(video.interval_s):
                raise ends_early(path, video.duration_s(), end_s, video.duration_s())


def _slots_by_time(spans: Sequence[ClipSpan], num_frames: int) -> dict[float, list[tuple[int, int]]]:
    """Return the pairs (clip, frame number) that show each requested time."""
    slots: dict[float, list[tuple[int, int]]] = {}
    for clip, span in enumerate(spans):
        for slot, time_s in enumerate(frame_times(span, num_frames)):
            slots.setdefault(time_s, []).append((clip, slot))
    return slots
