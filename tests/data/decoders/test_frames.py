"""Tests of folders of images that are read as videos."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.errors import MediaError
from eztorch_sce.types import ClipSpan

Numbers = Callable[[Tensor], list[int]]


@pytest.fixture
def frame_folder(tmp_path: Path, numbered_image: Callable[[int], np.ndarray]) -> Path:
    for number in range(12):
        Image.fromarray(numbered_image(number)).save(tmp_path / f"img_{number}.png")  # img_10 comes after img_9
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / ".hidden.png").write_text("not a frame")
    return tmp_path


def test_a_folder_of_images_is_read_as_a_video(frame_folder: Path, numbers_shown: Numbers) -> None:
    decoder = FramesDecoder(fps=10)
    info = decoder.probe(str(frame_folder))
    assert info.duration_s == pytest.approx(1.2)
    assert (info.fps, info.width, info.height, info.codec) == (10, 80, 32, "frames")
    whole, last_half = decoder.read(str(frame_folder), [ClipSpan(0.0, 1.2), ClipSpan(0.55, 1.15)], 6)
    assert numbers_shown(whole.frames) == [1, 3, 5, 7, 9, 11]
    assert numbers_shown(last_half.frames) == [6, 7, 8, 9, 10, 11]
    assert last_half.pts_s.tolist() == pytest.approx([0.6, 0.7, 0.8, 0.9, 1.0, 1.1])


def test_only_required_images_are_opened(frame_folder: Path, numbers_shown: Numbers) -> None:
    (frame_folder / "img_3.png").write_text("damaged")
    [clip] = FramesDecoder(fps=10).read(str(frame_folder), [ClipSpan(0.4, 0.8)], 4)
    assert numbers_shown(clip.frames) == [4, 5, 6, 7]
    with pytest.raises(MediaError, match="img_3"):
        FramesDecoder(fps=10).read(str(frame_folder), [ClipSpan(0.2, 0.6)], 4)


def test_a_folder_that_cannot_be_read_as_a_video_raises_a_media_error(
    frame_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    decoder = FramesDecoder(fps=10)
    with pytest.raises(MediaError, match="ends at"):
        decoder.read(str(frame_folder), [ClipSpan(0.0, 9.0)], 4)
    with pytest.raises(MediaError, match="no image"):
        decoder.probe(str(tmp_path_factory.mktemp("nothing")))
    with pytest.raises(MediaError, match="listed"):
        decoder.probe(str(frame_folder / "missing"))
    Image.new("RGB", (8, 8)).save(frame_folder / "img_5.png")
    with pytest.raises(MediaError, match="sizes"):
        decoder.read(str(frame_folder), [ClipSpan(0.4, 0.6)], 2)


def test_a_frame_rate_must_be_positive() -> None:
    with pytest.raises(ValueError, match="fps=0 must be greater than 0"):
        FramesDecoder(fps=0)
