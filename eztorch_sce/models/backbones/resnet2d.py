"""ResNets for images from torchvision, with their public parameter names.

Source: He et al., CVPR 2016, arXiv:1512.03385. torchvision implements version 1.5, with the stride of a bottleneck in
its 3x3 convolution, as do the self-supervised papers that we compare with.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from eztorch_sce.models.backbones.base import Backbone, init_convolutions
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, setting


class ResNet2d(Backbone):
    """A ResNet of torchvision without its classifier.

    Args:
        name: "resnet18", "resnet34" or "resnet50".
        small_input: Use a stem for images of about 32 px: a 3x3 convolution with stride 1 and no max-pooling.
    """

    takes_clips = False
    stage_names = ("layer1", "layer2", "layer3", "layer4")

    def __init__(self, name: str, small_input: bool = False) -> None:
        from torchvision.models import get_model  # takes a second to import

        net = get_model(name, weights=None)
        super().__init__(name, num_features=net.fc.in_features)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        if small_input:
            self.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
            self.maxpool = nn.Identity()
            init_convolutions(self.conv1)

    def features(self, clips: Float[Tensor, "B C 1 H W"]) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized images."""
        x: Tensor = clips.squeeze(2)  # (B, C, H, W)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, F, H / 32, W / 32)
        return x.mean(dim=(2, 3))


@dataclass
class ResNetConfig(Settings):
    """Settings shared by the ResNets."""

    name: ClassVar[str]
    small_input: bool = setting(
        False, help="Stem for images of about 32 px: a 3x3 convolution with stride 1 and no max-pooling."
    )

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        return ResNet2d(self.name, self.small_input)


@register("backbone", "resnet18")
@dataclass
class ResNet18Config(ResNetConfig):
    """ResNet-18 with 11.2 M parameters and 512 features."""

    name = "resnet18"


@register("backbone", "resnet34")
@dataclass
class ResNet34Config(ResNetConfig):
    """ResNet-34 with 21.3 M parameters and 512 features."""

    name = "resnet34"


@register("backbone", "resnet50")
@dataclass
class ResNet50Config(ResNetConfig):
    """ResNet-50 with 23.5 M parameters and 2048 features."""

    name = "resnet50"
