"""Tests of views: their settings and their pixels."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from view_configs import ALL_OPERATIONS

from eztorch_sce.augment import ops
from eztorch_sce.augment.crops import ASPECT
from eztorch_sce.augment.draws import BLUR_SIGMA, ViewParameters
from eztorch_sce.augment.ops import blur_kernel_size
from eztorch_sce.augment.policies import POLICIES, policy
from eztorch_sce.augment.statistics import STATISTICS
from eztorch_sce.augment.view import View, ViewConfig, evaluation_view
from eztorch_sce.compat import declare_missing_torchvision_operators
from eztorch_sce.data.shaping import crop_resize, stretch
from eztorch_sce.errors import ConfigError
from eztorch_sce.settings import invalid_settings, show
from eztorch_sce.types import InputSpec

declare_missing_torchvision_operators()
import torchvision.transforms.v2.functional as tv  # noqa: E402  # needs the declaration above

NUM_DRAWS = 4096


def random_clips(batch: int, frames: int = 2, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (batch, 3, frames, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("size", [8, 33, 65, 96, 224])
def test_a_sample_is_the_same_alone_and_in_a_batch(frames: int, size: int) -> None:
    config = replace(ALL_OPERATIONS, size=size, temporal_difference=0.2 if frames > 1 else 0.0)
    batch = {33: 64, 65: 24}.get(size, 8)
    view, seeds = View(config), list(range(batch))
    same = random_clips(1, frames, size).expand(batch, -1, -1, -1, -1)
    together = view(same, seeds)
    for row, seed in enumerate(seeds):
        assert torch.equal(view(same[:1], [seed])[0], together[row])
    assert torch.equal(view(same[:3], [7, 0, 7]), together[[7, 0, 7]])
    assert len(set(together.mean(dim=(1, 2, 3, 4)).tolist())) > batch // 2


@pytest.mark.parametrize("batch", [1, 7, 512])
def test_pixels_are_flipped_at_the_set_probability_for_any_batch_size(batch: int) -> None:
    view = View(ViewConfig(size=4, flip=0.3))
    clip = torch.linspace(0, 0.4, 4).expand(1, 3, 1, 4, 4)  # brighter to the right
    flipped = 0
    for first in range(0, NUM_DRAWS, batch):
        seeds = range(first, min(first + batch, NUM_DRAWS))
        views = view(clip.expand(len(seeds), -1, -1, -1, -1), seeds)
        flipped += int((views[:, 0, 0, 0, 0] > views[:, 0, 0, 0, -1]).sum())
    assert flipped / NUM_DRAWS == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / NUM_DRAWS))


def test_the_frames_of_a_clip_share_one_draw() -> None:
    still = random_clips(12, frames=1).expand(-1, -1, 4, -1, -1)
    views = View(replace(ALL_OPERATIONS, blur=1.0, solarize=0.5))(still, range(12))
    assert torch.equal(views, views[:, :, :1].expand_as(views))


def augmented_by_torchvision(parameters: ViewParameters, clip: Tensor) -> Tensor:
    """Apply drawn parameters to a clip (3, T, H, W) in [0, 1] by torchvision's functions, in the published order."""
    frames = clip.transpose(0, 1)
    if parameters.temporal_difference:
        gray = tv.rgb_to_grayscale(frames)
        difference = (gray[:-1] - gray[1:] + 1) / 2
        frames = torch.cat([difference, difference[-1:]]).repeat(1, 3, 1, 1)
    for name in parameters.jitter:
        frames = getattr(tv, f"adjust_{name}")(frames, getattr(parameters, name))
    if parameters.gray:
        frames = tv.rgb_to_grayscale(frames, num_output_channels=3)
    if parameters.blur_sigma:
        frames = tv.gaussian_blur(frames, [blur_kernel_size(clip.shape[-1])] * 2, [parameters.blur_sigma] * 2)
    if parameters.solarize:
        frames = tv.solarize(frames, 0.5)
    return (tv.horizontal_flip(frames) if parameters.flip else frames).transpose(0, 1)


@pytest.mark.parametrize("size", [32, 225])  # several samples per chunk, and several chunks per sample
def test_a_view_applies_its_parameters_in_the_published_order(size: int) -> None:
    config = replace(ALL_OPERATIONS, size=size, gray=0.5, blur=0.8, solarize=0.5, temporal_difference=0.5)
    batch = 16 if size == 32 else 4
    view, clips = View(config), random_clips(batch, frames=3, size=size)
    result = view(clips, range(batch))
    for seed in range(batch):
        expected = (augmented_by_torchvision(view.draw(seed), clips[seed] / 255) - 0.45) / 0.225
        torch.testing.assert_close(result[seed], expected, atol=1e-4, rtol=0)


def test_uint8_and_float_input_give_the_same_result_and_stay_unchanged() -> None:
    clips = random_clips(4)
    as_float = clips / 255
    before = as_float.clone()
    torch.testing.assert_close(View(ALL_OPERATIONS)(clips, range(4)), View(ALL_OPERATIONS)(as_float, range(4)))
    assert torch.equal(as_float, before)


@pytest.mark.parametrize("stats", ["video", "clip"])
def test_half_precision_is_the_float32_result_rounded_once(stats: str) -> None:
    clips, config = random_clips(4), replace(ALL_OPERATIONS, stats=stats)
    half = View(config, dtype=torch.bfloat16)(clips, range(4))
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, View(config)(clips, range(4)).bfloat16())


def test_evaluation_only_normalizes() -> None:
    clips = random_clips(2, frames=1)
    view = View(evaluation_view(InputSpec(size=32, stats="cifar10")))
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in STATISTICS["cifar10"])
    torch.testing.assert_close(view(clips), (clips / 255 - mean) / std)
    assert not view.is_random


def test_standardizing_removes_brightness_and_contrast() -> None:
    clip = random_clips(1, frames=3) / 255
    flat = torch.full_like(clip, 0.3)
    view = View(evaluation_view(InputSpec(size=32, stats="clip")))
    original, dim, dark, uniform = view(torch.cat([clip, clip * 0.5 + 0.2, clip * 0.1, flat]))
    assert original.mean().item() == pytest.approx(0, abs=1e-5)
    assert original.std().item() == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(dim, original, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(dark, original, atol=1e-4, rtol=1e-4)
    assert uniform.abs().max() < 1e-4


def test_input_difference_also_applies_in_evaluation() -> None:
    clips = random_clips(2, frames=3)
    training = policy("motion")[0]
    view = View(evaluation_view(InputSpec(size=32, stats="difference", input="difference")))
    expected = ((ops.temporal_difference(clips / 255) - 0.5) / 0.1).expand_as(clips)
    torch.testing.assert_close(view(clips), expected)
    torch.testing.assert_close(View(training)(clips, [0, 1]), expected)


def test_a_view_with_differences_rejects_images_even_if_none_is_drawn() -> None:
    for config in (ViewConfig(temporal_difference=0.001), ViewConfig(input="difference")):
        with pytest.raises(ValueError, match="at least 2 frames"):
            View(config)(random_clips(1, frames=1), [0])


def test_one_seed_per_sample_is_required() -> None:
    with pytest.raises(ValueError, match="3 seeds for 4 clips"):
        View(ALL_OPERATIONS)(random_clips(4), [1, 2, 3])


def test_a_view_has_no_state_to_save() -> None:
    assert not View(ALL_OPERATIONS).state_dict()


def test_a_crop_on_the_device_equals_the_crop_of_a_worker() -> None:
    smooth = torch.rand(2, 3, 2, 5, 5, generator=torch.Generator().manual_seed(0)).flatten(1, 2)
    videos = torch.nn.functional.interpolate(smooth, size=(120, 160), mode="bicubic").clamp(0, 1)
    videos = (videos * 255).round().byte().view(2, 3, 2, 120, 160)
    view, seeds = View(ViewConfig(size=48, scale=[0.2, 1.0])), [5, 6]
    canvas = torch.stack([stretch(video, 120) for video in videos])
    on_device = view.crop_on_device(canvas, torch.tensor([160 / 120] * 2), seeds)
    for video, seed, result in zip(videos, seeds, on_device, strict=True):
        box = view.config.draw_box(torch.Generator().manual_seed(seed), 120, 160)
        expected = crop_resize(video, box, 48) / 255
        assert (result - expected).abs().mean() < 0.005  # differences come from the stretch and the worker's rounding


def test_a_crop_on_the_device_is_the_same_alone_and_in_a_batch() -> None:
    view, clips, aspect = View(ALL_OPERATIONS), random_clips(5, size=40), torch.tensor([0.5, 1.0, 1.3, 1.8, 3.0])
    together = view.crop_on_device(clips, aspect, range(5))
    assert together.shape == (5, 3, 2, 32, 32)
    for row in range(5):
        alone = view.crop_on_device(clips[row : row + 1], aspect[row : row + 1], [row])
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 1),
        ("scale", [0.5, 0.2]),
        ("scale", [0.2, 1.5]),
        ("scale", [0.0, 1.0]),
        ("scale", [0.5]),
        ("short_side", [0.9, 1.2]),
        ("brightness", -0.1),
        ("saturation", math.inf),
        ("hue", 0.6),
        ("jitter_p", 1.2),
        ("blur", math.nan),
        ("flip", -1.0),
        ("input", "flow"),
        ("stats", "imagenet"),
    ],
)
def test_an_invalid_setting_is_named_with_its_value(name: str, value: Any) -> None:
    config = ViewConfig()
    setattr(config, name, value)
    (message,) = invalid_settings(config, "views.1")
    assert message.startswith(f"views.1.{name}={show(value)} must be ")
    with pytest.raises(ConfigError, match=f"view.{name}="):
        View(config)


def test_all_invalid_settings_are_reported_at_once() -> None:
    config = ViewConfig(gray=2.0, hue=1.0, input="difference", temporal_difference=0.2)
    messages = invalid_settings(config, "view")
    assert [message.split("=")[0] for message in messages] == ["view.hue", "view.gray", "view.temporal_difference"]


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_is_valid_and_runs(name: str) -> None:
    for config in policy(name):
        assert not invalid_settings(config, "views")
        view = View(replace(config, size=16).filled_in(InputSpec()))
        assert torch.isfinite(view(random_clips(3, size=16), [1, 2, 3])).all()


def test_null_settings_of_a_view_are_filled_in_from_the_input_of_the_network() -> None:
    spec = InputSpec(size=112, stats="difference", input="difference")
    (incomplete,) = policy("linear_video")
    complete = incomplete.filled_in(spec)
    assert (complete.size, complete.stats, complete.input) == (112, "difference", "difference")
    assert policy("cifar")[0].filled_in(spec) == policy("cifar")[0]
    with pytest.raises(ConfigError, match="size, an input and stats, none of them null"):
        View(incomplete)


def test_constants_are_as_published() -> None:
    assert (BLUR_SIGMA, ASPECT) == ((0.1, 2.0), (3 / 4, 4 / 3))
    assert blur_kernel_size(224) == 23
    assert STATISTICS["image"] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert STATISTICS["video"] == ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
    assert STATISTICS["cifar10"] == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert STATISTICS["cifar100"] == ((0.5071, 0.4865, 0.4409), (0.2009, 0.1984, 0.2023))
