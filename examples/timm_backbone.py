"""A network of timm as the backbone, as any module that maps clips or images (B, 3, H, W) to features (B, F)."""

import tempfile
from dataclasses import dataclass

import eztorch_sce as sce


@sce.register("backbone", "timm")
@dataclass
class TimmConfig:
    """A network of timm without its classifier; `backbone.model=vit_tiny_patch16_224` on the command line."""

    model: str = sce.setting("resnet10t", help="Name of the network in timm.")

    def build(self) -> sce.Backbone:
        """Return the network, randomly initialized."""
        import timm  # takes a second to import

        network = timm.create_model(self.model, pretrained=False, num_classes=0)  # num_classes=0: pooled features
        return sce.as_backbone(network, name=self.model, stage_names=["layer1", "layer2", "layer3", "layer4"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sce.write_moving_shapes(folder, sce.MovingShapes(num_train=32, num_test=16, num_scenes=1))
        data = sce.DataConfig(root=folder, num_frames=1, batch_size=16, num_workers=0)
        config = sce.PretrainConfig(data=data, backbone=TimmConfig(), views=sce.views("small_image"))
        config.trainer = sce.TrainerConfig(max_epochs=1, accelerator="cpu")
        config.run.dir = f"{folder}/run"
        print(sce.pretrain(config).metrics)
        evaluation = sce.KnnConfig(weights=f"{folder}/run", data=data, run=sce.RunConfig(dir=f"{folder}/knn"))
        evaluation.test = sce.EvaluationViewsConfig(num_clips=1, num_crops=1)
        print(sce.knn(evaluation).metrics)
