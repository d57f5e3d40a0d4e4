"""Images: a clip with T = 1. JPEG through simplejpeg (libjpeg-turbo), everything else through Pillow.

simplejpeg is a thin, kept, MIT-licensed door to libjpeg-turbo that comes as wheels for all systems: the same pixels as
Pillow's in two thirds of the time. A JPEG file is shrunk to 1/2, 1/4 or 1/8 while it is decoded, where that leaves
enough pixels: at those scales libjpeg-turbo computes less, at those between them more.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from eztorch_sce.data.decoders.base import Spans, Timing, choose_spans, frame_times
from eztorch_sce.data.sources.shards import is_member, read_member
from eztorch_sce.errors import MediaError
from eztorch_sce.types import Clip, MediaInfo

if TYPE_CHECKING:
    from PIL.Image import Image

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # what turns pixels (H, W, 3) of each orientation upright
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels),
}


def whole(height: int, width: int) -> float:
    """Shrink no image."""
    return 1.0


class ImageDecoder:
    """Reads an image as a video that shows one frame for ever.

    Args:
        least_scale: Told the height and width of an upright image, returns the share of them that is enough; a JPEG
            is then decoded at that scale or the next larger one there is.
    """

    def __init__(self, least_scale: Callable[[int, int], float] = whole) -> None:
        self.least_scale = least_scale

    def probe(self, path: str) -> MediaInfo:
        """Return the size of the upright image, from its header; its duration and frame rate are 0."""
        from PIL import Image

        source = io.BytesIO(read_member(path)) if is_member(path) else path
        with _errors_in_words(path), Image.open(source) as image:
            _, (height, width) = _orientation_and_size(image)
        return MediaInfo(duration_s=0.0, fps=0.0, width=width, height=height, codec="image")

    def read(self, path: str, spans: Spans, num_frames: int) -> list[Clip]:
        """Return the image once per span: T = 1, or T views of the same memory where more frames are asked for."""
        chosen = choose_spans(spans, lambda: Timing(0.0, 0.0))
        for span in chosen:
            frame_times(span, num_frames)  # the same errors as for a video
        pixels, full_size = read_image(path, self.least_scale)
        image = torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)
        frames = image[:, None].expand(-1, num_frames, -1, -1)  # (3, T, H, W)
        return [Clip(frames, torch.zeros(num_frames, dtype=torch.float64), full_size) for _ in chosen]


def load_image(path: str) -> np.ndarray:
    """Return all pixels of an image, as `read_image` does."""
    return read_image(path)[0]


def read_image(path: str, least_scale: Callable[[int, int], float] = whole) -> tuple[np.ndarray, tuple[int, int]]:
    """Return an image as uint8 RGB (H, W, 3), turned as its EXIF orientation says, and its full height and width.

    Sixteen bits are scaled to eight, transparent parts are shown on white, of an animation the first image is taken.

    Args:
        path: The file.
        least_scale: As of `ImageDecoder`.

    Raises:
        MediaError: If the file is missing, truncated or no image.
    """
    from PIL import Image

    with _errors_in_words(path):
        data = read_member(path) if is_member(path) else Path(path).read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            orientation, full_size = _orientation_and_size(image)
            pixels = None
            if image.format in ("JPEG", "MPO"):
                pixels = _decode_jpeg(data, image, least_scale(*full_size))
            if pixels is None:
                image.load()
                pixels = np.array(_to_rgb(image))
    upright = _UPRIGHT.get(orientation)
    return pixels if upright is None else np.ascontiguousarray(upright(pixels)), full_size


def _orientation_and_size(image: "Image") -> tuple[int, tuple[int, int]]:
    """Return the EXIF orientation, 1 to 8, and height and width of the upright image."""
    if image.format == "TIFF":
        image.load()  # turns it upright, and forgets the orientation
    orientation = image.getexif().get(_ORIENTATION, 1)
    width, height = image.size
    return orientation, ((width, height) if orientation in (5, 6, 7, 8) else (height, width))


def _decode_jpeg(data: bytes, image: "Image", least_scale: float) -> np.ndarray | None:
    """Return the pixels as stored, or None for what Pillow is to decode: four inks, and files with faults."""
    import simplejpeg

    width, height = image.size
    divisor = next((number for number in (8, 4, 2) if number * least_scale <= 1), 1)
    if image.mode not in ("L", "RGB"):
        image.draft(image.mode, (width // divisor, height // divisor))
        return None
    try:
        # What it decodes to is rounded up; asked for less, it would take a scale between these.
        return simplejpeg.decode_jpeg(data, "RGB", min_width=-(-width // divisor), min_height=-(-height // divisor))
    except ValueError:  # also of faults that do not matter, as bytes between two segments
        return None


@contextmanager
def _errors_in_words(path: str) -> Iterator[None]:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which no one needs here
            yield
    except FileNotFoundError as error:
        raise MediaError(path, "does not exist") from error
    except UnidentifiedImageError as error:
        raise MediaError(path, "is no image that Pillow knows") from error
    except Image.DecompressionBombError as error:
        raise MediaError(path, f"has too many pixels ({error})") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's plugins raise on damaged files
        raise MediaError(path, f"is damaged ({error})") from error


def _to_rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating point numbers of unknown range")
    if image.mode.startswith("I"):  # 16-bit gray, which convert() would clip at 255
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return image.convert("RGB")
