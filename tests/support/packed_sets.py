"""Helpers of the tests of packed sets: the class and file names of CIFAR-10, and random images."""

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
