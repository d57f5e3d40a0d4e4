"""Conversion of decoded frames to upright RGB, and the sizes at which they are stored and shown."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from jaxtyping import Int32, UInt8

from eztorch_sce.errors import MediaError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.sidedata.sidedata import SideDataContainer

_ASPECT_TOLERANCE = 0.01  # encoders that round a size store an aspect such as 1279:1280


@dataclass(frozen=True)
class FrameConverter:
    """Converter of the frames of one video to upright RGB.

    Attributes:
        path: The video, named in errors.
        width: Width of the stored frames in pixels, before any rotation.
        height: Height of the stored frames in pixels, before any rotation.
        pixel_aspect: Width over height of a stored pixel.
        matrix: Display matrix of the file (see `upright`), or None if it has none.
    """

    path: str
    width: int
    height: int
    pixel_aspect: float
    matrix: Int32[np.ndarray, "3 3"] | None

    def to_rgb(self, frame: "VideoFrame", size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "H W 3"]:
        """Return a frame as upright RGB.

        Args:
            frame: The decoded frame.
            size: Width and height to scale to, before any rotation. None takes the stored size of the first frame,
                even if the resolution changes later in the file.

        Raises:
            MediaError: If FFmpeg cannot convert the pixel format.
        """
        import av

        width, height = size or (self.width, self.height)
        try:
            # PyAV's default interpolation returns the same pixels as decord for ordinary 8-bit video.
            image = frame.reformat(width=width, height=height, format="rgb24", **_single_threaded())
        except av.FFmpegError as error:
            raise MediaError(self.path, f"its pixel format {frame.format.name} cannot be converted to RGB") from error
        plane = image.planes[0]  # rows are padded; `to_ndarray` would copy them
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
        return upright(rows[:, : 3 * width].reshape(height, width, 3), self.matrix)

    def upright_size(self) -> tuple[int, int]:
        """Return the height and width of the frames that `to_rgb` returns."""
        return (self.width, self.height) if swaps_axes(self.matrix) else (self.height, self.width)

    def full_size(self) -> tuple[int, int] | None:
        """Return the height and width at which to show the frames, or None if their pixels are square."""
        if self.pixel_aspect == 1:
            return None
        height, width = self.upright_size()
        return height, max(1, round(width * self.pixel_aspect ** (-1 if swaps_axes(self.matrix) else 1)))

    def square_pixel_size(self, short_side: int) -> tuple[int, int]:
        """Return the width and height, before rotation, of frames with square pixels and a given short side.

        Both are even, and frames are never enlarged.
        """
        shown_width = self.width * self.pixel_aspect
        scale = min(1.0, short_side / min(shown_width, self.height))
        return max(2, 2 * round(shown_width * scale / 2)), max(2, 2 * round(self.height * scale / 2))


def upright(
    image: UInt8[np.ndarray, "_ _ channels"], matrix: Int32[np.ndarray, "3 3"] | None
) -> UInt8[np.ndarray, "_ _ channels"]:
    """Rotate an image (H, W, C) by quarter turns and mirror it, as a display matrix specifies.

    The matrix maps the row vector of a pixel's position (x, y) to the position where the pixel is shown. None leaves
    the image as it is. Returns a view.
    """
    if matrix is None:
        return image
    if swaps_axes(matrix):
        image = image.transpose(1, 0, 2)
        flips_x, flips_y = matrix[1, 0] < 0, matrix[0, 1] < 0
    else:
        flips_x, flips_y = matrix[0, 0] < 0, matrix[1, 1] < 0
    return image[:: -1 if flips_y else 1, :: -1 if flips_x else 1]


def swaps_axes(matrix: Int32[np.ndarray, "3 3"] | None) -> bool:
    """Return whether a display matrix exchanges width and height."""
    return matrix is not None and bool(abs(matrix[0, 1]) > abs(matrix[0, 0]))


def display_matrix(frame: "VideoFrame") -> Int32[np.ndarray, "3 3"] | None:
    """Return the display matrix stored with a frame, or None if the file has none."""
    try:
        side_data = cast("SideDataContainer", frame.side_data)  # PyAV's type declares only its motion vectors
    except ValueError:  # side data that PyAV does not know, such as EXIF or the eye of a stereo video
        return _rotation_matrix(frame.rotation)
    matrix = side_data.get("DISPLAYMATRIX")
    return None if matrix is None else np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)


def _rotation_matrix(degrees: int) -> Int32[np.ndarray, "3 3"] | None:
    """Return the display matrix of a rotation by quarter turns, counterclockwise, or None for no rotation."""
    cosine, sine = round(math.cos(math.radians(degrees))), round(math.sin(math.radians(degrees)))
    one = 1 << 16
    rows = [[cosine * one, -sine * one, 0], [sine * one, cosine * one, 0], [0, 0, 1 << 30]]
    return np.array(rows, np.int32) if degrees else None


def square_if_close(pixel_aspect: float) -> float:
    """Return the aspect of a pixel, or 1 if the pixel is square up to rounding."""
    return pixel_aspect if abs(pixel_aspect - 1) > _ASPECT_TOLERANCE else 1.0


def _single_threaded() -> dict[str, int]:
    """Return the arguments that keep a conversion on this thread; PyAV 17 made it parallel by default."""
    import av

    return {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
