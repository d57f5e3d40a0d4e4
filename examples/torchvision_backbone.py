"""A network of torchvision as the backbone, as any module that maps clips or images (B, 3, H, W) to features (B, F)."""

import tempfile
from dataclasses import dataclass

import eztorch_sce as sce


@sce.register("backbone", "shufflenet")
@dataclass
class ShuffleNetConfig:
    """A ShuffleNet V2 without its classifier; `backbone.width=x1_0` on the command line."""

    width: str = sce.setting("x0_5", choices=["x0_5", "x1_0", "x1_5", "x2_0"], help="Width of its layers.")

    def build(self) -> sce.Backbone:
        """Return the network, randomly initialized."""
        from torch import nn
        from torchvision.models import get_model  # takes a second to import

        network = get_model(f"shufflenet_v2_{self.width}", weights=None)
        network.fc = nn.Identity()  # instead of the classifier: pooled features
        return sce.as_backbone(network, name="shufflenet", stage_names=["stage2", "stage3", "stage4"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sce.write_moving_shapes(folder, sce.MovingShapes(num_train=32, num_test=16, num_scenes=1))
        data = sce.DataConfig(root=folder, num_frames=1, batch_size=16, num_workers=0)
        config = sce.PretrainConfig(data=data, backbone=ShuffleNetConfig(), views=sce.views("small_image"))
        config.trainer = sce.TrainerConfig(max_epochs=1, accelerator="cpu")
        config.run.dir = f"{folder}/run"
        print(sce.pretrain(config).metrics)
        evaluation = sce.KnnConfig(weights=f"{folder}/run", data=data, run=sce.RunConfig(dir=f"{folder}/knn"))
        evaluation.test = sce.EvaluationViewsConfig(num_clips=1, num_crops=1)
        print(sce.knn(evaluation).metrics)
