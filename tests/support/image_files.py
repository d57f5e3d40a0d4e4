"""Helpers of the tests of images."""

import numpy as np
from PIL import Image


def smooth(height: int, width: int, seed: int = 0) -> Image.Image:
    """Return an image without sharp edges, which looks the same at any scale."""
    coarse = np.random.default_rng(seed).integers(64, 192, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
