"""Tests of the boxes of random crops."""

import math

import numpy as np
import pytest
import torch

from eztorch_sce.augment.crops import NUM_CROP_DRAWS, random_crop_box, random_crop_boxes
from eztorch_sce.augment.policies import policy
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.types import InputSpec

NUM_DRAWS = 4096


def test_box_areas_and_aspects_are_uniform() -> None:
    height, width = 300, 400
    numbers, sizes = np.random.default_rng(0).random((NUM_DRAWS, NUM_CROP_DRAWS)), np.full(NUM_DRAWS, 1)
    boxes = torch.from_numpy(random_crop_boxes(numbers, height * sizes, width * sizes, [0.2, 0.5])).double()
    top, left, box_height, box_width = boxes.unbind(1)
    assert (top.min() >= 0) & (left.min() >= 0)
    assert ((top + box_height).max() <= height) & ((left + box_width).max() <= width)
    area, aspect = box_height * box_width / (height * width), box_width / box_height
    for fractions in ((area - 0.2) / 0.3, (aspect.log() - math.log(3 / 4)) / math.log(16 / 9)):
        assert fractions.min() > -0.02  # rounded to whole pixels
        assert fractions.max() < 1.02
        quarters = torch.histc(fractions.clamp(0, 1).float(), bins=4, min=0, max=1) / NUM_DRAWS
        assert (quarters - 0.25).abs().max() < 4 * math.sqrt(0.25 * 0.75 / NUM_DRAWS) + 0.005
    assert (top / (height - box_height).clamp(min=1)).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("scale", [[0.2, 1.0], [0.9, 1.0]])  # boxes of the second seldom fit a long frame
def test_a_box_is_the_same_alone_and_among_others(scale: list[float]) -> None:
    generator = np.random.default_rng(1)
    numbers, (heights, widths) = generator.random((500, NUM_CROP_DRAWS)), generator.integers(1, 500, (2, 500))
    frames = zip(numbers.tolist(), heights.tolist(), widths.tolist(), strict=True)
    boxes = [list(random_crop_box(draws, height, width, scale)) for draws, height, width in frames]
    assert boxes == random_crop_boxes(numbers, heights, widths, scale).tolist()


@pytest.mark.parametrize(("height", "width", "box"), [(10, 1000, (0, 493, 10, 13)), (1000, 10, (493, 0, 13, 10))])
def test_a_box_that_never_fits_falls_back_to_the_center(height: int, width: int, box: tuple[int, ...]) -> None:
    view = ViewConfig(scale=[0.9, 1.0])
    assert view.draw_box(torch.Generator().manual_seed(0), height, width) == box


def test_an_image_of_one_pixel_is_cropped_to_itself() -> None:
    for view in (ViewConfig(), ViewConfig(scale=[0.001, 0.002]), ViewConfig(short_side=[1.1, 1.4])):
        assert view.draw_box(torch.Generator().manual_seed(0), 1, 1) == (0, 0, 1, 1)


def test_short_side_crops_are_squares_of_the_right_size_at_any_position() -> None:
    view, generator = policy("finetune_video")[0].filled_in(InputSpec(size=224)), torch.Generator().manual_seed(0)
    boxes = torch.tensor([view.draw_box(generator, 256, 320) for _ in range(NUM_DRAWS)])
    top, left, height, width = boxes.unbind(1)
    assert torch.equal(height, width)
    assert height.max() == 224  # short side resized to 256
    assert height.min() == 179  # short side resized to 320: 256 * 224 / 320 = 179.2
    assert (height.double().reciprocal() * 256 * 224).mean() == pytest.approx(288, abs=2)
    assert top.min() == left.min() == 0
    assert ((256 - top - height).min() == 0) & ((320 - left - width).min() == 0)
