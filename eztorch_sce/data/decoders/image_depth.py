"""Images with more than 8 bits per value.

Cameras with 10 or 12 bits often store their values unscaled in 16 bits, so that white is 1023 or 4095. Whether a file
does is only known if it says so (the sBIT chunk of a PNG file, the bits per value of a TIFF file): its largest value
would tell nothing about a dark image, and a scale per file would change the brightness between the images of a set.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from eztorch_sce.data.decoders.pyav.still import decode_wide_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

_FULL = 65535
_BITS_PER_SAMPLE = 258  # the TIFF tag
_SUSPICIOUS_BITS = 12  # values of so few bits or fewer, in an image of 16, were probably not scaled


def is_wide(image: "Image", data: bytes) -> bool:
    """Return whether an open image stores integers of more than 8 bits; `data` begin with the header of a PNG file."""
    if image.format == "PNG":
        return data[24:25] == b"\x10"
    return image.mode.startswith("I") or (image.format == "TIFF" and _tiff_bits(image) > 8)


def to_8_bits(image: "Image", data: bytes) -> tuple[UInt8[np.ndarray, "H W *channels"], str]:
    """Return a wide image as gray (H, W) or RGB (H, W, 3), and a remark if it seems to use only its low bits, or "".

    Args:
        image: The open image, see `is_wide`.
        data: The content of the file.

    Raises:
        OverflowError: If values are not within 0 and 65535, so that their range is unknown.
    """
    bits = _stated_bits(image, data)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
    else:
        values = np.asarray(image.convert("RGB")).astype(np.int64) * 257  # Pillow keeps the high 8 bits
        if bits and _is_rgb_png(data) and values.max() < 257 << max(0, bits - 8):
            values = decode_wide_rgb(data).astype(np.int64)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > _FULL:
        raise OverflowError(f"has values from {lowest} to {highest}, beyond 16 bits, so that their range is unknown")
    white, remark = _FULL, remark_on_range(highest)
    if bits and _is_unscaled(values, highest, bits):
        white, remark = (1 << bits) - 1, ""
    return ((values * 255 + white // 2) // white).astype(np.uint8), remark


def remark_on_range(highest: int) -> str:
    """Return a remark if the highest value of a wide image suggests that it uses only its low bits, or ""."""
    if not 0 < highest < 1 << _SUSPICIOUS_BITS:
        return ""
    return f"dark: uses only {max(8, highest.bit_length())} of 16 bits; scale its values, or state their bits"


def _is_unscaled(values: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]", highest: int, bits: int) -> bool:
    """Return whether values occupy the low `bits` bits; the PNG standard wants them in the high bits."""
    return highest < 1 << bits and bool((values % (1 << (16 - bits))).any())


def _stated_bits(image: "Image", data: bytes) -> int | None:
    """Return the number of significant bits, 9 to 15, if the file states it."""
    bits = None
    if image.format == "TIFF":
        bits = _tiff_bits(image)
    elif image.format == "PNG" and (chunk := _png_chunk(data, b"sBIT")):
        bits = chunk[0]
    return bits if bits is not None and 8 < bits < 16 else None


def _png_chunk(data: bytes, name: bytes) -> bytes | None:
    """Return the content of a chunk that precedes the pixels of a PNG file, or None."""
    start = 8
    while start + 8 <= len(data) and (found := data[start + 4 : start + 8]) != b"IDAT":
        length = int.from_bytes(data[start : start + 4], "big")
        if found == name:
            return data[start + 8 : start + 8 + length]
        start += length + 12
    return None


def _tiff_bits(image: "Image") -> int:
    """Return the bits per value of a TIFF file."""
    bits: int = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))[0]
    return bits


def _is_rgb_png(data: bytes) -> bool:
    """Return whether a PNG file stores RGB without transparency."""
    return data[:4] == b"\x89PNG" and data[25:26] == b"\2"
