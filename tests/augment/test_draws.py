"""Tests of the random parameters of samples."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from view_configs import ALL_OPERATIONS

from eztorch_sce.augment.view import View, ViewConfig

NUM_DRAWS = 4096


def test_operations_are_drawn_at_their_probabilities() -> None:
    draws = View(ALL_OPERATIONS).draw_all(range(NUM_DRAWS)).samples()
    rates = {
        "jitter_p": sum(bool(draw.jitter) for draw in draws),
        "gray": sum(draw.gray for draw in draws),
        "blur": sum(draw.blur_sigma > 0 for draw in draws),
        "solarize": sum(draw.solarize for draw in draws),
        "flip": sum(draw.flip for draw in draws),
        "temporal_difference": sum(draw.temporal_difference for draw in draws),
    }
    for name, count in rates.items():
        expected = getattr(ALL_OPERATIONS, name)
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
    view = View(replace(ALL_OPERATIONS, blur=1.0))
    values = torch.tensor(
        [getattr(draw, name) for draw in view.draw_all(range(NUM_DRAWS)).samples()], dtype=torch.float64
    )
    fractions = (values - low) / (high - low)
    assert fractions.min() >= 0
    assert fractions.max() <= 1
    deciles = torch.histc(fractions.float(), bins=10, min=0, max=1) / NUM_DRAWS
    assert (deciles - 0.1).abs().max() < 4 * math.sqrt(0.09 / NUM_DRAWS)


def test_a_strength_above_one_never_gives_a_negative_factor() -> None:
    view = View(ViewConfig(brightness=1.5))
    factors = [draw.brightness for draw in view.draw_all(range(200)).samples()]
    assert min(factors) >= 0
    assert max(factors) <= 2.5


def test_all_24_orders_of_color_jitter_are_equally_likely() -> None:
    view = View(replace(ALL_OPERATIONS, jitter_p=1.0))
    counts = Counter(draw.jitter for draw in view.draw_all(range(NUM_DRAWS)).samples())
    assert set(counts) == set(itertools.permutations(("brightness", "contrast", "saturation", "hue")))
    expected = NUM_DRAWS / 24
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_squared < 49.7  # 99.9th percentile for 23 degrees of freedom


def test_the_draws_are_independent_of_each_other() -> None:
    view = View(replace(ALL_OPERATIONS, jitter_p=0.5, blur=0.5, gray=0.5, solarize=0.5, temporal_difference=0.5))
    draws = view.draw_all(range(NUM_DRAWS)).samples()
    table = torch.tensor(
        [[bool(d.jitter), d.gray, d.blur_sigma > 0, d.solarize, d.flip, d.temporal_difference] for d in draws]
    )
    correlation = torch.corrcoef(table.T.float()) - torch.eye(6)
    assert correlation.abs().max() < 4.5 / math.sqrt(NUM_DRAWS)


def test_a_setting_does_not_change_the_other_draws() -> None:
    with_blur, without = View(replace(ALL_OPERATIONS, blur=1.0, hue=0.0)), View(replace(ALL_OPERATIONS, blur=0.0))
    for seed in range(50):
        one, other = with_blur.draw(seed), without.draw(seed)
        assert one.jitter == tuple(name for name in other.jitter if name != "hue")
        assert one._replace(blur_sigma=0, hue=0, jitter=()) == other._replace(blur_sigma=0, hue=0, jitter=())
