"""Images from the file to the crop: one decoding, at the scale that is enough, for all views."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from eztorch_sce.augment.policies import policy
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.data.dataset import TrainingClips
from eztorch_sce.data.decoders.image import ImageDecoder, load_image, read_image
from eztorch_sce.data.loading import evaluation_loader
from eztorch_sce.data.shaping import stretch
from eztorch_sce.data.sources.manifest import from_folder
from eztorch_sce.errors import MediaError
from eztorch_sce.training.augmentation import BatchAugmentation
from eztorch_sce.types import ClipSpan, Failure, InputSpec, Sample

SPEC = InputSpec(num_frames=1, size=24)
VIEWS = [ViewConfig(size=24), ViewConfig(size=16, scale=[0.5, 1.0])]


def smooth(height: int, width: int, seed: int = 0) -> Image.Image:
    """Return an image without sharp edges, which survives any scale."""
    coarse = np.random.default_rng(seed).integers(64, 192, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def with_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}], ids=str)
def test_a_jpeg_has_the_pixels_that_pillow_reads(mode: str, options: dict[str, int], tmp_path: Path) -> None:
    smooth(61, 47).convert(mode).save(tmp_path / "a.jpg", **options)
    assert np.array_equal(load_image(str(tmp_path / "a.jpg")), with_pillow(tmp_path / "a.jpg"))


@pytest.mark.parametrize(
    ("least_scale", "decoded"),
    [(1.0, (400, 304)), (0.51, (400, 304)), (0.5, (200, 152)), (0.3, (200, 152)), (0.25, (100, 76)), (0.01, (50, 38))],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_is_decoded_at_the_scale_that_is_enough(
    least_scale: float, decoded: tuple[int, int], mode: str, tmp_path: Path
) -> None:
    smooth(400, 304).convert(mode).save(tmp_path / "a.jpg", quality=95)
    told = []

    def ask(height: int, width: int) -> float:
        told.append((height, width))
        return least_scale

    pixels, full_size = read_image(str(tmp_path / "a.jpg"), ask)
    assert pixels.shape == (*decoded, 3)
    assert told == [full_size] == [(400, 304)]
    expected = Image.fromarray(with_pillow(tmp_path / "a.jpg")).resize(decoded[::-1], Image.Resampling.BOX)
    assert np.abs(pixels.astype(int) - np.asarray(expected)).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_shrunk_image_is_upright_too(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth(160, 240).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    pixels, full_size = read_image(str(tmp_path / "turned.jpg"), lambda height, width: 0.25)
    whole = load_image(str(tmp_path / "turned.jpg"))
    assert full_size == whole.shape[:2] == ((240, 160) if orientation > 4 else (160, 240))
    expected = Image.fromarray(whole).resize((full_size[1] // 4, full_size[0] // 4), Image.Resampling.BOX)
    assert np.abs(pixels.astype(int) - np.asarray(expected)).mean() < 2
    info = ImageDecoder().probe(str(tmp_path / "turned.jpg"))
    assert (info.height, info.width) == full_size


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_image_of_any_format_is_turned_once(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth(16, 24).save(tmp_path / f"turned.{suffix}", exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(tmp_path / f"turned.{suffix}") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(load_image(str(tmp_path / f"turned.{suffix}")), upright)
    info = ImageDecoder().probe(str(tmp_path / f"turned.{suffix}"))
    assert (info.height, info.width) == upright.shape[:2] == ((24, 16) if orientation > 4 else (16, 24))


def test_a_harmless_fault_is_forgiven_and_a_truncated_file_is_not(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    smooth(64, 64).save(buffer, "JPEG")
    data = buffer.getvalue()
    (tmp_path / "odd.jpg").write_bytes(data[:-2] + b"\x00\x00" + data[-2:])  # two bytes that belong to nothing
    assert np.array_equal(load_image(str(tmp_path / "odd.jpg")), with_pillow(tmp_path / "odd.jpg"))
    for length in (len(data) // 2, len(data) * 3 // 4, 30, 1):
        (tmp_path / "cut.jpg").write_bytes(data[:length])
        with pytest.raises(MediaError, match=r"damaged|not an image"):
            load_image(str(tmp_path / "cut.jpg"))


@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
def test_any_format_gives_the_same_crops(suffix: str, tmp_path: Path) -> None:
    image = smooth(300, 402)
    image.save(tmp_path / "0.bmp")
    (tmp_path / "other").mkdir()
    image.save(tmp_path / "other" / f"0.{suffix}", quality=95)
    samples = []
    for folder in (tmp_path, tmp_path / "other"):
        manifest = from_folder(folder)
        samples.append(TrainingClips(manifest, VIEWS, SPEC, ImageDecoder(), seed=3, canvas=None)[0, 0])
    first, second = samples
    assert isinstance(first, Sample)
    assert isinstance(second, Sample)
    assert first.aspect == second.aspect == 402 / 300
    for one, other in zip(first.frames, second.frames, strict=True):
        assert one.shape == other.shape
        assert (one.float() - other.float()).abs().mean() < 2  # of 255: the compression, and half a pixel


@pytest.mark.parametrize("canvas", [None, 32])
def test_a_image_smaller_than_the_crop_or_with_alpha_is_cropped(canvas: int | None, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (255, 0, 0)).save(tmp_path / "1.png")
    Image.new("L", (1, 1), 255).save(tmp_path / "2.jpg")
    Image.new("RGBA", (9, 4), (0, 255, 0, 255)).save(tmp_path / "3.webp", lossless=True)
    Image.new("LA", (300, 2), (128, 255)).save(tmp_path / "4.png")
    clips = TrainingClips(from_folder(tmp_path), VIEWS, SPEC, ImageDecoder(), seed=0, canvas=canvas)
    for index, color in enumerate([(255, 0, 0), (255, 255, 255), (0, 255, 0), (128, 128, 128)]):
        sample = clips[0, index]
        assert isinstance(sample, Sample)
        for view, config in zip(sample.frames, VIEWS, strict=True):
            assert view.shape == (3, 1, canvas or config.size, canvas or config.size)
            assert view.amax((1, 2, 3)).tolist() == view.amin((1, 2, 3)).tolist() == list(color)


def test_a_truncated_image_is_a_failure_with_its_path(tmp_path: Path) -> None:
    smooth(64, 64).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:700])
    sample = TrainingClips(from_folder(tmp_path), VIEWS, SPEC, ImageDecoder(), seed=0, canvas=None)[0, 0]
    assert isinstance(sample, Failure)
    assert sample.path.endswith("cut.jpg")
    assert "damaged" in sample.reason


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")  # more than this machine has cores
@pytest.mark.parametrize("canvas", [None, 40])
def test_views_are_the_same_alone_and_among_64_on_one_worker_and_four(canvas: int | None, tmp_path: Path) -> None:
    for number in range(64):
        smooth(40 + 3 * number, 100, seed=number).save(tmp_path / f"{number:02d}.jpg")
    manifest = from_folder(tmp_path)
    configs = [replace(policy("image")[1], size=24, blur=0.5), replace(policy("moco_v2")[0], size=16)]

    def made(workers: int, batch_size: int) -> dict[int, list[torch.Tensor]]:
        config = DataConfig(root="x", batch_size=batch_size, num_workers=workers, canvas=canvas)
        batches = TrainingData(config, manifest, configs, SPEC, seed=1).train_dataloader()
        views = BatchAugmentation(configs, seed=1, canvas=canvas)
        return {
            int(r): [v[i] for v in seen] for b in batches for seen in [views(b).views] for i, r in enumerate(b.record)
        }

    alone, together = made(1, 1), made(4, 64)
    assert sorted(alone) == sorted(together) == list(range(64))
    assert all(torch.equal(a, b) for r in alone for a, b in zip(alone[r], together[r], strict=True))


def test_evaluation_shrinks_no_further_than_its_short_side(tmp_path: Path) -> None:
    smooth(400, 640).save(tmp_path / "large.jpg", quality=95)
    (batch,) = evaluation_loader(
        DataConfig(root="x", num_workers=0), from_folder(tmp_path), SPEC, num_clips=1, num_crops=3, short_side=100
    )
    pixels = Image.fromarray(with_pillow(tmp_path / "large.jpg")).resize((160, 100), Image.Resampling.BILINEAR)
    middle = np.asarray(pixels)[38:62, 68:92]
    assert (batch.frames[1][0, :, 0].permute(1, 2, 0).float() - torch.tensor(middle)).abs().mean() < 2


@pytest.mark.real_data
def test_real_jpegs_have_the_pixels_that_pillow_reads(shared: Path) -> None:
    paths = sorted((shared / "data" / "pictures").rglob("*.JPEG"))
    assert paths
    for path in paths:
        assert np.array_equal(load_image(str(path)), with_pillow(path)), path.name


@pytest.mark.real_data
def test_real_jpegs_shrunk_show_the_same(shared: Path) -> None:
    for path in sorted((shared / "data" / "pictures").rglob("*.JPEG"))[::5]:
        (clip,) = ImageDecoder(lambda *_: 0.5).read(str(path), [ClipSpan(0, 0)], 1)
        whole = torch.from_numpy(load_image(str(path))).permute(2, 0, 1)[:, None]
        assert clip.full_size == whole.shape[-2:]
        assert clip.frames.shape[-2:] == (-(-whole.shape[-2] // 2), -(-whole.shape[-1] // 2))
        small, expected = (stretch(frames, 32).float() for frames in (clip.frames, whole))
        assert (small - expected).abs().mean() < 3, path.name
