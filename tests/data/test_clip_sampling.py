"""Tests of clip sampling."""

from itertools import pairwise

import pytest
import torch

from eztorch_sce.data.clip_sampling import (
    COVERS,
    cover_spans,
    half_overlap_spans,
    near_spans,
    random_span,
    random_spans,
    strided_clip_s,
    uniform_spans,
    whole_span,
)
from eztorch_sce.types import ClipSpan


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_start_is_equally_likely() -> None:
    draw = generator()
    starts = torch.tensor([random_span(12.56, 2.56, draw).start_s for _ in range(4000)])
    assert starts.min() >= 0
    assert starts.max() <= 10
    counts = torch.histc(starts, bins=10, min=0, max=10)
    assert counts.sub(400).abs().max() < 100  # five standard deviations


def test_random_clips_have_the_expected_length_and_lie_inside_the_video() -> None:
    for span in random_spans(10.0, 2.56, count=100, generator=generator()):
        assert span.end_s - span.start_s == pytest.approx(2.56)
        assert span.start_s >= 0
        assert span.end_s <= 10.0 + 1e-9


def test_the_two_clips_of_a_video_are_independent() -> None:
    pairs = [random_spans(10.0, 2.0, count=2, generator=generator(seed)) for seed in range(500)]
    starts = torch.tensor([[first.start_s, second.start_s] for first, second in pairs]).T
    assert torch.corrcoef(starts)[0, 1].abs() < 0.15


def test_the_same_generator_state_gives_the_same_clips() -> None:
    assert random_spans(10.0, 2.0, 3, generator(5)) == random_spans(10.0, 2.0, 3, generator(5))
    assert random_spans(10.0, 2.0, 3, generator(5)) != random_spans(10.0, 2.0, 3, generator(6))


def test_a_draw_does_not_depend_on_the_length_of_the_previous_video() -> None:
    after_short, after_long = generator(), generator()
    random_span(1.0, 2.0, after_short)
    random_span(9.0, 2.0, after_long)
    assert random_span(9.0, 2.0, after_short) == random_span(9.0, 2.0, after_long)


def test_uniform_clips_start_and_end_with_the_video() -> None:
    spans = uniform_spans(10.0, 2.56, count=10)
    assert spans[0].start_s == 0
    assert spans[-1].end_s == pytest.approx(10.0)
    steps = [b.start_s - a.start_s for a, b in pairwise(spans)]
    assert steps == pytest.approx([7.44 / 9] * 9)


def test_near_spans_favor_small_distances() -> None:
    draw = generator()
    pairs = torch.tensor([[span.start_s for span in near_spans(12.0, 2.0, draw, power=1)] for _ in range(6000)])
    distances = (pairs[:, 0] - pairs[:, 1]).abs()
    # The density falls linearly to 0 at the longest distance, 10 s: its mean is 10/3 s, and 3/4 lie below 5 s.
    assert distances.mean().item() == pytest.approx(10 / 3, abs=0.15)
    assert (distances < 5).double().mean().item() == pytest.approx(0.75, abs=0.03)
    assert pairs.min() >= 0
    assert pairs.max() <= 10
    assert (pairs[:, 0] < pairs[:, 1]).double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert pairs.mean().item() == pytest.approx(5.0, abs=0.2)  # no end of the video is favored


def test_power_0_makes_all_distances_equally_likely() -> None:
    draw = generator()
    pairs = torch.tensor([[span.start_s for span in near_spans(12.0, 2.0, draw, power=0)] for _ in range(4000)])
    assert (pairs[:, 0] - pairs[:, 1]).abs().mean().item() == pytest.approx(5.0, abs=0.2)


@pytest.mark.parametrize("duration_s", [2.56, 2.57, 5.12, 7.7, 10.0, 300.3])
def test_covers_leave_no_gap(duration_s: float) -> None:
    for spans in (half_overlap_spans(duration_s, 2.56), cover_spans(duration_s, 2.56), whole_span(duration_s, 2.56)):
        assert spans[0].start_s == 0
        assert spans[-1].end_s == pytest.approx(duration_s)
        assert all(later.start_s <= earlier.end_s + 1e-9 for earlier, later in pairwise(spans))
    assert all(
        later.start_s - earlier.start_s <= 1.28 + 1e-9 for earlier, later in pairwise(half_overlap_spans(9, 2.56))
    )


def test_a_cover_of_whole_clips_has_no_overlap() -> None:
    assert [span.start_s for span in cover_spans(0.3 * 3, 0.3)] == pytest.approx([0.0, 0.3, 0.6])
    assert len(half_overlap_spans(0.3 * 3, 0.3)) == 5


def test_a_stride_gives_the_clip_length_at_a_frame_rate() -> None:
    assert strided_clip_s(num_frames=8, stride=4, fps=25) == pytest.approx(1.28)
    assert strided_clip_s(num_frames=1, stride=4, fps=0) > 0  # an image has no frame rate


def test_a_single_uniform_clip_lies_in_the_middle() -> None:
    assert uniform_spans(10.0, 4.0, count=1) == [ClipSpan(3.0, 7.0)]


@pytest.mark.parametrize("duration_s", [0.0, 0.04, 2.56])
def test_a_video_no_longer_than_a_clip_is_returned_whole(duration_s: float) -> None:
    whole = ClipSpan(0.0, duration_s)
    assert random_span(duration_s, 2.56, generator()) == whole
    assert random_spans(duration_s, 2.56, 2, generator()) == [whole, whole]
    assert uniform_spans(duration_s, 2.56, 3) == [whole, whole, whole]
    assert near_spans(duration_s, 2.56, generator(), 1) == [whole, whole]
    assert all(cover(duration_s, 2.56) == [whole] for cover in COVERS.values())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((-1.0, 2.0, 1), "duration_s"),
        ((float("nan"), 2.0, 1), "duration_s"),
        ((5.0, 0.0, 1), "clip_s"),
        ((5.0, 2.0, 0), "count"),
    ],
)
def test_an_invalid_argument_is_named(arguments: tuple[float, float, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        uniform_spans(*arguments)
    duration_s, clip_s, count = arguments
    with pytest.raises(ValueError, match=name):
        random_spans(duration_s, clip_s, count, generator())
