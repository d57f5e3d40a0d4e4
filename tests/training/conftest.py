"""Fixtures of the tests of training: labeled images of two colors, and a weights file."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.weights import save_weights
from eztorch_sce.types import InputSpec


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of 12 training and 6 test images, half of each red and half blue."""
    for split, count in (("train", 12), ("test", 6)):
        for number in range(count):
            file = tmp_path / "images" / split / "ab"[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (200, 30 + number, 30) if number % 2 else (30, 30 + number, 200)).save(file)
    return tmp_path / "images"


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """Return the path of the weights of an untrained backbone for images."""
    torch.manual_seed(0)
    config = SmallR2Plus1DConfig(width=4, num_blocks=1)
    spec = InputSpec(num_frames=1, size=32, stats="image")
    save_weights(tmp_path / "backbone.safetensors", config.build(), config, spec, None, [])
    return str(tmp_path / "backbone.safetensors")
