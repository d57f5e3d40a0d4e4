"""Random crops: boxes drawn within a frame, and crops of frames that were stretched to a square.

A crop is cut either by a data worker (`data.shaping`) or on the device (`View.crop_on_device`); both draw the same box.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eztorch_sce.augment.draws import uniform

ASPECT = (3 / 4, 4 / 3)
_LOG_ASPECT = (math.log(ASPECT[0]), math.log(ASPECT[1]))
_MAX_TRIES = 10
NUM_CROP_DRAWS = 4 * _MAX_TRIES
NUM_SQUARE_DRAWS = 3


class Box(NamedTuple):
    """A rectangle of whole pixels within a frame."""

    top: int
    left: int
    height: int
    width: int


def random_crop_boxes(
    numbers: NDArray[np.float64], heights: NDArray[np.int64], widths: NDArray[np.int64], scale: Sequence[float]
) -> NDArray[np.int64]:
    """Return boxes of random area and aspect ratio, as in torchvision's `RandomResizedCrop`.

    If ten boxes in a row do not fit into the frame, return the largest centered box with an allowed aspect ratio.

    Args:
        numbers: Random numbers in [0, 1), (N, NUM_CROP_DRAWS).
        heights, widths: Sizes of the frames in pixels, (N,).
        scale: [min, max] fraction of the frame's area, uniform. The aspect ratio is log-uniform from 3/4 to 4/3.

    Returns:
        Top, left, height and width of each box in whole pixels, (N, 4).
    """
    box_heights = np.maximum(1, np.minimum(heights, np.rint(widths / ASPECT[0])))
    box_widths = np.maximum(1, np.minimum(widths, np.rint(heights * ASPECT[1])))
    centered = ((heights - box_heights) // 2, (widths - box_widths) // 2, box_heights, box_widths)
    boxes = np.stack(centered, axis=1).astype(np.int64)
    rows = np.arange(len(numbers))  # without a box yet
    # All tries are drawn at once, so that a crop always consumes the same number of draws.
    for draws in np.moveaxis(numbers.reshape(-1, _MAX_TRIES, 4), 1, 0):
        area_draw, aspect_draw, top_draw, left_draw = draws[rows].T
        height, width = heights[rows], widths[rows]
        areas = height * width * uniform(area_draw, scale[0], scale[1])
        log_aspects = uniform(aspect_draw, *_LOG_ASPECT)
        aspects = np.array([math.exp(value) for value in log_aspects.tolist()])  # `np.exp` differs between processors
        box_height, box_width = np.rint(np.sqrt(areas / aspects)), np.rint(np.sqrt(areas * aspects))
        corner = (top_draw * (height - box_height + 1), left_draw * (width - box_width + 1))
        fits = (np.minimum(box_height, box_width) >= 1) & (box_height <= height) & (box_width <= width)
        boxes[rows[fits]] = np.stack([*corner, box_height, box_width], axis=1)[fits].astype(np.int64)
        rows = rows[~fits]
        if not len(rows):
            break
    return boxes


def random_crop_box(numbers: Sequence[float], height: int, width: int, scale: Sequence[float]) -> Box:
    """Return the box of `random_crop_boxes` for one frame, in a sixth of the time: a worker draws them one by one.

    Args:
        numbers: Random numbers in [0, 1), NUM_CROP_DRAWS.
        height, width: Size of the frame in pixels.
        scale: [min, max] fraction of the frame's area.
    """
    for first in range(0, NUM_CROP_DRAWS, 4):
        area_draw, aspect_draw, top_draw, left_draw = numbers[first : first + 4]
        area = height * width * (scale[0] + area_draw * (scale[1] - scale[0]))
        aspect = math.exp(_LOG_ASPECT[0] + aspect_draw * (_LOG_ASPECT[1] - _LOG_ASPECT[0]))
        box_height, box_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 1 <= box_height <= height and 1 <= box_width <= width:
            top, left = int(top_draw * (height - box_height + 1)), int(left_draw * (width - box_width + 1))
            return Box(top, left, box_height, box_width)
    box_height = max(1, min(height, round(width / ASPECT[0])))
    box_width = max(1, min(width, round(height * ASPECT[1])))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def random_square_boxes(
    numbers: NDArray[np.float64],
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
    size: int,
    short_side: Sequence[float],
) -> NDArray[np.int64]:
    """Return the squares that random crops of `size` pixels cover once each frame's short side is resized at random.

    Args:
        numbers: Random numbers in [0, 1), (N, NUM_SQUARE_DRAWS).
        heights, widths: Sizes of the frames in pixels, (N,).
        size: Side of the crops in pixels, after resizing.
        short_side: [min, max] short side after resizing, in multiples of `size`; uniform over whole pixels.

    Returns:
        Top, left, height and width of each box in whole pixels, (N, 4).
    """
    side_draw, top_draw, left_draw = numbers.T
    shortest, longest = round(short_side[0] * size), round(short_side[1] * size)
    resized_to = shortest + np.trunc(side_draw * (longest - shortest + 1))
    side = np.maximum(1, np.rint(np.minimum(heights, widths) * size / resized_to))
    boxes = [top_draw * (heights - side + 1), left_draw * (widths - side + 1), side, side]
    return np.stack(boxes, axis=1).astype(np.int64)


def stretch_boxes(boxes: NDArray[np.int64], widths: NDArray[np.int64], stretched_width: int) -> NDArray[np.float64]:
    """Return boxes (top, left, height, width), (N, 4), after their frames are stretched horizontally.

    >>> stretch_boxes(np.array([[0, 10, 20, 40]]), widths=np.array([100]), stretched_width=50).tolist()
    [[0.0, 5.0, 20.0, 20.0]]
    """
    stretched = boxes.astype(np.float64)
    stretched[:, 1::2] *= (stretched_width / widths)[:, None]
    return stretched
