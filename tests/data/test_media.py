"""Tests of the media suffixes."""

import pytest

from eztorch_sce.data import media
from eztorch_sce.data.media import IMAGE_SUFFIXES, MEDIA_SUFFIXES, VIDEO_SUFFIXES, ignored_as, suffix_of


def test_video_and_image_suffixes_do_not_overlap() -> None:
    assert not VIDEO_SUFFIXES & IMAGE_SUFFIXES
    assert VIDEO_SUFFIXES | IMAGE_SUFFIXES == MEDIA_SUFFIXES


def test_suffixes_do_not_depend_on_case() -> None:
    assert suffix_of("Holiday.JPEG") in IMAGE_SUFFIXES
    assert suffix_of("holiday.WebM") in VIDEO_SUFFIXES
    assert suffix_of("README") == ""


def test_without_its_package_heic_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "find_spec", lambda module: None)
    monkeypatch.setattr(media, "UNREADABLE_SUFFIXES", media._cures())
    assert ignored_as(".heic") == ".heic (pip install 'eztorch-sce[heif]')"
    assert ignored_as(".avif") == ".avif (pip install 'pillow>=11.3')"
    assert ignored_as(".txt") == ".txt"
