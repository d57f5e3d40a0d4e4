"""Tests of the path from image file to crop: an image is decoded once, at the smallest scale that serves all views."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import jpeg, smooth
from PIL import Image

from eztorch_sce.augment.policies import policy
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.augment.views import Views
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.data.dataset import EvaluationSampling, TrainingClips
from eztorch_sce.data.decoders.image import ImageDecoder
from eztorch_sce.data.loading import evaluation_loader
from eztorch_sce.data.sources.folder import from_folder
from eztorch_sce.types import Failure, InputSpec, Sample

SPEC = InputSpec(num_frames=1, size=24)
VIEWS = [ViewConfig(size=24), ViewConfig(size=16, scale=[0.5, 1.0])]


@pytest.mark.parametrize("suffix", ["jpg", "webp", "png"])
def test_crops_do_not_depend_on_the_file_format(suffix: str, tmp_path: Path) -> None:
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
        assert (one.float() - other.float()).abs().mean() < 2  # gray levels: compression, and a shift of half a pixel


@pytest.mark.parametrize("canvas", [None, 32])
def test_images_smaller_than_the_crop_or_with_alpha_are_cropped(canvas: int | None, tmp_path: Path) -> None:
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


def test_a_truncated_image_becomes_a_failure_with_its_path(tmp_path: Path) -> None:
    smooth(64, 64).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:700])
    sample = TrainingClips(from_folder(tmp_path), VIEWS, SPEC, ImageDecoder(), seed=0, canvas=None)[0, 0]
    assert isinstance(sample, Failure)
    assert sample.path.endswith("cut.jpg")
    assert "damaged" in sample.reason


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")  # it warns if the machine has fewer cores
@pytest.mark.parametrize("canvas", [None, 40])
def test_views_do_not_depend_on_the_batch_size_or_the_number_of_workers(canvas: int | None, tmp_path: Path) -> None:
    for number in range(64):
        smooth(40 + 3 * number, 100, seed=number).save(tmp_path / f"{number:02d}.jpg")
    manifest = from_folder(tmp_path)
    configs = [replace(policy("image")[1], size=24, blur=0.5), replace(policy("moco_v2")[0], size=16)]

    def views_by_record(workers: int, batch_size: int) -> dict[int, list[torch.Tensor]]:
        config = DataConfig(root="x", batch_size=batch_size, num_workers=workers, canvas=canvas)
        batches = TrainingData(config, manifest, configs, SPEC, seed=1).train_dataloader()
        augment = Views(configs, seed=1, canvas=canvas)
        by_record = {}
        for batch in batches:
            views = augment(batch).views
            for row, record in enumerate(batch.record.tolist()):
                by_record[record] = [view[row] for view in views]
        return by_record

    alone, together = views_by_record(1, 1), views_by_record(4, 64)
    assert sorted(alone) == sorted(together) == list(range(64))
    assert all(torch.equal(a, b) for r in alone for a, b in zip(alone[r], together[r], strict=True))


def test_evaluation_decodes_no_smaller_than_its_short_side(tmp_path: Path) -> None:
    smooth(400, 640).save(tmp_path / "large.jpg", quality=95)
    config, sampling = DataConfig(root="x", num_workers=0), EvaluationSampling(1, num_crops=3, short_side=100)
    (batch,) = evaluation_loader(config, from_folder(tmp_path), SPEC, sampling)
    with Image.open(tmp_path / "large.jpg") as image:
        middle = np.asarray(image.resize((160, 100), Image.Resampling.BILINEAR))[38:62, 68:92]
    assert (batch.frames[1][0, :, 0].permute(1, 2, 0).float() - torch.tensor(middle)).abs().mean() < 2


@pytest.mark.parametrize("canvas", [None, 32])
def test_a_cut_jpeg_whose_end_was_put_back_is_a_failure_in_training(canvas: int | None, tmp_path: Path) -> None:
    whole = jpeg(400, 400)
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 6 // 10] + b"\xff\xd9")
    (tmp_path / "whole.jpg").write_bytes(whole)
    clips = TrainingClips(from_folder(tmp_path), VIEWS, SPEC, ImageDecoder(), seed=0, canvas=canvas)
    failure = clips[0, 0]
    assert isinstance(failure, Failure)
    assert failure.reason == "is damaged (Corrupt JPEG data: premature end of data segment)"
    assert isinstance(clips[0, 1], Sample)
