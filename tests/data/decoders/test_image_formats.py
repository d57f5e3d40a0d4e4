"""Tests of image formats that are rarer than 8-bit JPEG and PNG, and of files that lost some of their pixels."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, jpeg, smooth, wide_png
from PIL import Image, ImageOps

from eztorch_sce.data.decoders import image as image_module
from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.data.decoders.image import ImageDecoder, load_image, read_image
from eztorch_sce.data.media import IMAGE_SUFFIXES
from eztorch_sce.errors import MediaError
from eztorch_sce.types import ClipSpan

RAMP = np.arange(0, 1024, 64, dtype=np.uint16).reshape(4, 4)  # 10 bits


@pytest.fixture(autouse=True)
def nothing_warned() -> Iterator[None]:
    """Let each test see the warnings that a process makes once."""
    image_module._warned.clear()
    yield
    image_module._warned.clear()


def save(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def shown(values: np.ndarray, white: int) -> list[list[int]]:
    """Return the 8-bit gray that values should have if `white` is white."""
    gray: list[list[int]] = np.round(values * 255.0 / white).astype(int).tolist()
    return gray


@pytest.mark.parametrize("name", ["HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_and_avif_photos_are_upright(orientation: int, name: str, tmp_path: Path) -> None:
    if name == "HEIF":
        pytest.importorskip("pillow_heif", reason="the extra `heif` is not installed").register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = smooth(64, 96)
    path = save(tmp_path / "photo.jpg", encoded(photo, name, exif=exif.tobytes(), quality=95))  # found by content
    turned = photo.copy()
    turned.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(turned)).astype(int)
    actual = load_image(path)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).mean() < 4
    info = ImageDecoder().probe(path)
    assert (info.height, info.width) == expected.shape[:2]


def test_a_heic_photo_without_its_package_is_an_error_with_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cure = "pip install 'eztorch-sce[heif]'"
    monkeypatch.setattr(image_module, "UNREADABLE_SUFFIXES", {".heic": cure})
    path = save(tmp_path / "photo.heic", b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(MediaError, match=r"is a HEIC image: run pip install 'eztorch-sce\[heif\]'"):
        load_image(path)


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_an_image_is_read_whatever_suffix_it_has(suffix: str, tmp_path: Path) -> None:
    path = save(tmp_path / f"image{suffix}", encoded(smooth(8, 8), "PNG"))
    assert np.array_equal(load_image(path), np.asarray(smooth(8, 8)))


@pytest.mark.parametrize("channels", [1, 3])
def test_stated_significant_bits_scale_the_values(channels: int, tmp_path: Path) -> None:
    values = RAMP[..., None].repeat(channels, axis=2) + np.uint16(3)
    path = save(tmp_path / "camera.png", wide_png(values, significant_bits=10))
    assert load_image(path)[..., 0].tolist() == shown(RAMP + 3, 1023)


@pytest.mark.parametrize("channels", [1, 3])
def test_stated_bits_of_values_in_the_high_bits_change_nothing(channels: int, tmp_path: Path) -> None:
    values = (RAMP * 64)[..., None].repeat(channels, axis=2)  # as the PNG standard wants it
    path = save(tmp_path / "standard.png", wide_png(values, significant_bits=10))
    assert np.abs(load_image(path)[..., 0] - np.array(shown(RAMP * 64, 65535))).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_values_of_few_bits_are_not_guessed_but_warned_of_once(channels: int, tmp_path: Path) -> None:
    path = save(tmp_path / "dark.png", wide_png(RAMP[..., None].repeat(channels, axis=2)))
    with pytest.warns(UserWarning, match=r"dark\.png: dark: uses only 10 of 16 bits"):
        image = load_image(path)
    assert image.max() <= 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image(path)


@pytest.mark.parametrize("channels", [2, 4])
def test_dark_images_with_transparency_are_warned_of_too(channels: int, tmp_path: Path) -> None:
    values = RAMP[..., None].repeat(channels, axis=2)
    values[..., -1] = 65535
    with pytest.warns(UserWarning, match="dark: uses only"):
        load_image(save(tmp_path / "dark.png", wide_png(values)))


def test_the_key_color_of_16_bit_gray_does_not_clip_the_rest(tmp_path: Path) -> None:
    gray = Image.fromarray(np.array([[0, 30_000, 65_535]], np.uint16))
    path = save(tmp_path / "keyed.png", encoded(gray, "PNG", transparency=0))
    assert load_image(path)[0, :, 0].tolist() == [0, 117, 255]


def test_12_bits_of_a_tiff_file_are_scaled_by_its_tag(tmp_path: Path) -> None:
    packed = bytes([0xFF, 0xF8, 0x00])  # two values of 12 bits: 4095 and 2048
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 3)]
    entries = b"".join(tag.to_bytes(2, "little") + b"\3\0\1\0\0\0" + value.to_bytes(4, "little") for tag, value in tags)
    data = b"II*\0\x0c\0\0\0" + packed + b"\0" + len(tags).to_bytes(2, "little") + entries + bytes(4)
    assert load_image(save(tmp_path / "a.tif", data))[0].tolist() == [[255] * 3, [128] * 3]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "jp2"])
def test_16_bit_gray_keeps_its_shades(suffix: str, tmp_path: Path) -> None:
    gray = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(gray).save(tmp_path / f"a.{suffix}")
    assert load_image(str(tmp_path / f"a.{suffix}"))[..., 0].tolist() == shown(gray, 65535)


def test_integers_beyond_16_bits_are_refused_rather_than_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70_000]], np.int32)).save(tmp_path / "depth.tif")
    with pytest.raises(MediaError, match="has values from 0 to 70000, beyond 16 bits"):
        load_image(str(tmp_path / "depth.tif"))


@pytest.mark.parametrize("name", ["WEBP", "PNG", "GIF", "TIFF"])
def test_only_the_first_image_of_an_animation_is_read_and_a_warning_says_so(name: str, tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    options = {"lossless": True} if name == "WEBP" else {}
    data = encoded(first, name, save_all=True, append_images=[second], **options)
    with pytest.warns(UserWarning, match="several images: 2, of which only the first is used"):
        assert load_image(save(tmp_path / "a.img", data))[0, 0].tolist() == [255, 0, 0]


def test_the_previews_that_phones_add_to_a_jpeg_are_no_animation(tmp_path: Path) -> None:
    first, preview = smooth(32, 32), smooth(8, 8)
    path = save(tmp_path / "a.jpg", encoded(first, "MPO", save_all=True, append_images=[preview]))
    assert load_image(path).shape == (32, 32, 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_a_jpeg_that_lost_pixels_is_an_error_rather_than_gray(
    scale: float, progressive: bool, mode: str, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise).convert(mode), "JPEG", progressive=progressive)
    cut = data[: len(data) * 6 // 10]
    for damaged in (cut, cut + b"\xff\xd9", cut + bytes(len(data) - len(cut) - 2) + b"\xff\xd9"):
        with pytest.raises(MediaError, match="is damaged"):
            read_image(save(tmp_path / "a.jpg", damaged), lambda *_: scale)


def test_a_frame_folder_with_a_cut_jpeg_is_an_error(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.jpg", jpeg(seed=number) if number != 1 else jpeg(seed=1)[:2000] + b"\xff\xd9")
    with pytest.raises(MediaError, match="is damaged"):
        FramesDecoder().read(str(tmp_path), [ClipSpan(0, 0.12)], 3)


@pytest.mark.parametrize("name", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_other_formats_cut_at_60_percent_are_errors(name: str, tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, name)
    with pytest.raises(MediaError, match="is damaged"):
        load_image(save(tmp_path / "a.png", data[: len(data) * 6 // 10]))


def test_a_named_pipe_is_an_error_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe.jpg", "folder.jpg"):
        for read in (load_image, ImageDecoder().probe):
            with pytest.raises(MediaError, match="not a file"):
                read(str(tmp_path / name))


def test_a_file_that_is_no_image_is_named_for_what_it_is(tmp_path: Path, numbered_video: Path) -> None:
    contents = {
        b"<!DOCTYPE html><html>404": "an HTML page",
        numbered_video.read_bytes()[:4096]: "an MP4 video",
        b"version https://git-lfs.github.com/spec/v1\n": "a Git LFS pointer",
    }
    for data, words in contents.items():
        path = save(tmp_path / "a.jpg", data)
        with pytest.raises(MediaError, match=f"is not an image that Pillow can read, but {words}"):
            load_image(path)
    for probe in (load_image, ImageDecoder().probe):
        with pytest.raises(MediaError, match="is empty"):
            probe(save(tmp_path / "empty.jpg", b""))


def test_transparency_in_a_palette_becomes_white_in_every_format(tmp_path: Path) -> None:
    paletted = Image.new("P", (8, 8), 0)
    paletted.putpalette([10, 20, 30] * 4)
    for name in ("PNG", "GIF"):
        path = save(tmp_path / "a.png", encoded(paletted, name, transparency=0))
        assert load_image(path).min() == 255
