"""Writing mp4 files."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from torch import Tensor

from eztorch_sce.files import replacing

_TICKS_PER_S = 90000  # of the time stamps: 24, 25, 30 and 30000/1001 frames a second are whole numbers of them


def write_video(path: Path, frames: Tensor, fps: int) -> None:
    """Write uint8 RGB frames (T, H, W, 3), H and W even, as h264 in mp4; atomically."""
    shown = ((number / fps, frame) for number, frame in enumerate(frames.numpy()))
    with replacing(path) as partial:
        write_frames(partial, shown, fps, {"crf": "18", "preset": "veryfast"})


def write_frames(path: Path, frames: Iterable[tuple[float, np.ndarray]], fps: float, options: dict[str, str]) -> None:
    """Write h264 in mp4 without sound, on one thread.

    Args:
        path: The file, whatever its suffix; it is overwritten.
        frames: When each frame is first shown, in ascending seconds, and its pixels: uint8 RGB (H, W, 3), H and W even.
        fps: Frames per second as the file will tell them; the times of the frames may be uneven.
        options: Of libx264.
    """
    import av

    with av.open(str(path), "w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options=options | {"threads": "1"})
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, _TICKS_PER_S)
        for time_s, pixels in frames:
            if not stream.codec_context.is_open:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time_s * _TICKS_PER_S), Fraction(1, _TICKS_PER_S)
            frame.duration = round(_TICKS_PER_S / fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
