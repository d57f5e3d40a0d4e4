"""Still images through FFmpeg, where Pillow cannot read them in full depth."""

import io

import numpy as np
from jaxtyping import UInt16


def decode_wide_rgb(png: bytes) -> UInt16[np.ndarray, "H W 3"]:
    """Return the pixels of a PNG file of 16 bits per color, of which Pillow keeps 8.

    Raises:
        ValueError: If the file is damaged.
    """
    import av

    try:
        with av.open(io.BytesIO(png), format="png_pipe") as container:
            frame = next(container.decode(video=0))
    except (av.FFmpegError, StopIteration) as error:
        raise ValueError(f"FFmpeg cannot decode it: {error}") from error
    return np.asarray(frame.to_ndarray(format="rgb48le"), np.uint16)
