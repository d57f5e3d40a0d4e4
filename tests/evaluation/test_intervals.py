"""Tests of bootstrap confidence intervals, by facts that are known without them."""

import pytest
import torch

from eztorch_sce.evaluation.intervals import bootstrap_intervals


def width(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


def test_what_never_fails_and_what_never_succeeds_have_no_width() -> None:
    intervals = bootstrap_intervals({"always": torch.ones(24), "never": torch.zeros(24)}, None)
    assert intervals == {"always": (1.0, 1.0), "never": (0.0, 0.0)}


def test_a_coin_thrown_24_times_may_be_anything_between_a_third_and_two_thirds() -> None:
    low, high = bootstrap_intervals({"heads": torch.tensor([0.0, 1.0] * 12)}, None)["heads"]
    assert 0.25 <= low <= 0.34
    assert 0.66 <= high <= 0.75


def test_intervals_of_biased_coins_cover_their_bias_as_often_as_they_say() -> None:
    bias, num_coins = 0.7, 600
    throws = (torch.rand(num_coins, 200, generator=torch.Generator().manual_seed(0)) < bias).float()
    intervals = bootstrap_intervals({str(number): coin for number, coin in enumerate(throws)}, None)
    covered = sum(low <= bias <= high for low, high in intervals.values()) / num_coins
    assert covered == pytest.approx(0.95, abs=0.03)


def test_four_times_the_records_halve_the_width() -> None:
    few, many = (bootstrap_intervals({"x": torch.tensor([0.0, 1.0] * n)}, None)["x"] for n in (50, 200))
    assert width(few) / width(many) == pytest.approx(2, rel=0.15)


def test_clips_of_one_video_say_no_more_than_the_video() -> None:
    videos = torch.tensor([0.0, 1.0, 1.0, 1.0] * 10)
    clips, video_of_clip = videos.repeat_interleave(4), torch.arange(40).repeat_interleave(4)
    of_videos = bootstrap_intervals({"x": videos}, None)["x"]
    assert bootstrap_intervals({"x": clips}, video_of_clip * 1000 - 7)["x"] == of_videos  # names of groups are any
    assert width(bootstrap_intervals({"x": clips}, None)["x"]) < 0.6 * width(of_videos)


def test_groups_of_unequal_size_are_drawn_whole() -> None:
    groups = torch.tensor([0, 0, 0, 1])
    low, high = bootstrap_intervals({"x": torch.tensor([1.0, 1.0, 1.0, 0.0])}, groups)["x"]
    assert (low, high) == (0.0, 1.0)  # twice the one or twice the other group is half of all draws


def test_intervals_are_the_same_in_every_run_and_whatever_else_is_measured() -> None:
    values = torch.rand(30, generator=torch.Generator().manual_seed(1))
    alone = bootstrap_intervals({"x": values}, None)["x"]
    assert bootstrap_intervals({"y": torch.ones(30), "x": values}, None)["x"] == pytest.approx(alone, abs=1e-12)
