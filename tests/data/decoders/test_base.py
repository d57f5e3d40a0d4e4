"""Tests of the timing rules that all decoders share."""

from pathlib import Path

import pytest

from eztorch_sce.data.decoders.base import check_hold, first_bytes, frame_times, shown_at
from eztorch_sce.errors import MediaError
from eztorch_sce.types import ClipSpan


def test_a_frame_is_shown_from_its_timestamp_until_the_next() -> None:
    pts_s = [0.0, 0.1, 0.2, 0.5]
    assert [shown_at(pts_s, t) for t in (-1, 0, 0.098, 0.1, 0.4, 0.5, 9)] == [0, 0, 0, 1, 2, 3, 3]


@pytest.mark.parametrize("span", [ClipSpan(2.0, 1.0), ClipSpan(0.0, float("nan"))])
def test_a_span_that_ends_before_it_starts_is_refused(span: ClipSpan) -> None:
    with pytest.raises(ValueError, match="span"):
        frame_times(span, 8)


def test_a_clip_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="num_frames=0 must be at least 1"):
        frame_times(ClipSpan(0.0, 1.0), 0)


def test_a_frame_is_held_for_ten_seconds_past_its_end_but_no_longer() -> None:
    check_hold("slides.mp4", time_s=11.9, end_s=2.0)
    with pytest.raises(MediaError, match=r"no frame from 2\.00 s to 12\.10 s: timestamps jump"):
        check_hold("slides.mp4", time_s=12.1, end_s=2.0)


def test_a_folder_and_a_broken_link_are_not_files(tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(tmp_path / "missing.mp4")
    for path in (tmp_path, tmp_path / "link.mp4"):
        with pytest.raises(MediaError, match="not a file"):
            first_bytes(str(path), 8)
    with pytest.raises(MediaError, match="does not exist"):
        first_bytes(str(tmp_path / "missing.mp4"), 8)
