"""Random crops: boxes drawn within a frame, and crops of frames that were stretched to a square.

A crop is cut either by a data worker (`data.shaping`) or on the device (`View.crop_on_device`); both draw the same box.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from eztorch_sce.augment.draws import uniform

ASPECT = (3 / 4, 4 / 3)
_MAX_TRIES = 10


class Box(NamedTuple):
    """A rectangle of whole pixels within a frame."""

    top: int
    left: int
    height: int
    width: int


def random_crop_box(generator: torch.Generator, height: int, width: int, scale: Sequence[float]) -> Box:
    """Draw a box of random area and aspect ratio, as in torchvision's `RandomResizedCrop`.

    If ten boxes in a row do not fit into the frame, return the largest centered box with an allowed aspect ratio.

    Args:
        generator: Random numbers.
        height, width: Size of the frame in pixels.
        scale: [min, max] fraction of the frame's area, uniform. The aspect ratio is log-uniform from 3/4 to 4/3.
    """
    log_aspect = (math.log(ASPECT[0]), math.log(ASPECT[1]))
    # Draw all tries at once, so that a crop always consumes the same number of draws.
    tries = torch.rand(_MAX_TRIES, 4, generator=generator, dtype=torch.float64).tolist()
    for area_draw, aspect_draw, top_draw, left_draw in tries:
        area = height * width * uniform(area_draw, scale[0], scale[1])
        aspect = math.exp(uniform(aspect_draw, *log_aspect))
        box_height, box_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 1 <= box_height <= height and 1 <= box_width <= width:
            top, left = int(top_draw * (height - box_height + 1)), int(left_draw * (width - box_width + 1))
            return Box(top, left, box_height, box_width)
    box_height = max(1, min(height, round(width / ASPECT[0])))
    box_width = max(1, min(width, round(height * ASPECT[1])))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def random_square_box(
    generator: torch.Generator, height: int, width: int, size: int, short_side: Sequence[float]
) -> Box:
    """Draw the square that a random crop of `size` pixels covers once the frame's short side is resized at random.

    Args:
        generator: Random numbers.
        height, width: Size of the frame in pixels.
        size: Side of the crop in pixels, after resizing.
        short_side: [min, max] short side after resizing, in multiples of `size`; uniform over whole pixels.
    """
    side_draw, top_draw, left_draw = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    shortest, longest = round(short_side[0] * size), round(short_side[1] * size)
    resized_to = shortest + int(side_draw * (longest - shortest + 1))
    side = max(1, round(min(height, width) * size / resized_to))
    return Box(int(top_draw * (height - side + 1)), int(left_draw * (width - side + 1)), side, side)


def stretch_box(box: Box, width: int, stretched_width: int) -> tuple[float, float, float, float]:
    """Return a box (top, left, height, width) after its frame is stretched horizontally.

    >>> stretch_box(Box(top=0, left=10, height=20, width=40), width=100, stretched_width=50)
    (0, 5.0, 20, 20.0)
    """
    factor = stretched_width / width
    return box.top, box.left * factor, box.height, box.width * factor
