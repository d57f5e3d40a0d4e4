"""Helpers of the tests of images."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def smooth(height: int, width: int, seed: int = 0) -> Image.Image:
    """Return an image without sharp edges, which looks the same at any scale."""
    coarse = np.random.default_rng(seed).integers(64, 192, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_two_classes(folder: Path, count: int = 12) -> None:
    """Write plain images, 32 pixels square and each of another red: a/0.png, b/1.png, a/2.png, ... below a folder."""
    for number in range(count):
        file = folder / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(file)


def jpeg(height: int = 64, width: int = 64, seed: int = 0, **settings: Any) -> bytes:
    """Return a JPEG file of noise, which compresses badly, so that every part of the file holds pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG", **settings)


def encoded(image: Image.Image, image_format: str, **settings: Any) -> bytes:
    """Return an image as a file of a format that Pillow writes."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **settings)
    return buffer.getvalue()


def wide_png(values: np.ndarray, significant_bits: int | None = None) -> bytes:
    """Return values (H, W, C) as a PNG file of 16 bits per value, with an sBIT chunk if `significant_bits` is set."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    height, width, channels = values.shape
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]  # gray, gray and alpha, RGB, RGB and alpha
    stated = b"" if significant_bits is None else chunk(b"sBIT", bytes([significant_bits] * channels))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), stated, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )
