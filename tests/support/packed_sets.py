"""Helpers of the tests of packed sets: the class and file names of CIFAR-10, random images, a tiny CIFAR-10."""

from pathlib import Path

import numpy as np

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def random_pixels(num: int, side: int, seed: int = 0) -> np.ndarray:
    """Return random images, uint8 (num, side, side, 3)."""
    pixels: np.ndarray = np.random.default_rng(seed).integers(0, 256, (num, side, side, 3), np.uint8)
    return pixels


def as_rows(pixels: np.ndarray) -> np.ndarray:
    """Return images (N, H, W, 3) in the layout of CIFAR: all red values, row by row, then green, then blue."""
    rows: np.ndarray = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return rows


def write_cifar10(folder: Path) -> dict[str, np.ndarray]:
    """Write the binary version with an image of classes 0, 1 and 2 in each batch; return the images by batch."""
    folder.mkdir(parents=True)
    labels = np.arange(3, dtype=np.uint8)[:, None]
    images = {name: random_pixels(3, 32, seed) for seed, name in enumerate(BATCHES)}
    for name, pixels in images.items():
        (folder / f"{name}.bin").write_bytes(np.hstack([labels, as_rows(pixels)]).tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR10) + "\n\n")
    return images


def names_in(folder: Path) -> list[str]:
    """Return the paths of all files below a folder, sorted."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
