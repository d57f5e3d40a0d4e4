"""Tests of the image decoder: formats, orientation, reduced scales and damage."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import smooth
from PIL import Image, ImageOps

from eztorch_sce.data.decoders.image import ImageDecoder, load_image, read_image
from eztorch_sce.data.shaping import stretch
from eztorch_sce.errors import MediaError
from eztorch_sce.types import ClipSpan

ORIENTATION = 0x0112  # the EXIF tag


def with_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def exif_with(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def corners(image: np.ndarray) -> list[list[int]]:
    """Return the four corner colors of (H, W, 3), row by row."""
    return [image[y, x].tolist() for y in (0, -1) for x in (0, -1)]


def test_an_image_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(colors).save(tmp_path / "image.png")
    decoder, path = ImageDecoder(), str(tmp_path / "image.png")
    assert decoder.probe(path) == (0.0, 0.0, 7, 5, "image")
    [clip] = decoder.read(path, [ClipSpan(0.0, 0.0)], 1)
    assert torch.equal(clip.frames, torch.from_numpy(colors).permute(2, 0, 1)[:, None])
    assert clip.pts_s.tolist() == [0.0]
    clips = decoder.read(path, [ClipSpan(0.0, 0.0)] * 2, 4)
    assert [clip.frames.shape for clip in clips] == [(3, 4, 5, 7)] * 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_rotated_according_to_its_exif_orientation(orientation: int, tmp_path: Path) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255
    stored = {  # as a camera would write it
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    image.save(tmp_path / "turned.jpg", exif=exif_with(orientation), quality=100)
    assert np.array_equal(load_image(str(tmp_path / "turned.jpg")) > 128, upright > 128)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_of_any_format_is_rotated_exactly_once(orientation: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"turned.{suffix}"
    if suffix == "webp":
        smooth(16, 24).save(path, exif=exif_with(orientation), lossless=True)
    else:
        smooth(16, 24).save(path, exif=exif_with(orientation))
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(load_image(str(path)), upright)
    info = ImageDecoder().probe(str(path))
    assert (info.height, info.width) == upright.shape[:2] == ((24, 16) if orientation > 4 else (16, 24))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_decoded_at_a_reduced_scale_is_upright_too(orientation: int, tmp_path: Path) -> None:
    path = str(tmp_path / "turned.jpg")
    smooth(160, 240).save(path, exif=exif_with(orientation), quality=95)
    pixels, full_size = read_image(path, lambda height, width: 0.25)
    whole = load_image(path)
    assert full_size == whole.shape[:2] == ((240, 160) if orientation > 4 else (160, 240))
    expected = Image.fromarray(whole).resize((full_size[1] // 4, full_size[0] // 4), Image.Resampling.BOX)
    assert np.abs(pixels.astype(int) - np.asarray(expected)).mean() < 2
    info = ImageDecoder().probe(path)
    assert (info.height, info.width) == full_size


def test_16_bit_values_are_scaled_to_8_bits(tmp_path: Path) -> None:
    wide = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert load_image(str(tmp_path / "wide.png"))[0].tolist() == [[v] * 3 for v in (0, 1, 128, 255)]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_every_color_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4), "white")
    image.paste("black", (0, 0, 3, 4))
    name = tmp_path / ("image.jpg" if mode in ("CMYK", "YCbCr") else "image.png")
    image.convert(mode).save(name)
    black, white = [[0] * 3, [255] * 3]
    shown = load_image(str(name))
    assert shown.shape == (4, 6, 3)
    assert np.abs(np.array(corners(shown)) - [black, white, black, white]).max() < 40


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (10, 10, 10, 255))
    image.putpixel((1, 0), (200, 0, 0, 0))
    if mode == "P":
        paletted = image.convert("RGB").quantize(4)
        paletted.save(tmp_path / "glass.png", transparency=paletted.getpixel((1, 0)))
    else:
        image.convert(mode).save(tmp_path / "glass.png")
    assert load_image(str(tmp_path / "glass.png"))[0].tolist() == [[10] * 3, [255] * 3]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("variant", ["baseline", "progressive", "full chroma", "low quality"])
def test_a_jpeg_has_the_same_pixels_as_with_pillow(mode: str, variant: str, tmp_path: Path) -> None:
    path, image = tmp_path / "a.jpg", smooth(61, 47).convert(mode)
    if variant == "progressive":
        image.save(path, progressive=True)
    elif variant == "full chroma":
        image.save(path, subsampling=0)
    else:
        image.save(path, quality=30 if variant == "low quality" else 75)
    assert np.array_equal(load_image(str(path)), with_pillow(path))


@pytest.mark.parametrize(
    ("least_scale", "decoded"),
    [(1.0, (400, 304)), (0.51, (400, 304)), (0.5, (200, 152)), (0.3, (200, 152)), (0.25, (100, 76)), (0.01, (50, 38))],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_is_decoded_at_the_smallest_sufficient_scale(
    least_scale: float, decoded: tuple[int, int], mode: str, tmp_path: Path
) -> None:
    smooth(400, 304).convert(mode).save(tmp_path / "a.jpg", quality=95)
    sizes = []

    def least_scale_of(height: int, width: int) -> float:
        sizes.append((height, width))
        return least_scale

    pixels, full_size = read_image(str(tmp_path / "a.jpg"), least_scale_of)
    assert pixels.shape == (*decoded, 3)
    assert sizes == [full_size] == [(400, 304)]
    expected = Image.fromarray(with_pillow(tmp_path / "a.jpg")).resize(decoded[::-1], Image.Resampling.BOX)
    assert np.abs(pixels.astype(int) - np.asarray(expected)).mean() < 2


def test_a_damaged_image_raises_a_media_error(tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for suffix in ("jpg", "png"):
        whole = tmp_path / f"whole.{suffix}"
        Image.fromarray(colors).save(whole)
        (tmp_path / f"cut.{suffix}").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        with pytest.raises(MediaError, match="damaged"):
            load_image(str(tmp_path / f"cut.{suffix}"))
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(MediaError, match="not an image"):
        load_image(str(tmp_path / "text.jpg"))
    with pytest.raises(MediaError, match="does not exist"):
        load_image(str(tmp_path / "missing.jpg"))


def test_a_jpeg_with_stray_bytes_is_read_but_a_truncated_one_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    smooth(64, 64).save(buffer, "JPEG")
    data = buffer.getvalue()
    (tmp_path / "stray.jpg").write_bytes(data[:-2] + b"\x00\x00" + data[-2:])  # two bytes outside any segment
    assert np.array_equal(load_image(str(tmp_path / "stray.jpg")), with_pillow(tmp_path / "stray.jpg"))
    for length in (len(data) // 2, len(data) * 3 // 4, 30, 1):
        (tmp_path / "cut.jpg").write_bytes(data[:length])
        with pytest.raises(MediaError, match=r"damaged|not an image"):
            load_image(str(tmp_path / "cut.jpg"))


@pytest.mark.real_data
def test_real_images_become_rgb(shared: Path) -> None:
    paths = sorted(path for path in (shared / "data" / "pictures").rglob("*") if path.suffix.lower() == ".jpeg")
    assert paths
    for path in paths:
        image = load_image(str(path))
        assert image.shape[2] == 3
        assert image.std() > 2


@pytest.mark.real_data
def test_real_jpegs_have_the_same_pixels_as_with_pillow(shared: Path) -> None:
    paths = sorted((shared / "data" / "pictures").rglob("*.JPEG"))
    assert paths
    for path in paths:
        assert np.array_equal(load_image(str(path)), with_pillow(path)), path.name


@pytest.mark.real_data
def test_real_jpegs_look_the_same_at_half_scale(shared: Path) -> None:
    for path in sorted((shared / "data" / "pictures").rglob("*.JPEG"))[::5]:
        (clip,) = ImageDecoder(lambda *_: 0.5).read(str(path), [ClipSpan(0, 0)], 1)
        whole = torch.from_numpy(load_image(str(path))).permute(2, 0, 1)[:, None]
        assert clip.full_size == whole.shape[-2:]
        assert clip.frames.shape[-2:] == (-(-whole.shape[-2] // 2), -(-whole.shape[-1] // 2))
        small, expected = (stretch(frames, 32).float() for frames in (clip.frames, whole))
        assert (small - expected).abs().mean() < 3, path.name
