"""Helpers of the tests of images."""

import io
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
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


def write_noise(files: Iterable[Path], size: int) -> None:
    """Write images of noise, `size` pixels square, each another one, and the folders that they are in."""
    generator = torch.Generator().manual_seed(0)
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(file)


def write_noisy_classes(folder: Path, counts: Mapping[str, int], size: int) -> None:
    """Write images of noise, of two classes in turn, to folders of splits: train/a/0.png, train/b/1.png, ...

    Args:
        folder: The folder of the splits.
        counts: Number of images of each split.
        size: Height and width of the images in pixels.
    """
    names = [f"{split}/{'ab'[number % 2]}/{number}.png" for split, count in counts.items() for number in range(count)]
    write_noise((folder / name for name in names), size)


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
