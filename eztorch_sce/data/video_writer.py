"""Writing mp4 files."""

from fractions import Fraction
from pathlib import Path

from torch import Tensor


def write_video(path: Path, frames: Tensor, fps: int) -> None:
    """Write uint8 RGB frames (T, H, W, 3), H and W even, as h264 in mp4; atomically."""
    import av

    partial = path.with_name(path.name + ".partial")
    with av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast", "threads": "1"}
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    partial.replace(path)
