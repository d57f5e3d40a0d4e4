"""Every way to name images takes every suffix of images."""

import os
from pathlib import Path

import pytest
from image_files import encoded, smooth
from PIL import Image

from eztorch_sce import cli
from eztorch_sce.curation.doctor import diagnose
from eztorch_sce.data import media
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.decoders.frames import FramesDecoder
from eztorch_sce.data.media import IMAGE_SUFFIXES
from eztorch_sce.data.sources import list_file, media_kinds
from eztorch_sce.errors import ConfigError
from eztorch_sce.types import ClipSpan

SUFFIXES = sorted({".jfif", ".jpe", ".JPG", ".avif", ".webp"} | IMAGE_SUFFIXES)
FORMATS = {".avif": "AVIF", ".webp": "WEBP"}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of images, one of each suffix in each class."""
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number, suffix in enumerate(SUFFIXES):
            image = smooth(40, 40, seed=number + 100 * (label == "dog"))
            data = encoded(image, FORMATS.get(suffix, "JPEG"))
            (tmp_path / label / f"photo {suffix[1:]}{suffix}").write_bytes(data)
    return tmp_path


def test_a_folder_a_list_and_the_doctor_take_every_suffix(images: Path, tmp_path: Path) -> None:
    names = [os.path.relpath(path, images) for path in sorted(images.rglob("*")) if path.is_file()]
    assert len(names) == 2 * len(SUFFIXES)
    from_folder = DataConfig(root=str(images)).open().train
    assert from_folder.records.num_by_kind() == {"image": len(names)}
    assert from_folder.ignored == {}
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{name},{name[:3]}\n" for name in names))
    from_list = DataConfig(list=str(tmp_path / "list.csv"), root=str(images)).open().train
    assert from_list.records.num_by_kind() == {"image": len(names)}
    (tmp_path / "list.csv").unlink()
    assert [row.usable for row in diagnose(images).rows] == [True] * len(names)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".webp", ".avif"])
def test_frame_folders_take_rare_suffixes(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "class" / "video"
    folder.mkdir(parents=True)
    for number in range(12):
        data = encoded(smooth(40, 40, seed=number), FORMATS.get(suffix, "JPEG"))
        (folder / f"{number:05d}{suffix}").write_bytes(data)
    (record,) = DataConfig(root=str(tmp_path)).open().train.records
    assert record.kind == "frames"
    (clip,) = FramesDecoder().read(record.path, [ClipSpan(0.0, 0.4)], 4)
    assert clip.frames.shape == (3, 4, 40, 40)


def test_show_views_draws_rare_suffixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, suffix in enumerate((".jfif", ".jpe", ".avif")):
        (tmp_path / f"{number}{suffix}").write_bytes(encoded(smooth(40, 40), FORMATS.get(suffix, "JPEG")))
    monkeypatch.chdir(tmp_path)
    cli.main(
        ["show-views", f"data.root={tmp_path}", "views=cifar", f"run.dir={tmp_path / 'run'}", "data.num_workers=0"]
    )
    (sheet,) = (tmp_path / "run").rglob("views.png")
    with Image.open(sheet) as drawn:
        assert drawn.size[0] > 100


def test_a_list_of_heic_photos_without_the_package_is_an_error_with_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_file, "UNREADABLE_SUFFIXES", {".heic": "pip install 'eztorch-sce[heif]'"})
    for name in ("a.heic", "b.HEIC", "c.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text("path\na.heic\nb.HEIC\nc.jpg\n")
    with pytest.raises(
        ConfigError, match=r"names 2 \.heic files, which cannot be read here: run pip install 'eztorch-sce"
    ):
        DataConfig(list=str(tmp_path / "list.csv")).open()


def test_a_folder_counts_heic_photos_that_cannot_be_read_with_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "UNREADABLE_SUFFIXES", {".heic": "pip install 'eztorch-sce[heif]'"})
    monkeypatch.setattr(media_kinds, "IMAGE_SUFFIXES", IMAGE_SUFFIXES - {".heic"})
    for name in ("a.heic", "b.HEIC", "c.jpg"):
        (tmp_path / name).touch()
    assert DataConfig(root=str(tmp_path)).open().train.ignored == {".heic (pip install 'eztorch-sce[heif]')": 2}
    (tmp_path / "c.jpg").unlink()
    with pytest.raises(ConfigError, match=r"only 2 x \.heic \(pip install 'eztorch-sce\[heif\]'\)"):
        DataConfig(root=str(tmp_path)).open()
