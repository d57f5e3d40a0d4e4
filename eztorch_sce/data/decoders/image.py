"""Images, as clips with T = 1: JPEG through simplejpeg (libjpeg-turbo), all other formats through Pillow.

simplejpeg is a thin, maintained, MIT-licensed binding of libjpeg-turbo with wheels for all systems. It returns the same
pixels as Pillow in two thirds of the time. A JPEG file can be decoded directly at 1/2, 1/4 or 1/8 of its size, which
costs less than decoding at full size; libjpeg-turbo's scales in between cost more.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8

from eztorch_sce.data.decoders.base import Spans, Timing, choose_spans, frame_times
from eztorch_sce.data.members import is_member, read_member
from eztorch_sce.errors import MediaError
from eztorch_sce.types import Clip, MediaInfo

if TYPE_CHECKING:
    from PIL.Image import Image

# Given the height and width of an upright image, returns the smallest scale in (0, 1] at which it may be decoded.
LeastScale: TypeAlias = Callable[[int, int], float]

_ORIENTATION = 0x0112  # the EXIF tag
_TO_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # for pixels (H, W, 3), by EXIF orientation
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels),
}


def full_scale(height: int, width: int) -> float:
    """Return 1: decode an image at its full size."""
    return 1.0


class ImageDecoder:
    """Decoder of an image as a video that shows a single frame forever.

    Args:
        least_scale: Returns the smallest scale at which an image may be decoded. A JPEG file is decoded at that scale
            or the next larger one available, any other file at full size.
    """

    def __init__(self, least_scale: LeastScale = full_scale) -> None:
        self.least_scale = least_scale

    def probe(self, path: str) -> MediaInfo:
        """Return the upright size of an image, read from its header; the duration and frame rate are 0."""
        from PIL import Image

        source = io.BytesIO(read_member(path)) if is_member(path) else path
        with _as_media_errors(path), Image.open(source) as image:
            _, (height, width) = _orientation_and_size(image)
        return MediaInfo(duration_s=0.0, fps=0.0, width=width, height=height, codec="image")

    def read(self, path: str, spans: Spans, num_frames: int) -> list[Clip]:
        """Return the image once per span, repeated to `num_frames` frames that share its memory."""
        chosen = choose_spans(spans, lambda: Timing(0.0, 0.0))
        for span in chosen:
            frame_times(span, num_frames)  # raises the same errors as for a video
        pixels, full_size = read_image(path, self.least_scale)
        image = torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)
        frames = image[:, None].expand(-1, num_frames, -1, -1)  # (3, T, H, W)
        return [Clip(frames, torch.zeros(num_frames, dtype=torch.float64), full_size) for _ in chosen]


def load_image(path: str) -> UInt8[np.ndarray, "H W 3"]:
    """Return an image at full size, see `read_image`."""
    return read_image(path)[0]


def read_image(path: str, least_scale: LeastScale = full_scale) -> tuple[UInt8[np.ndarray, "H W 3"], tuple[int, int]]:
    """Return an image as RGB, upright according to its EXIF orientation, and its full height and width.

    16-bit values are scaled to 8 bits, and transparent areas become white. Only the first image of an animation is
    read.

    Args:
        path: The file, or a member of a tar shard.
        least_scale: Returns the smallest scale at which the image may be decoded, see `ImageDecoder`.

    Raises:
        MediaError: If the file is missing, truncated or not an image.
    """
    from PIL import Image

    with _as_media_errors(path):
        data = read_member(path) if is_member(path) else Path(path).read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            orientation, full_size = _orientation_and_size(image)
            pixels = None
            if image.format in ("JPEG", "MPO"):
                pixels = _decode_jpeg(data, image, least_scale(*full_size))
            if pixels is None:
                image.load()
                pixels = np.array(_to_rgb(image))
    to_upright = _TO_UPRIGHT.get(orientation)
    return pixels if to_upright is None else np.ascontiguousarray(to_upright(pixels)), full_size


def _orientation_and_size(image: "Image") -> tuple[int, tuple[int, int]]:
    """Return the EXIF orientation, 1 to 8, and the height and width of the upright image."""
    if image.format == "TIFF":
        image.load()  # rotates the image upright and drops the orientation
    orientation = image.getexif().get(_ORIENTATION, 1)
    width, height = image.size
    return orientation, ((width, height) if orientation in (5, 6, 7, 8) else (height, width))


def _decode_jpeg(data: bytes, image: "Image", least_scale: float) -> UInt8[np.ndarray, "H W 3"] | None:
    """Return the pixels as stored, or None if Pillow must decode the file: CMYK, or with a harmless fault."""
    import simplejpeg

    width, height = image.size
    divisor = next((number for number in (8, 4, 2) if number * least_scale <= 1), 1)
    if image.mode not in ("L", "RGB"):
        image.draft(image.mode, (width // divisor, height // divisor))
        return None
    # Round up as libjpeg-turbo does. If rounded down, the minimum would select one of its costlier scales.
    min_width, min_height = -(-width // divisor), -(-height // divisor)
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB", min_width=min_width, min_height=min_height))
    except ValueError:  # raised even for harmless faults, such as bytes between two segments
        return None


@contextmanager
def _as_media_errors(path: str) -> Iterator[None]:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd metadata, which does not matter here
            yield
    except FileNotFoundError as error:
        raise MediaError(path, "does not exist") from error
    except UnidentifiedImageError as error:
        raise MediaError(path, "is not an image that Pillow can read") from error
    except Image.DecompressionBombError as error:
        raise MediaError(path, f"has too many pixels ({error})") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # raised by Pillow's plugins for damaged files
        raise MediaError(path, f"is damaged ({error})") from error


def _to_rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):  # 16-bit gray, which convert() would clip at 255
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
