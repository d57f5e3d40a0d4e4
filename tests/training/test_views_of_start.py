"""Tests of the views that a training keeps of its first batch."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from eztorch_sce import api
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig


def test_each_tile_shows_its_record_and_a_resumed_run_keeps_them(images: Path, tmp_path: Path) -> None:
    (images / "train" / "a" / "broken.png").write_bytes(b"no image")
    config = PretrainConfig(
        data=DataConfig(root=str(images / "train"), batch_size=6, num_workers=0, max_unreadable=0.5),
        views=[ViewConfig(size=32, flip=1), ViewConfig(size=16, scale=[0.5, 0.5])],
        backbone=SmallR2Plus1DConfig(width=4, num_blocks=1),
        method=MomentumContrastConfig(ProjectorConfig(hidden_dim=16, output_dim=8), queue_size=32),
    )
    config.run.dir, config.trainer.max_epochs, config.trainer.accelerator = str(tmp_path / "run"), 1, "cpu"
    api.pretrain(config)
    shown = json.loads((tmp_path / "run/views.json").read_text())
    with Image.open(tmp_path / "run/views_tiles.webp") as tiles:
        rows = np.asarray(tiles.convert("RGB")).reshape(-1, 2, shown["tile_px"], shown["tile_px"], 3)
    assert len(rows) == len(shown["records"]) >= 5  # records, two views each, one frame
    for record, views in zip(shown["records"], rows, strict=True):
        with Image.open(record["path"]) as image:
            assert record["size"] == [40, 40]
            inner = views[:, 16:-16, 16:-16]  # lossy compression mixes neighbors at their edges
            assert np.abs(inner - np.asarray(image)[0, 0].astype(int)).max() < 12
        first, second = record["views"]
        assert (first[0], first[-1]) == ("view 0: 32 px", "flipped")
        assert second[0] == "view 1: 16 px"
        assert 45 <= int(second[1].split("%")[0].removeprefix("crop ")) <= 55
    before = (tmp_path / "run/views_tiles.webp").read_bytes()
    config.trainer.max_epochs = 2
    api.pretrain(config)
    assert (tmp_path / "run/views_tiles.webp").read_bytes() == before
