"""Tests of the media suffixes."""

from eztorch_sce.data.media import IMAGE_SUFFIXES, MEDIA_SUFFIXES, VIDEO_SUFFIXES, suffix_of


def test_video_and_image_suffixes_do_not_overlap() -> None:
    assert not VIDEO_SUFFIXES & IMAGE_SUFFIXES
    assert VIDEO_SUFFIXES | IMAGE_SUFFIXES == MEDIA_SUFFIXES


def test_suffixes_do_not_depend_on_case() -> None:
    assert suffix_of("Holiday.JPEG") in IMAGE_SUFFIXES
    assert suffix_of("holiday.WebM") in VIDEO_SUFFIXES
    assert suffix_of("README") == ""
