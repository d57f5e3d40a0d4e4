"""Inflation of 2-D convolutions to 3-D, for video networks that start from image weights."""

import torch
from torch import Tensor

WAYS = ("repeat", "center")


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
