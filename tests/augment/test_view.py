import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from eztorch_sce.augment import ops
from eztorch_sce.augment.crops import ASPECT, random_crop_box, random_square_box
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
EVERYTHING = ViewConfig(
    size=32,
    brightness=0.8,
    contrast=0.8,
    saturation=0.4,
    hue=0.2,
    gray=0.2,
    blur=0.5,
    solarize=0.2,
    flip=0.5,
    temporal_difference=0.2,
    stats="video",
)


def random_clips(batch: int, frames: int = 2, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (batch, 3, frames, size, size), dtype=torch.uint8, generator=generator)


def test_rates_are_the_probabilities() -> None:
    draws = [View(EVERYTHING).draw(seed) for seed in range(NUM_DRAWS)]
    rates = {
        "jitter_p": sum(bool(draw.jitter) for draw in draws),
        "gray": sum(draw.gray for draw in draws),
        "blur": sum(draw.blur_sigma > 0 for draw in draws),
        "solarize": sum(draw.solarize for draw in draws),
        "flip": sum(draw.flip for draw in draws),
        "temporal_difference": sum(draw.temporal_difference for draw in draws),
    }
    for name, count in rates.items():
        expected = getattr(EVERYTHING, name)
        margin = 4 * math.sqrt(expected * (1 - expected) / NUM_DRAWS)
        assert count / NUM_DRAWS == pytest.approx(expected, abs=margin), name


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("brightness", 0.2, 1.8),
        ("contrast", 0.2, 1.8),
        ("saturation", 0.6, 1.4),
        ("hue", -0.2, 0.2),
        ("blur_sigma", 0.1, 2.0),
    ],
)
def test_factors_are_uniform_over_their_range(name: str, low: float, high: float) -> None:
    view = View(replace(EVERYTHING, blur=1.0))
    values = torch.tensor([getattr(view.draw(seed), name) for seed in range(NUM_DRAWS)], dtype=torch.float64)
    shares = (values - low) / (high - low)
    assert shares.min() >= 0
    assert shares.max() <= 1
    deciles = torch.histc(shares.float(), bins=10, min=0, max=1) / NUM_DRAWS
    assert (deciles - 0.1).abs().max() < 4 * math.sqrt(0.09 / NUM_DRAWS)


def test_a_strength_above_one_never_gives_a_negative_factor() -> None:
    view = View(ViewConfig(brightness=1.5))
    factors = [view.draw(seed).brightness for seed in range(200)]
    assert min(factors) >= 0
    assert max(factors) <= 2.5


def test_all_24_orders_of_the_jitter_are_as_likely() -> None:
    view = View(replace(EVERYTHING, jitter_p=1.0))
    counts = Counter(view.draw(seed).jitter for seed in range(NUM_DRAWS))
    assert set(counts) == set(itertools.permutations(("brightness", "contrast", "saturation", "hue")))
    expected = NUM_DRAWS / 24
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_squared < 49.7  # 23 degrees of freedom, 0.1 %


def test_the_draws_are_independent_of_each_other() -> None:
    view = View(replace(EVERYTHING, jitter_p=0.5, blur=0.5, gray=0.5, solarize=0.5, temporal_difference=0.5))
    draws = [view.draw(seed) for seed in range(NUM_DRAWS)]
    table = torch.tensor(
        [[bool(d.jitter), d.gray, d.blur_sigma > 0, d.solarize, d.flip, d.temporal_difference] for d in draws]
    )
    correlation = torch.corrcoef(table.T.float()) - torch.eye(6)
    assert correlation.abs().max() < 4.5 / math.sqrt(NUM_DRAWS)


def test_a_setting_does_not_change_what_the_others_draw() -> None:
    with_blur, without = View(replace(EVERYTHING, blur=1.0, hue=0.0)), View(replace(EVERYTHING, blur=0.0))
    for seed in range(50):
        one, other = with_blur.draw(seed), without.draw(seed)
        assert one.jitter == tuple(name for name in other.jitter if name != "hue")
        assert one._replace(blur_sigma=0, hue=0, jitter=()) == other._replace(blur_sigma=0, hue=0, jitter=())


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("size", [8, 33, 65, 96, 224])
def test_a_sample_is_the_same_alone_and_in_a_batch_of_64(frames: int, size: int) -> None:
    config = replace(EVERYTHING, size=size, temporal_difference=0.2 if frames > 1 else 0.0)
    batch = {33: 64, 65: 24}.get(size, 8)
    view, seeds = View(config), list(range(batch))
    same = random_clips(1, frames, size).expand(batch, -1, -1, -1, -1)
    together = view(same, seeds)
    for row, seed in enumerate(seeds):
        assert torch.equal(view(same[:1], [seed])[0], together[row])
    assert torch.equal(view(same[:3], [7, 0, 7]), together[[7, 0, 7]])
    assert len(set(together.mean(dim=(1, 2, 3, 4)).tolist())) > batch // 2


@pytest.mark.parametrize("batch", [1, 7, 512])
def test_pixels_are_changed_at_the_rates_asked_for_whatever_the_batch(batch: int) -> None:
    view = View(ViewConfig(size=4, flip=0.3))
    clip = torch.linspace(0, 0.4, 4).expand(1, 3, 1, 4, 4)  # brighter to the right
    flipped = 0
    for first in range(0, NUM_DRAWS, batch):
        seeds = range(first, min(first + batch, NUM_DRAWS))
        seen = view(clip.expand(len(seeds), -1, -1, -1, -1), seeds)
        flipped += int((seen[:, 0, 0, 0, 0] > seen[:, 0, 0, 0, -1]).sum())
    assert flipped / NUM_DRAWS == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / NUM_DRAWS))


def test_the_frames_of_a_clip_share_one_draw() -> None:
    still = random_clips(12, frames=1).expand(-1, -1, 4, -1, -1)
    views = View(replace(EVERYTHING, blur=1.0, solarize=0.5))(still, range(12))
    assert torch.equal(views, views[:, :, :1].expand_as(views))


def with_torchvision(drawn: ViewParameters, clip: Tensor) -> Tensor:
    """Return what torchvision's functions make of a clip (3, T, H, W) in [0, 1], in the published order."""
    frames = clip.transpose(0, 1)
    if drawn.temporal_difference:
        gray = tv.rgb_to_grayscale(frames)
        difference = (gray[:-1] - gray[1:] + 1) / 2
        frames = torch.cat([difference, difference[-1:]]).repeat(1, 3, 1, 1)
    for name in drawn.jitter:
        frames = getattr(tv, f"adjust_{name}")(frames, getattr(drawn, name))
    if drawn.gray:
        frames = tv.rgb_to_grayscale(frames, num_output_channels=3)
    if drawn.blur_sigma:
        frames = tv.gaussian_blur(frames, [blur_kernel_size(clip.shape[-1])] * 2, [drawn.blur_sigma] * 2)
    if drawn.solarize:
        frames = tv.solarize(frames, 0.5)
    return (tv.horizontal_flip(frames) if drawn.flip else frames).transpose(0, 1)


@pytest.mark.parametrize("size", [32, 225])  # several samples at a time, and several times for one sample
def test_the_view_is_its_parameters_applied_in_the_published_order(size: int) -> None:
    config = replace(EVERYTHING, size=size, gray=0.5, blur=0.8, solarize=0.5, temporal_difference=0.5)
    batch = 16 if size == 32 else 4
    view, clips = View(config), random_clips(batch, frames=3, size=size)
    result = view(clips, range(batch))
    for seed in range(batch):
        expected = (with_torchvision(view.draw(seed), clips[seed] / 255) - 0.45) / 0.225
        torch.testing.assert_close(result[seed], expected, atol=1e-4, rtol=0)


def test_uint8_and_float_input_give_the_same_and_are_left_alone() -> None:
    clips = random_clips(4)
    as_float = clips / 255
    kept = as_float.clone()
    torch.testing.assert_close(View(EVERYTHING)(clips, range(4)), View(EVERYTHING)(as_float, range(4)))
    assert torch.equal(as_float, kept)


@pytest.mark.parametrize("stats", ["video", "clip"])
def test_half_precision_is_the_same_rounded_once(stats: str) -> None:
    clips, config = random_clips(4), replace(EVERYTHING, stats=stats)
    half = View(config, dtype=torch.bfloat16)(clips, range(4))
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, View(config)(clips, range(4)).bfloat16())


def test_evaluation_only_normalizes() -> None:
    clips = random_clips(2, frames=1)
    view = View(evaluation_view(InputSpec(size=32, stats="cifar10")))
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in STATISTICS["cifar10"])
    torch.testing.assert_close(view(clips), (clips / 255 - mean) / std)
    assert not view.is_random


def test_a_standardized_clip_shows_neither_light_nor_contrast() -> None:
    clip = random_clips(1, frames=3) / 255
    flat = torch.full_like(clip, 0.3)
    view = View(evaluation_view(InputSpec(size=32, stats="clip")))
    seen, dim, dark, nothing = view(torch.cat([clip, clip * 0.5 + 0.2, clip * 0.1, flat]))
    assert seen.mean().item() == pytest.approx(0, abs=1e-5)
    assert seen.std().item() == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(dim, seen, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(dark, seen, atol=1e-4, rtol=1e-4)
    assert nothing.abs().max() < 1e-4


def test_the_input_of_a_network_stays_the_difference_in_evaluation() -> None:
    clips = random_clips(2, frames=3)
    training = policy("motion")[0]
    view = View(evaluation_view(InputSpec(size=32, stats="difference", input="difference")))
    expected = ((ops.temporal_difference(clips / 255) - 0.5) / 0.1).expand_as(clips)
    torch.testing.assert_close(view(clips), expected)
    torch.testing.assert_close(View(training)(clips, [0, 1]), expected)


def test_differences_of_a_image_are_refused_whatever_is_drawn() -> None:
    for config in (ViewConfig(temporal_difference=0.001), ViewConfig(input="difference")):
        with pytest.raises(ValueError, match="at least 2 frames"):
            View(config)(random_clips(1, frames=1), [0])


def test_one_seed_per_sample_is_required() -> None:
    with pytest.raises(ValueError, match="3 seeds for 4 clips"):
        View(EVERYTHING)(random_clips(4), [1, 2, 3])


def test_a_view_has_nothing_to_save() -> None:
    assert not View(EVERYTHING).state_dict()


def test_box_areas_and_aspects_are_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    height, width = 300, 400
    boxes = torch.tensor([random_crop_box(generator, height, width, [0.2, 0.5]) for _ in range(NUM_DRAWS)]).double()
    top, left, box_height, box_width = boxes.unbind(1)
    assert (top.min() >= 0) & (left.min() >= 0)
    assert ((top + box_height).max() <= height) & ((left + box_width).max() <= width)
    area, aspect = box_height * box_width / (height * width), box_width / box_height
    for shares in ((area - 0.2) / 0.3, (aspect.log() - math.log(3 / 4)) / math.log(16 / 9)):
        assert shares.min() > -0.02  # whole pixels
        assert shares.max() < 1.02
        quarters = torch.histc(shares.clamp(0, 1).float(), bins=4, min=0, max=1) / NUM_DRAWS
        assert (quarters - 0.25).abs().max() < 4 * math.sqrt(0.25 * 0.75 / NUM_DRAWS) + 0.005
    assert (top / (height - box_height).clamp(min=1)).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("height", "width", "box"), [(10, 1000, (0, 493, 10, 13)), (1000, 10, (493, 0, 13, 10))])
def test_a_box_that_never_fits_falls_back_to_the_center(height: int, width: int, box: tuple[int, ...]) -> None:
    assert random_crop_box(torch.Generator().manual_seed(0), height, width, [0.9, 1.0]) == box


def test_a_image_of_one_pixel_is_cropped_to_itself() -> None:
    for scale in ([0.2, 1.0], [0.001, 0.002]):
        assert random_crop_box(torch.Generator().manual_seed(0), 1, 1, scale) == (0, 0, 1, 1)
    assert random_square_box(torch.Generator().manual_seed(0), 1, 1, 224, [1.1, 1.4]) == (0, 0, 1, 1)


def test_a_short_side_crop_is_a_square_of_the_right_size_anywhere() -> None:
    view, generator = policy("finetune_video")[0].filled_in(InputSpec(size=224)), torch.Generator().manual_seed(0)
    boxes = torch.tensor([view.draw_box(generator, 256, 320) for _ in range(NUM_DRAWS)])
    top, left, height, width = boxes.unbind(1)
    assert torch.equal(height, width)
    assert height.max() == 224  # short side resized to 256
    assert height.min() == 179  # short side resized to 320: 256 * 224 / 320 = 179.2
    assert (height.double().reciprocal() * 256 * 224).mean() == pytest.approx(288, abs=2)
    assert top.min() == left.min() == 0
    assert ((256 - top - height).min() == 0) & ((320 - left - width).min() == 0)


def test_a_crop_on_the_device_is_the_crop_of_the_worker() -> None:
    smooth = torch.rand(2, 3, 2, 5, 5, generator=torch.Generator().manual_seed(0)).flatten(1, 2)
    videos = torch.nn.functional.interpolate(smooth, size=(120, 160), mode="bicubic").clamp(0, 1)
    videos = (videos * 255).round().byte().view(2, 3, 2, 120, 160)
    view, seeds = View(ViewConfig(size=48, scale=[0.2, 1.0])), [5, 6]
    canvas = torch.stack([stretch(video, 120) for video in videos])
    on_device = view.crop_on_device(canvas, torch.tensor([160 / 120] * 2), seeds)
    for video, seed, result in zip(videos, seeds, on_device, strict=True):
        box = view.config.draw_box(torch.Generator().manual_seed(seed), 120, 160)
        expected = crop_resize(video, box, 48) / 255
        assert (result - expected).abs().mean() < 0.005  # the stretch and the rounding of the worker's crop


def test_a_crop_on_the_device_is_the_same_alone_and_in_a_batch() -> None:
    view, clips, aspect = View(EVERYTHING), random_clips(5, size=40), torch.tensor([0.5, 1.0, 1.3, 1.8, 3.0])
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
    with pytest.raises(ConfigError, match="size, an input and stats"):
        View(incomplete)


def test_a_policy_is_a_fresh_copy_view_by_view() -> None:
    views = policy("moco_v2")
    views[0].scale[0], views[0].flip = 0.9, 0.0
    assert views[1].scale == [0.2, 1.0]
    assert views[1].flip == 0.5
    assert policy("image")[0].scale == [0.2, 1.0]


# size, scale, brightness, contrast, saturation, hue, gray, blur, solarize, flip, temporal_difference, stats
IMAGE_1 = (224, [0.2, 1.0], 0.4, 0.4, 0.2, 0.1, 0.2, 1.0, 0.0, 0.5, 0.0, "image")
IMAGE_2 = (224, [0.2, 1.0], 0.4, 0.4, 0.2, 0.1, 0.2, 0.1, 0.2, 0.5, 0.0, "image")
MOCO_V2 = (224, [0.2, 1.0], 0.4, 0.4, 0.4, 0.1, 0.2, 0.5, 0.0, 0.5, 0.0, "image")
SIMCLR = (224, [0.08, 1.0], 0.8, 0.8, 0.8, 0.2, 0.2, 0.5, 0.0, 0.5, 0.0, "image")
DINO_LOCAL = (96, [0.05, 0.4], 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.0, 0.5, 0.0, "image")
PUBLISHED = {
    "image": [IMAGE_1, IMAGE_2],
    "image_multicrop": [
        IMAGE_1,
        IMAGE_2,
        (192, [0.172, 0.86], 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.2, 0.5, 0.0, "image"),
        (160, [0.143, 0.715], 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.2, 0.5, 0.0, "image"),
        (128, [0.114, 0.571], 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.2, 0.5, 0.0, "image"),
        (96, [0.086, 0.429], 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.2, 0.5, 0.0, "image"),
    ],
    "moco_v2": [MOCO_V2, MOCO_V2],
    "simclr": [SIMCLR, SIMCLR],
    "byol": [
        (224, [0.08, 1.0], 0.4, 0.4, 0.2, 0.1, 0.2, 1.0, 0.0, 0.5, 0.0, "image"),
        (224, [0.08, 1.0], 0.4, 0.4, 0.2, 0.1, 0.2, 0.1, 0.2, 0.5, 0.0, "image"),
    ],
    "dino": [
        (224, [0.4, 1.0], 0.4, 0.4, 0.2, 0.1, 0.2, 1.0, 0.0, 0.5, 0.0, "image"),
        (224, [0.4, 1.0], 0.4, 0.4, 0.2, 0.1, 0.2, 0.1, 0.2, 0.5, 0.0, "image"),
        *[DINO_LOCAL] * 8,
    ],
    "cifar": [
        (32, [0.2, 1.0], 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, "cifar10"),
        (32, [0.2, 1.0], 0.4, 0.4, 0.4, 0.1, 0.2, 0.5, 0.0, 0.5, 0.0, "cifar10"),
    ],
    "kinetics": [
        (224, [0.2, 0.766], 0.8, 0.8, 0.4, 0.2, 0.2, 1.0, 0.0, 0.5, 0.2, "video"),
        (224, [0.2, 0.766], 0.8, 0.8, 0.4, 0.2, 0.2, 0.1, 0.2, 0.5, 0.2, "video"),
    ],
    "kinetics_112": [
        (112, [0.2, 0.766], 0.8, 0.8, 0.4, 0.2, 0.2, 1.0, 0.0, 0.5, 0.2, "video"),
        (112, [0.2, 0.766], 0.8, 0.8, 0.4, 0.2, 0.2, 0.1, 0.2, 0.5, 0.2, "video"),
    ],
    "kinetics_baseline": [
        (224, [0.2, 0.766], 0.4, 0.4, 0.2, 0.1, 0.2, 1.0, 0.0, 0.5, 0.0, "video"),
        (224, [0.2, 0.766], 0.4, 0.4, 0.2, 0.1, 0.2, 0.1, 0.2, 0.5, 0.0, "video"),
    ],
    "kinetics_baseline_112": [
        (112, [0.2, 0.766], 0.4, 0.4, 0.2, 0.1, 0.2, 1.0, 0.0, 0.5, 0.0, "video"),
        (112, [0.2, 0.766], 0.4, 0.4, 0.2, 0.1, 0.2, 0.1, 0.2, 0.5, 0.0, "video"),
    ],
    "linear_image": [(None, [0.08, 1.0], 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, None)],
    "linear_video": [(None, [], 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, None)],
    "finetune_video": [(None, [], 0.4, 0.4, 0.4, 0.1, 0.2, 0.0, 0.0, 0.5, 0.0, None)],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name: str) -> None:
    found = [
        (
            *(view.size, [] if view.short_side else view.scale),
            *(view.brightness, view.contrast, view.saturation, view.hue),
            *(view.gray, view.blur, view.solarize, view.flip, view.temporal_difference, view.stats),
        )
        for view in policy(name)
    ]
    assert found == PUBLISHED[name]
    assert {view.jitter_p for view in policy(name)} == {0.8}


@pytest.mark.parametrize(("size", "shortest", "longest"), [(224, 256, 320), (112, 128, 160)])
@pytest.mark.parametrize("name", ["linear_video", "finetune_video"])
def test_a_video_is_cropped_from_a_published_short_side(name: str, size: int, shortest: int, longest: int) -> None:
    (view,) = policy(name)
    assert [round(multiple * size) for multiple in view.short_side] == [shortest, longest]


def test_published_constants() -> None:
    assert (BLUR_SIGMA, ASPECT) == ((0.1, 2.0), (3 / 4, 4 / 3))
    assert blur_kernel_size(224) == 23
    assert STATISTICS["image"] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert STATISTICS["video"] == ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
    assert STATISTICS["cifar10"] == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert STATISTICS["cifar100"] == ((0.5071, 0.4865, 0.4409), (0.2009, 0.1984, 0.2023))


def test_an_unknown_policy_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean kinetics"):
        policy("kinetic")
