"""ResNets for images, from torchvision and with its parameter names.

Source: He et al., CVPR 2016, arXiv:1512.03385. torchvision's networks are version 1.5, as in every SSL paper that we
compare with: the stride of a bottleneck is in its 3x3 convolution.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from eztorch_sce.models.backbones.base import Backbone, init_convolutions
from eztorch_sce.registry import register


class ResNet2d(Backbone):
    """torchvision's `resnet18`, `resnet34` or `resnet50` without its classifier.

    Args:
        name: One of these three.
        small_input: For images of about 32 px: the first convolution is 3x3 with stride 1, and no max-pool follows.
    """

    takes_clips = False

    def __init__(self, name: str, small_input: bool = False) -> None:
        from torchvision.models import get_model  # late: takes a second

        net = get_model(name, weights=None)
        super().__init__(name, num_features=net.fc.in_features)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        if small_input:
            self.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
            self.maxpool = nn.Identity()
            init_convolutions(self.conv1)

    def features(self, clips: Tensor) -> Tensor:
        """Map (B, C, 1, H, W) to (B, F)."""
        x = clips.squeeze(2)  # (B, C, H, W)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, F, H / 32, W / 32)
        return x.mean(dim=(2, 3))


@register("backbone", "resnet18")
@dataclass
class ResNet18Config:
    """11.2 M parameters, 512 features; see `ResNet2d`."""

    small_input: bool = False

    def build(self) -> Backbone:
        """Build it, untrained."""
        return ResNet2d("resnet18", self.small_input)


@register("backbone", "resnet34")
@dataclass
class ResNet34Config:
    """21.3 M parameters, 512 features; see `ResNet2d`."""

    small_input: bool = False

    def build(self) -> Backbone:
        """Build it, untrained."""
        return ResNet2d("resnet34", self.small_input)


@register("backbone", "resnet50")
@dataclass
class ResNet50Config:
    """23.5 M parameters, 2048 features; see `ResNet2d`."""

    small_input: bool = False

    def build(self) -> Backbone:
        """Build it, untrained."""
        return ResNet2d("resnet50", self.small_input)
