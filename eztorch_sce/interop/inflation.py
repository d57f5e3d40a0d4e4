"""Inflation of image networks to video networks: 2-D convolutions become 3-D ones."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

WAYS = ("repeat", "center")


class Flat(NamedTuple):
    """The image network that a video network is inflated from.

    Attributes:
        backbone: Its registered name.
        renames: Pairs of a pattern in the names of the video network and its replacement in those of the image network,
            applied in order by `re.sub`.
    """

    backbone: str
    renames: tuple[tuple[str, str], ...]

    def name(self, name: str) -> str:
        """Return the name in the image network of a tensor of the video network."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


_OF_BLOCKS = (
    (r"^blocks\.0\.conv\.", "conv1."),
    (r"^blocks\.0\.norm\.", "bn1."),
    (r"^blocks\.(\d)\.res_blocks\.", r"layer\1."),
    (r"\.branch1_conv\.", ".downsample.0."),
    (r"\.branch1_norm\.", ".downsample.1."),
    (r"\.branch2\.(conv|norm)_a\.", r".\1_1."),
    (r"\.branch2\.(conv|norm)_b\.", r".\1_2."),
    (r"\.branch2\.(conv|norm)_c\.", r".\1_3."),
    (r"\.conv_(\d)\.", r".conv\1."),
    (r"\.norm_(\d)\.", r".bn\1."),
)

FLAT: Mapping[str, Flat] = {"r3d18": Flat("resnet18", _OF_BLOCKS), "r3d50": Flat("resnet50", _OF_BLOCKS)}
"""The image networks that video networks are inflated from, by the name of the video network."""


def inflated(weight: Tensor, shape: torch.Size, way: str) -> Tensor | None:
    """Return the weight of a 2-D convolution for a 3-D one, or None if the shapes do not correspond.

    "repeat" repeats it over the T frames of the kernel and divides it by T, so that a clip of equal frames gives what
    the image gives (Carreira and Zisserman, CVPR 2017, arXiv:1705.07750). "center" puts it at the middle frame, and
    zeros elsewhere, so that each frame gives what it gives as an image.

    Args:
        weight: (O, I, H, W).
        shape: (O, I, T, H, W).
        way: "repeat" or "center".
    """
    if weight.ndim != 4 or len(shape) != 5 or (*weight.shape[:2], *weight.shape[2:]) != (*shape[:2], *shape[3:]):
        return None
    num_frames = shape[2]
    if way == "repeat":
        return weight.unsqueeze(2).repeat(1, 1, num_frames, 1, 1) / num_frames
    video = weight.new_zeros(shape)
    video[:, :, num_frames // 2] = weight
    return video
