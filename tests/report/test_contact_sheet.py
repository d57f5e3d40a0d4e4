"""Tests of `show-views`: the contact sheet and its captions."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from eztorch_sce import api
from eztorch_sce.augment.draws import ViewParameters
from eztorch_sce.cli import main
from eztorch_sce.config.compose import compose
from eztorch_sce.data.view_samples import describe
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.report.contact_sheet import _shortened


def test_a_caption_lists_the_operations_in_the_order_of_application() -> None:
    parameters = ViewParameters(
        temporal_difference=True,
        jitter=("hue", "contrast"),
        brightness=1.3,
        contrast=0.75,
        saturation=1.0,
        hue=-0.05,
        gray=True,
        blur_sigma=1.25,
        solarize=True,
        flip=True,
    )
    assert describe(parameters) == [
        "temporal difference",
        "hue -0.050 turns",
        "contrast x 0.75",
        "gray",
        "blur, sigma 1.25 px",
        "solarized",
        "flipped",
    ]


@pytest.mark.parametrize("canvas", ["null", "64"])
def test_images_are_written_as_one_png(canvas: str, tmp_path: Path) -> None:
    for number, color in enumerate(("red", "lime", "blue")):
        Image.new("RGB", (60, 40), color).save(tmp_path / f"{number}.png")
    off = ["brightness", "contrast", "saturation", "hue", "gray", "blur", "solarize"]
    config = compose(
        "show-views",
        [
            f"data.root={tmp_path}",
            f"run.dir={tmp_path}/shown",
            "views=image",
            "num_samples=3",
            f"data.canvas={canvas}",
            *(f"views.*.{name}=0" for name in off),
        ],
    )
    report = api.show_views(config)
    assert report.metrics == {"records": 3, "unreadable": 0, "views": 2}
    with Image.open(tmp_path / "shown" / "views.png") as sheet:
        colors = {tuple(color) for color in np.asarray(sheet.convert("RGB")).reshape(-1, 3).tolist()}
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)} <= colors  # three records on white


def test_clips_are_written_as_an_animated_webp(write_video: Callable[..., Path], tmp_path: Path) -> None:
    write_video(tmp_path / "a" / "1.mp4")
    write_video(tmp_path / "a" / "2.mp4")
    (tmp_path / "a" / "3.mp4").write_bytes(b"no video")
    words = [f"data.root={tmp_path}/a", f"run.dir={tmp_path}/shown", "data.num_frames=5", "data.clip_s=1"]
    main(["show-views", *words, "views=kinetics", "views.*.size=64", "num_samples=3"])
    with Image.open(tmp_path / "shown" / "views.webp") as sheet:
        assert sheet.n_frames == 5
        frames = []
        for time in range(5):
            sheet.seek(time)
            frames.append(np.asarray(sheet.convert("RGB")).astype(int))
    for frame, next_frame in itertools.pairwise(frames):
        assert np.abs(frame - next_frame).max() > 50  # consecutive frames show different numbers
    assert '"unreadable": 1.0' in (tmp_path / "shown" / "report.json").read_text()


def test_a_long_path_is_cut_from_its_start() -> None:
    font = ImageFont.load_default(size=11)
    assert _shortened("a/b.jpg", 200, font) == "a/b.jpg"
    shown = _shortened("a/" * 200 + "b.jpg  (60 x 40)", 200, font)
    assert shown.startswith("...")
    assert shown.endswith("/b.jpg  (60 x 40)")
    assert 190 < font.getlength(shown) <= 200


def test_show_views_explains_invalid_input(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    words = [f"data.root={tmp_path}", f"run.dir={tmp_path}/shown"]
    with pytest.raises(MediaError, match="is not an image"):
        api.show_views(compose("show-views", [*words, "views=image"]))
    with pytest.raises(ConfigError, match=r"views\.0.*compares frames"):
        api.show_views(compose("show-views", [*words, "views=kinetics"]))
    with pytest.raises(ConfigError, match=r"num_samples=0 must be at least 1"):
        compose("show-views", [*words, "num_samples=0"])
    with pytest.raises(ConfigError, match=r"views\.0\.blur=1\.5.*\n.*views\.1\.scale"):
        compose("show-views", [*words, "views=image", "views.0.blur=1.5", "views.1.scale=[0.2,2.0]"])
