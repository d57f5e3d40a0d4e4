"""An own network in every command: a registered config builds it, and its fields are settings (`backbone.width=8`)."""

import tempfile
from dataclasses import dataclass

import eztorch_sce as sce
from torch import nn


@sce.register("backbone", "my_net")
@dataclass
class MyNetConfig:
    """Two convolutions over space and time."""

    width: int = sce.setting(16, at_least=1, help="Channels of the first convolution.")

    def build(self) -> sce.Backbone:
        """Return the network, which maps clips (B, 3, T, H, W) to features (B, F)."""
        first, second = nn.Conv3d(3, self.width, 3, stride=2), nn.Conv3d(self.width, 32, 3, stride=2)
        return sce.as_backbone(nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool3d(1), nn.Flatten()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sce.write_moving_shapes(folder, sce.MovingShapes(num_train=32, num_test=16, num_scenes=1))
        data = sce.DataConfig(root=folder, num_frames=8, clip_s=0.5, batch_size=16, num_workers=0)
        pretraining = sce.PretrainConfig(data=data, backbone=MyNetConfig(width=8), views=sce.views("motion", size=32))
        pretraining.trainer = trainer = sce.TrainerConfig(max_epochs=1, accelerator="cpu")
        pretraining.run.dir = weights = f"{folder}/pretrained"
        sce.pretrain(pretraining)

        test = sce.EvaluationViewsConfig(num_clips=1, num_crops=1)
        knn = sce.KnnConfig(weights=weights, data=data, test=test, run=sce.RunConfig(dir=f"{folder}/knn"))
        print(f"kNN {sce.knn(knn).metrics['knn_top1']:.3f}")
        tuning = sce.FinetuneConfig(weights=weights, data=data, test=test, trainer=trainer)
        tuning.run.dir = f"{folder}/tuned"
        print(f"fine-tuned {sce.finetune(tuning).metrics['test_top1']:.3f}")
