"""Pictures through Pillow: a clip with T = 1."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from eztorch_sce.data.decoders.base import frame_times
from eztorch_sce.errors import MediaError
from eztorch_sce.types import Clip, ClipSpan, MediaInfo

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")


class ImageDecoder:
    """Reads a picture as a video that shows one frame for ever."""

    def probe(self, path: str) -> MediaInfo:
        """Return the size of the upright picture; its duration and frame rate are 0."""
        height, width, _ = load_picture(path).shape
        return MediaInfo(duration_s=0.0, fps=0.0, width=width, height=height, codec="image")

    def read(self, path: str, spans: Sequence[ClipSpan], num_frames: int) -> list[Clip]:
        """Return the picture once per span: T = 1, or T views of the same memory where more frames are asked for."""
        for span in spans:
            frame_times(span, num_frames)  # the same errors as for a video
        picture = torch.from_numpy(load_picture(path)).permute(2, 0, 1)  # (3, H, W)
        frames = picture[:, None].expand(-1, num_frames, -1, -1)  # (3, T, H, W)
        return [Clip(frames, torch.zeros(num_frames, dtype=torch.float64)) for _ in spans]


def load_picture(path: str) -> np.ndarray:
    """Return a picture as uint8 RGB (H, W, 3), turned as its EXIF orientation says.

    Sixteen bits are scaled to eight, transparent parts are shown on white, of an animation the first picture is taken.

    Raises:
        MediaError: If the file is missing, truncated or no picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which no one needs here
            with Image.open(path) as picture:
                picture.load()
                return np.array(_to_rgb(ImageOps.exif_transpose(picture)))
    except FileNotFoundError as error:
        raise MediaError(path, "does not exist") from error
    except UnidentifiedImageError as error:
        raise MediaError(path, "is no picture that Pillow knows") from error
    except Image.DecompressionBombError as error:
        raise MediaError(path, f"has too many pixels ({error})") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's plugins raise on damaged files
        raise MediaError(path, f"is damaged ({error})") from error


def _to_rgb(picture: "Image") -> "Image":
    from PIL import Image

    if picture.mode == "F":
        raise ValueError("its pixels are floating point numbers of unknown range")
    if picture.mode.startswith("I"):  # 16-bit gray, which convert() would clip at 255
        wide = np.asarray(picture).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return picture.convert("RGB")
