"""Images, as clips with T = 1: JPEG through simplejpeg (libjpeg-turbo), all other formats through Pillow.

simplejpeg is a thin, maintained, MIT-licensed binding of libjpeg-turbo with wheels for all systems. It returns the same
pixels as Pillow in two thirds of the time. A JPEG file can be decoded directly at 1/2, 1/4 or 1/8 of its size, which
costs less than decoding at full size; libjpeg-turbo's scales in between cost more.
"""

import errno
import io
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8

from eztorch_sce.data.decoders.base import Spans, Timing, check_is_file, choose_spans, frame_times
from eztorch_sce.data.decoders.image_depth import is_wide, remark_on_range, to_8_bits
from eztorch_sce.data.media import AVIF, HEIC, UNREADABLE_SUFFIXES, content_of
from eztorch_sce.data.members import is_member, read_member
from eztorch_sce.errors import MediaError
from eztorch_sce.printing import visible
from eztorch_sce.types import Clip, MediaInfo

if TYPE_CHECKING:
    from PIL.Image import Image

# Given the height and width of an upright image, returns the smallest scale in (0, 1] at which it may be decoded.
LeastScale: TypeAlias = Callable[[int, int], float]
ByteFile: TypeAlias = io.BytesIO | io.BufferedReader

_OPTIONAL = {AVIF: ".avif", HEIC: ".heic"}  # what `content_of` calls formats that not every installation reads
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
# libjpeg's complaints after which it fills the rest of the image, or some of it, with gray or noise.
_LOST_PIXELS = (
    "Premature end of JPEG file",
    "premature end of data segment",
    "bad Huffman code",
    "bad arithmetic code",
    "found marker",
)
_MAX_EXTRANEOUS = 0.1  # fraction of a file that may remain undecoded
_HOLE = 64  # zero bytes in a row among the pixels of a faulty file: a block that was never written
_START_OF_SCAN = b"\xff\xda"


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
        with open_file(path) as file, open_image(path, file) as image:
            height, width = upright_size(image)
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

    Values of 16 bits are scaled to 8 bits (see `to_8_bits`), and transparent areas become white. The first file with
    something worth knowing (see `decode_image`) causes a warning.

    Args:
        path: The file, or a member of a tar shard.
        least_scale: Returns the smallest scale at which the image may be decoded, see `ImageDecoder`.

    Raises:
        MediaError: If the file is missing, truncated, damaged so that pixels are lost, or not an image.
    """
    pixels, full_size, remarks = decode_image(path, read_bytes(path), least_scale)
    for remark in remarks:
        if not remark.startswith("damaged"):  # stray bytes, which are common and seldom change a pixel
            _warn_once(path, remark)
    return pixels, full_size


def decode_image(
    path: str, data: bytes, least_scale: LeastScale = full_scale
) -> tuple[UInt8[np.ndarray, "H W 3"], tuple[int, int], list[str]]:
    """Return what `read_image` does, and remarks of the form "kind: details".

    Remarks tell that the file holds several images, of which the first is used, that it seems to use only the low bits
    of its values, or that it is slightly damaged.

    Args:
        path: The file, named in errors.
        data: Its content.
        least_scale: Returns the smallest scale at which the image may be decoded.

    Raises:
        MediaError: If the data are truncated, damaged so that pixels are lost, or not an image.
    """
    with open_image(path, io.BytesIO(data)) as image:
        remarks = remarks_on(image)
        orientation, full_size = _orientation_and_size(image)
        pixels = None
        if image.format in ("JPEG", "MPO"):
            pixels, complaint = _decode_jpeg(data, image, least_scale(*full_size))
            remarks += [f"damaged: {complaint}"] if complaint else []
        if pixels is None:
            image.load()
            pixels, remark = _to_rgb(path, image, data)
            remarks += [remark] if remark else []
    to_upright = _TO_UPRIGHT.get(orientation)
    return pixels if to_upright is None else np.ascontiguousarray(to_upright(pixels)), full_size, remarks


def remarks_on(image: "Image") -> list[str]:
    """Return the remark of `decode_image` that the header of an image suffices for, if there is one."""
    num_images = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # phones add previews as MPO
    return [f"several images: {num_images}, of which only the first is used"] if num_images > 1 else []


def read_bytes(path: str) -> bytes:
    """Return the content of a file or of a member of a tar shard.

    Raises:
        MediaError: If it cannot be read.
    """
    with open_file(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise MediaError(path, f"cannot be read ({error.strerror})") from error


def open_file(path: str) -> ByteFile:
    """Open a file or a member of a tar shard for reading.

    Raises:
        MediaError: If it cannot be opened.
    """
    if is_member(path):
        return io.BytesIO(read_member(path))
    try:
        return open(path, "rb", opener=_open_regular)
    except OSError as error:
        check_is_file(path)  # finds better words for what is missing or not a file
        raise MediaError(path, f"cannot be opened ({error.strerror})") from error


def _open_regular(path: str, flags: int) -> int:
    """Open a regular file only; opening a named pipe would wait until somebody writes to it."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a file")


@contextmanager
def open_image(path: str, file: ByteFile) -> "Iterator[Image]":
    """Open an image with Pillow, and turn what Pillow raises inside the context into a MediaError.

    Args:
        path: The file, named in errors.
        file: Its content.

    Raises:
        MediaError: If it is damaged, not an image, or needs a package that is not installed.
    """
    from PIL import Image, UnidentifiedImageError

    head = file.read(64)
    file.seek(0)
    content = content_of(head)
    if not head:
        raise MediaError(path, "is empty (0 bytes)")
    if cure := UNREADABLE_SUFFIXES.get(_OPTIONAL.get(content, "")):
        raise MediaError(path, f"is {content}: run {cure}")
    if content in _OPTIONAL:
        _prepare_optional(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd metadata, which does not matter here
            with Image.open(file) as image:
                yield image
    except UnidentifiedImageError as error:
        if content.endswith(" image"):
            raise MediaError(path, f"is damaged: {content} whose structure Pillow cannot read") from error
        raise MediaError(path, "is not an image that Pillow can read" + (content and f", but {content}")) from error
    except Image.DecompressionBombError as error:
        raise MediaError(path, f"has too many pixels ({error})") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # raised by Pillow's plugins for damaged files
        raise MediaError(path, f"is damaged ({error})") from error


@cache
def _prepare_optional(content: str) -> None:
    """Let Pillow read a format that needs another library, on one thread: workers decode files in parallel."""
    if content == AVIF:
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    else:
        import pillow_heif

        pillow_heif.options.DECODE_THREADS = 1
        pillow_heif.register_heif_opener(thumbnails=False)


def upright_size(image: "Image") -> tuple[int, int]:
    """Return the height and width of an open image when it is turned upright."""
    return _orientation_and_size(image)[1]


def _orientation_and_size(image: "Image") -> tuple[int, tuple[int, int]]:
    """Return the EXIF orientation, 1 to 8, and the height and width of the upright image."""
    if image.format == "TIFF":
        image.load()  # rotates the image upright and drops the orientation
    orientation = image.getexif().get(_ORIENTATION, 1)
    width, height = image.size
    return orientation, ((width, height) if orientation in (5, 6, 7, 8) else (height, width))


def _decode_jpeg(data: bytes, image: "Image", least_scale: float) -> tuple[UInt8[np.ndarray, "H W 3"] | None, str]:
    """Return the pixels as stored, or None if Pillow must decode the file, and a complaint about harmless damage.

    Pillow decodes files with CMYK colors or with a harmless fault. It does not report that libjpeg filled in lost
    pixels with gray, so every file is also decoded by simplejpeg, which does.

    Raises:
        ValueError: If pixels are lost.
    """
    import simplejpeg

    width, height = image.size
    divisor = next((number for number in (8, 4, 2) if number * least_scale <= 1), 1)
    # Round up as libjpeg-turbo does. If rounded down, the minimum would select one of its costlier scales.
    min_size = {"min_width": -(-width // divisor), "min_height": -(-height // divisor)}
    is_rgb = image.mode in ("L", "RGB")
    if not is_rgb:
        image.draft(image.mode, (width // divisor, height // divisor))
    try:
        pixels = np.asarray(simplejpeg.decode_jpeg(data, "RGB" if is_rgb else "CMYK", **min_size))
    except ValueError as error:  # raised even for harmless faults, such as bytes between two segments
        complaint = str(error)
        if _loses_pixels(complaint, data):
            raise
        return None, complaint if "orrupt" in complaint else ""
    return (pixels if is_rgb else None), ""


def _loses_pixels(complaint: str, data: bytes) -> bool:
    """Return whether a complaint of libjpeg about a file means that pixels are lost."""
    if extraneous := re.search(r"(\d+) extraneous bytes", complaint):
        is_hole = bytes(_HOLE) in data[data.rfind(_START_OF_SCAN) :]
        return is_hole or int(extraneous[1]) > len(data) * _MAX_EXTRANEOUS
    return any(words in complaint for words in _LOST_PIXELS)


def _to_rgb(path: str, image: "Image", data: bytes) -> tuple[UInt8[np.ndarray, "H W 3"], str]:
    """Return the pixels of a loaded image, and a remark if it seems to use only the low bits of its values.

    Raises:
        MediaError: If the range of its values is unknown.
    """
    from PIL import Image

    if image.mode == "F":
        raise MediaError(path, "has floating-point values of unknown range")
    if is_wide(image, data) and (image.mode.startswith("I") or not image.has_transparency_data):
        try:
            values, remark = to_8_bits(image, data)
        except OverflowError as error:
            raise MediaError(path, str(error)) from error
        return (values if values.ndim == 3 else values[:, :, None].repeat(3, axis=2)), remark
    remark = ""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if is_wide(image, data):
            remark = remark_on_range(257 * int(np.asarray(rgba)[..., :3].max()))  # Pillow keeps the high 8 bits
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB")), remark


_warned: set[str] = set()  # kinds of remarks that this process has made


def _warn_once(path: str, remark: str) -> None:
    kind = remark.partition(":")[0]
    if kind not in _warned:
        _warned.add(kind)
        warnings.warn(f"{visible(path)}: {remark}. Run `eztorch-sce data doctor` to list all such files", stacklevel=4)
