"""Tests of the image operations against torchvision and hand computations."""

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eztorch_sce.augment import ops
from eztorch_sce.compat import declare_missing_torchvision_operators

declare_missing_torchvision_operators()
import torchvision.transforms.v2.functional as tv  # noqa: E402  # needs the declaration above

FACTORS = torch.tensor([0.0, 0.3, 1.0, 1.7])
TURNS = torch.tensor([-0.5, -0.13, 0.0, 0.4])


@pytest.fixture
def clips() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    clips = torch.rand(4, 3, 2, 14, 11, generator=generator)
    clips[0, :, 0, :4] = 0.5  # gray, at the threshold of solarize
    clips[1, :, 1, 2] = torch.tensor([[1.0], [1.0], [0.0]])  # two channels share the maximum
    clips[2, :, 0, 3] = 0
    return clips


def each(clips: Tensor, operation: Callable[[Tensor, float], Tensor], values: Tensor) -> Tensor:
    """Apply an operation on (..., C, H, W) to each sample with its own parameter."""
    frames = clips.transpose(1, 2)
    results = [operation(sample, value) for sample, value in zip(frames, values.tolist(), strict=True)]
    return torch.stack(results).transpose(1, 2)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_jitter_operations_equal_torchvision(clips: Tensor, name: str) -> None:
    values = TURNS if name == "hue" else FACTORS
    if name == "hue":
        result = ops.adjust_hue(clips, values.tolist())
    else:
        result = ops.linear_color(clips, [getattr(ops, name)(factor) for factor in values.tolist()])
    torch.testing.assert_close(result, each(clips, getattr(tv, f"adjust_{name}"), values), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_one_channel_gives_the_result_of_three_equal_channels(clips: Tensor, name: str) -> None:
    values = TURNS if name == "hue" else FACTORS
    one = clips[:, :1]
    if name == "hue":
        result = ops.adjust_hue(one, values.tolist())
    else:
        result = ops.linear_color(one, [getattr(ops, name)(factor) for factor in values.tolist()])
    assert result.shape[1] == 1
    expected = each(one.expand_as(clips), getattr(tv, f"adjust_{name}"), values)
    torch.testing.assert_close(result.expand_as(clips), expected, atol=1e-5, rtol=0)


def test_gray_has_one_channel_and_equals_torchvision(clips: Tensor) -> None:
    expected = each(clips, lambda frames, _: tv.rgb_to_grayscale(frames), FACTORS)
    torch.testing.assert_close(ops.linear_color(clips, [ops.GRAY] * 4), expected)


@pytest.mark.parametrize("names", list(itertools.permutations(["brightness", "contrast", "saturation", "gray"])))
def test_merged_color_changes_equal_separate_ones(clips: Tensor, names: tuple[str, ...]) -> None:
    one_by_one, together = clips.transpose(1, 2), None
    for name, factor in zip(names, (0.7, 0.9, 0.4, 1.6), strict=True):  # only the last change may leave [0, 1]
        if name == "gray":
            one_by_one, change = tv.rgb_to_grayscale(one_by_one, num_output_channels=3), ops.GRAY
        else:
            one_by_one, change = getattr(tv, f"adjust_{name}")(one_by_one, factor), getattr(ops, name)(factor)
        together = change if together is None else together.then(change)
    assert together is not None
    result = ops.linear_color(clips, [together] * 4)
    torch.testing.assert_close(result.expand_as(clips), one_by_one.transpose(1, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernel_size", [3, 7, 21])
def test_blur_equals_torchvision(clips: Tensor, kernel_size: int) -> None:
    sigma = torch.tensor([0.1, 0.7, 1.3, 2.0])
    expected = each(clips, lambda frames, value: tv.gaussian_blur(frames, [kernel_size] * 2, [value] * 2), sigma)
    torch.testing.assert_close(ops.gaussian_blur(clips, sigma.tolist(), kernel_size), expected, atol=5e-6, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(65, 130), (112, 112), (97, 40)])
@pytest.mark.parametrize("kernel_size", [3, 11, 75])
def test_blur_of_large_frames_equals_torchvision(height: int, width: int, kernel_size: int) -> None:
    clips = torch.rand(4, 3, 2, height, width, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.7, 2.0, 9.0])
    expected = each(clips, lambda frames, value: tv.gaussian_blur(frames, [kernel_size] * 2, [value] * 2), sigma)
    torch.testing.assert_close(ops.gaussian_blur(clips, sigma.tolist(), kernel_size), expected, atol=1e-5, rtol=0)


def test_shifting_the_hue_keeps_colors_within_0_and_1(clips: Tensor) -> None:
    for turn in torch.linspace(-0.5, 0.5, 101).tolist():
        turned = ops.adjust_hue(clips, [turn] * 4)
        assert (turned.min() >= 0) & (turned.max() <= 1)


@pytest.mark.parametrize("kernel_size", [4, 23])
def test_an_even_or_oversized_blur_kernel_raises_value_error(clips: Tensor, kernel_size: int) -> None:
    with pytest.raises(ValueError, match=f"kernel_size={kernel_size} must be odd and at most 21"):
        ops.gaussian_blur(clips, [1.0] * 4, kernel_size)


def test_solarize_flip_and_normalize_equal_torchvision(clips: Tensor) -> None:
    frames = clips.transpose(1, 2)
    assert torch.equal(ops.solarize(clips), tv.solarize(frames, 0.5).transpose(1, 2))
    assert torch.equal(ops.horizontal_flip(clips), tv.horizontal_flip(frames).transpose(1, 2))
    mean, std = [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]
    expected = tv.normalize(frames.flatten(0, 1), mean, std).view_as(frames).transpose(1, 2)
    torch.testing.assert_close(ops.normalize(clips, torch.tensor(mean), torch.tensor(std)), expected)


def test_temporal_difference_matches_hand_computation() -> None:
    levels = torch.tensor([0.0, 1.0, 0.5, 0.5])  # four gray frames
    clips = levels.view(1, 1, 4, 1, 1).expand(2, 3, 4, 5, 6)
    result = ops.temporal_difference(clips)
    assert result.shape == (2, 1, 4, 5, 6)
    expected = torch.tensor([[0.0, 0.75, 0.5, 0.5]])  # (d + 1) / 2 for d = -1, 0.5, 0, and the last one repeated
    torch.testing.assert_close(result[1, :, :, 2, 3], expected, atol=1e-4, rtol=0)


def test_the_temporal_difference_of_an_image_raises_value_error() -> None:
    with pytest.raises(ValueError, match="at least 2 frames"):
        ops.temporal_difference(torch.rand(1, 3, 1, 4, 4))


def test_operations_leave_their_input_unchanged(clips: Tensor) -> None:
    before = clips.clone()
    for name in ("brightness", "contrast", "saturation"):
        ops.linear_color(clips, [getattr(ops, name)(factor) for factor in FACTORS.tolist()])
    ops.adjust_hue(clips, TURNS.tolist())
    ops.gaussian_blur(clips, [1.0] * 4, 3)
    for operation in (ops.solarize, ops.horizontal_flip, ops.temporal_difference):
        operation(clips)
    assert torch.equal(clips, before)


def test_an_operation_runs_only_on_the_selected_rows(clips: Tensor) -> None:
    num_rows: list[int] = []

    def negate(rows: Tensor) -> Tensor:
        num_rows.append(len(rows))
        return -rows

    result = ops.apply_to_rows(clips.clone(), [1, 3], negate)
    assert num_rows == [2]
    assert torch.equal(result, torch.stack([clips[0], -clips[1], clips[2], -clips[3]]))
    assert torch.equal(ops.apply_to_rows(clips, [], negate), clips)
    assert num_rows == [2]


BOXES = [(0, 0, 40, 31), (3, 5, 30, 20), (39, 30, 1, 1), (10, 0, 5, 31), (2, 2, 16, 16)]


@pytest.mark.parametrize("size", [1, 7, 16, 50])
def test_resized_crops_equal_slicing_and_interpolating(size: int) -> None:
    clips = torch.rand(len(BOXES), 3, 2, 40, 31, generator=torch.Generator().manual_seed(0))
    result = ops.resized_crops(clips, torch.tensor(BOXES), size)
    assert result.shape == (len(BOXES), 3, 2, size, size)
    for clip, (top, left, height, width), resized in zip(clips, BOXES, result, strict=True):
        box = clip[:, :, top : top + height, left : left + width]
        expected = F.interpolate(box, size=(size, size), mode="bilinear", antialias=True)
        torch.testing.assert_close(resized, expected, atol=1e-5, rtol=0)


def test_pixels_outside_a_fractional_box_have_no_influence() -> None:
    clips = torch.ones(2, 3, 1, 12, 12)
    clips[:, :, :, :, 8:] = 0
    boxes = torch.tensor([[1.5, 2.25, 6.3, 5.75], [4.1, 7.2, 0.3, 0.4]])  # both end at column 8 or before
    torch.testing.assert_close(ops.resized_crops(clips, boxes, 5), torch.ones(2, 3, 1, 5, 5))


def test_resized_crops_keep_float32_precision_under_autocast() -> None:
    clips = torch.rand(2, 3, 1, 20, 20)
    boxes = torch.tensor([[0, 0, 20, 20], [1, 2, 10, 9]])
    expected = ops.resized_crops(clips, boxes, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.resized_crops(clips, boxes, 8), expected)
