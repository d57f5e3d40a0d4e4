"""Tests of resizing and cropping."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eztorch_sce.data.shaping import crop_resize, scale_box, short_side_crops, stretch


def random_frames(frames: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (3, frames, height, width), dtype=torch.uint8, generator=generator)


def ramp(height: int, width: int, axis: int) -> Tensor:
    """Return frames whose value is the index along an axis."""
    line = torch.arange((height, width)[axis], dtype=torch.uint8)
    return (line[:, None] if axis == 0 else line[None]).expand(3, 2, height, width)


@pytest.mark.parametrize("box", [(0, 0, 37, 53), (3, 7, 20, 31), (36, 52, 1, 1), (5, 5, 16, 16), (0, 10, 37, 2)])
@pytest.mark.parametrize("num_frames", [1, 8])
def test_crop_resize_is_the_float_result_rounded(box: tuple[int, int, int, int], num_frames: int) -> None:
    frames = random_frames(num_frames, 37, 53)
    top, left, height, width = box
    result = crop_resize(frames, box, 16)
    assert result.shape == (3, num_frames, 16, 16)
    assert result.dtype == torch.uint8
    assert result.is_contiguous()
    cut = frames[:, :, top : top + height, left : left + width].float()
    expected = F.interpolate(cut, size=(16, 16), mode="bilinear", antialias=True)
    assert (result - expected).abs().max() < 1.01  # torch resizes uint8 with integer arithmetic


def test_the_memory_layout_of_a_decoder_gives_the_same_pixels() -> None:
    frames = random_frames(4, 20, 24)
    as_decoded = frames.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)  # memory (T, H, W, C)
    assert torch.equal(crop_resize(as_decoded, (1, 2, 15, 17), 8), crop_resize(frames, (1, 2, 15, 17), 8))


def test_stretch_keeps_the_whole_frame() -> None:
    result = stretch(ramp(30, 60, axis=1), 30)
    assert result.shape == (3, 2, 30, 30)
    assert result[0, 0, 0, 0] <= 1
    assert result[0, 0, 0, -1] >= 58


@pytest.mark.parametrize("axis", [0, 1])
def test_three_crops_are_the_start_center_and_end_of_the_long_side(axis: int) -> None:
    height, width = (100, 60) if axis == 0 else (60, 100)
    crops = short_side_crops(ramp(height, width, axis), short_side=60, size=60, num_crops=3)
    assert [int(crop[0, 0, 0, 0]) for crop in crops] == [0, 20, 40]
    assert [int(crop[2, 1, -1, -1]) for crop in crops] == [59, 79, 99]
    (center,) = short_side_crops(ramp(height, width, axis), short_side=60, size=60, num_crops=1)
    assert torch.equal(center, crops[1])


def test_a_smaller_crop_is_centered_along_the_short_side() -> None:
    for crop in short_side_crops(ramp(60, 100, axis=0), short_side=60, size=40, num_crops=3):
        assert (int(crop[0, 0, 0, 0]), int(crop[0, 0, -1, 0])) == (10, 49)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (9, 1), (31, 17), (17, 31), (240, 321)])
@pytest.mark.parametrize("num_crops", [1, 3])
def test_frames_of_any_size_are_cropped(height: int, width: int, num_crops: int) -> None:
    crops = short_side_crops(random_frames(2, height, width), short_side=20, size=18, num_crops=num_crops)
    assert [crop.shape for crop in crops] == [(3, 2, 18, 18)] * num_crops


def test_a_frame_of_one_pixel_fills_its_crop() -> None:
    frames = torch.full((3, 1, 1, 1), 77, dtype=torch.uint8)
    for result in (crop_resize(frames, (0, 0, 1, 1), 8), stretch(frames, 8), *short_side_crops(frames, 8, 8, 3)):
        assert torch.equal(result, torch.full((3, 1, 8, 8), 77, dtype=torch.uint8))


def test_invalid_crops_raise() -> None:
    frames = random_frames(1, 20, 20)
    with pytest.raises(ValueError, match=r"size=30.*short_side=20"):
        short_side_crops(frames, short_side=20, size=30, num_crops=1)
    with pytest.raises(ValueError, match="num_crops=2"):
        short_side_crops(frames, short_side=20, size=20, num_crops=2)


def test_nonsquare_pixels_are_cropped_as_displayed() -> None:
    ramp = torch.arange(80, dtype=torch.uint8).expand(3, 2, 32, 80).contiguous()  # each value is its column
    [stored] = short_side_crops(ramp, 32, 32, 1)
    [shown] = short_side_crops(ramp, 32, 32, 1, full_size=(32, 160))
    assert stored.shape == shown.shape
    for crop, columns in ((stored, 32), (shown, 16)):  # twice as wide: a square holds half as many columns
        assert crop[0, 0, 0, -1].item() - crop[0, 0, 0, 0].item() == pytest.approx(columns - 1, abs=1)
        assert crop.float().mean().item() == pytest.approx(39.5, abs=0.6)


def test_a_scaled_box_covers_the_same_region() -> None:
    frames = torch.zeros(3, 1, 32, 80, dtype=torch.uint8)
    assert scale_box((8, 40, 16, 80), (32, 160), frames) == (8, 20, 16, 40)
    assert scale_box((0, 159, 1, 1), (32, 160), frames) == (0, 79, 1, 1)  # never empty or outside
