"""Inflation of image networks to video networks: 2-D convolutions become 3-D ones."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from eztorch_sce.interop.layouts import AS_IMAGES, Renames, renamed

WAYS = ("repeat", "center")


class Flat(NamedTuple):
    """The image network that a video network is inflated from.

    Attributes:
        backbone: Its registered name.
        renames: From the names of the video network to those of the image network.
    """

    backbone: str
    renames: Renames

    def name(self, name: str) -> str:
        """Return the name in the image network of a tensor of the video network."""
        return renamed(name, self.renames)


FLAT: Mapping[str, Flat] = {"r3d18": Flat("resnet18", AS_IMAGES), "r3d50": Flat("resnet50", AS_IMAGES)}
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
