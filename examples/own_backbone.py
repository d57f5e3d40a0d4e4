"""Your own network in every command: register a config that builds it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from eztorch_sce import api
from eztorch_sce.config.compose import compose
from eztorch_sce.curation.synthetic import MovingShapes, write_moving_shapes
from eztorch_sce.models.backbones.base import Backbone, NetworkBackbone
from eztorch_sce.registry import register
from torch import nn


@register("backbone", "my_net")
@dataclass
class MyNetConfig:
    """Two convolutions over space and time; every field is a setting, as in `backbone.width=8`."""

    width: int = 16

    def build(self) -> Backbone:
        """Return the network, which maps clips (B, 3, T, H, W) to features (B, F)."""
        first, second = nn.Conv3d(3, self.width, 3, stride=2), nn.Conv3d(self.width, 32, 3, stride=2)
        network = nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool3d(1), nn.Flatten())
        return NetworkBackbone("my_net", num_features=32, network=network)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_moving_shapes(Path(folder), MovingShapes(num_train=32, num_test=16, num_scenes=1), num_processes=1)
        data = [f"data.root={folder}/train", f"data.test_root={folder}/test", "data.num_frames=8", "data.clip_s=0.5"]
        training = [*data, "views=motion", "views.*.size=32", "data.batch_size=16", "trainer.max_epochs=1"]
        api.pretrain(compose("pretrain", ["backbone=my_net", "backbone.width=8", *training, f"run.dir={folder}/run"]))
        report = api.knn(compose("knn", [f"weights={folder}/run", *data, f"run.dir={folder}/knn", "k=5"]))
        print(report.metrics)
