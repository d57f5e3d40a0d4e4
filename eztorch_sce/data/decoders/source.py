"""Records of a data source: frames in memory, from which clips are taken without decoding, and the files it names."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from eztorch_sce.data.decoders.base import Decoder, Spans, Timing, choose_spans, frame_times
from eztorch_sce.data.decoders.frames import frames_shown
from eztorch_sce.data.sources.source import OpenedSource
from eztorch_sce.errors import MediaError
from eztorch_sce.types import Clip, MediaInfo


class SourceDecoder:
    """Decoder of one record of a source, whose path is the name of the record.

    Args:
        source: The source.
        index: Index of the record in the source.
        fps: Frames per second of videos in memory.
        decoder_of: Returns the decoder of a file, for paths that the source returns.
    """

    def __init__(self, source: OpenedSource, index: int, fps: float, decoder_of: Callable[[str], Decoder]) -> None:
        self.source, self.index, self.fps, self.decoder_of = source, index, fps, decoder_of

    def probe(self, path: str) -> MediaInfo:
        """Return the duration, frame rate and size of a record. A record in memory is read whole."""
        value = self.source.read(self.index, path, here=True)
        if isinstance(value, str):
            try:
                return self.decoder_of(value).probe(value)
            except MediaError as error:
                raise _named(path, error) from error
        height, width = value.shape[-2:]
        if self.source.kind == "image":
            return MediaInfo(0.0, 0.0, width, height, codec="image")
        return MediaInfo(value.shape[1] / self.fps, self.fps, width, height, codec="frames")

    def read(self, path: str, spans: Spans, num_frames: int) -> list[Clip]:
        """Return one clip per span; clips of frames in memory share their memory where that is possible.

        Raises:
            MediaError: If the record cannot be read, or a span ends after the video.
            SourceError: If the source makes a mistake.
        """
        value = self.source.read(self.index, path)
        if isinstance(value, str):
            try:
                return self.decoder_of(value).read(value, spans, num_frames)
            except MediaError as error:
                raise _named(path, error) from error
        if self.source.kind == "image":
            chosen = choose_spans(spans, lambda: Timing(0.0, 0.0))
            for span in chosen:
                frame_times(span, num_frames)  # raises the same errors as for a video
            image = _as_clip(value[:, None] if value.ndim == 3 else value).expand(-1, num_frames, -1, -1)
            return [Clip(image, torch.zeros(num_frames, dtype=torch.float64)) for _ in chosen]
        rows = frames_shown(path, value.shape[1], self.fps, spans, num_frames)
        return [
            Clip(
                _as_clip(value[:, _as_slice(row)]),
                torch.tensor([number / self.fps for number in row], dtype=torch.float64),
            )
            for row in rows
        ]


def _named(path: str, error: MediaError) -> MediaError:
    """Return an error about a file as one about the record that names the file."""
    return MediaError(path, error.reason if error.path == path else str(error))


def _as_slice(row: Sequence[int]) -> "slice | list[int]":
    """Return the numbers of the frames of a clip as a slice if they are equally far apart, which copies nothing."""
    step = row[1] - row[0] if len(row) > 1 else 1
    if step > 0 and all(later - earlier == step for earlier, later in pairwise(row)):
        return slice(row[0], row[-1] + 1, step)
    return list(row)


def _as_clip(frames: "Tensor | np.ndarray") -> UInt8[Tensor, "3 T H W"]:
    """Return frames (C, T, H, W) with C = 1 or 3 as a tensor of three channels, copied only if torch requires it."""
    if isinstance(frames, np.ndarray):
        # torch has no negative strides, such as of x[::-1], and no memory that is read-only.
        is_plain = frames.flags.writeable and all(stride >= 0 for stride in frames.strides)
        frames = torch.from_numpy(frames if is_plain else np.array(frames))
    return frames.expand(3, -1, -1, -1)
