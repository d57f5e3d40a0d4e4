"""Feature maps of a pretrained ResNet for detection, and its weights in torchvision's own network."""

import json
import tempfile

import eztorch_sce as sce
import torch
from safetensors import safe_open
from torchvision.models import resnet18
from torchvision.ops import FeaturePyramidNetwork

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sce.write_moving_shapes(folder, sce.MovingShapes(num_train=16, num_test=8, num_scenes=1))
        data = sce.DataConfig(root=folder, num_frames=1, batch_size=8, num_workers=0)
        config = sce.PretrainConfig(data=data, backbone=sce.ResNet18Config(), views=sce.views("image", size=32))
        config.trainer, config.run.dir = sce.TrainerConfig(max_epochs=1, accelerator="cpu"), f"{folder}/run"
        sce.pretrain(config)

        backbone = sce.load_backbone(f"{folder}/run")
        with safe_open(f"{folder}/run/backbone.safetensors", "pt") as file:  # as other programs do
            normalization = json.loads(file.metadata()["card"])["normalization"]  # mean and std

    images = torch.rand(2, 3, 224, 224)
    maps = backbone.feature_maps(images)  # layer1 to layer4: (2, 64, 56, 56) to (2, 512, 7, 7)
    pyramid = FeaturePyramidNetwork(list(backbone.stage_channels().values()), out_channels=256)(maps)
    print({name: tuple(level.shape) for name, level in pyramid.items()})

    network = resnet18()
    missing = network.load_state_dict(backbone.state_dict(), strict=False)  # the names are torchvision's
    network.fc = torch.nn.Identity()
    print(missing, torch.allclose(network.eval()(images), backbone(images), atol=1e-5), normalization)
