"""R3D-18, MC3-18 and R(2+1)D-18 from torchvision, with their public parameter names.

Source: Tran et al., CVPR 2018, arXiv:1711.11248. `r3d_18` differs from the `r3d18` of the SCE papers, which never
reduces the number of frames; the networks here reduce it by 8 (`mc3_18`: not at all), and height and width by 16.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from eztorch_sce.models.backbones.base import Backbone, init_convolutions
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, setting


class VideoResNet(Backbone):
    """A video ResNet of torchvision without its classifier.

    Args:
        name: "r3d_18", "mc3_18" or "r2plus1d_18".
        dilate_last: Whether the last stage keeps the number of frames: its first convolution, a 3-D one, has a dilation
            of 2 over time in place of a stride of 2 (Dave et al., CVIU 2022, arXiv:2101.07974).
    """

    stage_names = ("layer1", "layer2", "layer3", "layer4")

    def __init__(self, name: str, dilate_last: bool = False) -> None:
        from torchvision.models import get_model  # takes a second to import

        net = get_model(name, weights=None)
        super().__init__(name, num_features=net.fc.in_features)
        self.stem = net.stem
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        if dilate_last:
            _dilate(self.layer4[0])

    def features(self, clips: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized clips."""
        x: Tensor = self.layer1(self.stem(clips))  # (B, 64, T, H / 2, W / 2)
        x = self.layer4(self.layer3(self.layer2(x)))  # (B, F, T / 8, H / 16, W / 16)
        return x.mean(dim=(2, 3, 4))


def _dilate(block: Any) -> None:  # a block of torchvision, whose parts have no types
    """Replace the temporal stride of the first block of a stage by a dilation in its first convolution."""
    shortcut = block.downsample[0]
    dilated = nn.Conv3d(
        shortcut.in_channels, shortcut.out_channels, 3, (1, 2, 2), padding=(2, 1, 1), dilation=(2, 1, 1), bias=False
    )
    init_convolutions(dilated)
    block.conv1[0] = dilated
    shortcut.stride = (1, 2, 2)


@dataclass
class _VideoResNetConfig(Settings):
    """Settings shared by the networks whose last stage may be dilated."""

    name: ClassVar[str]
    dilate_last: bool = setting(
        False, help="Keep the number of frames in the last stage, with a dilation in place of a stride, as in TCLR."
    )

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        return VideoResNet(self.name, self.dilate_last)


@register("backbone", "r3d_18")
@dataclass
class TorchvisionR3D18Config(_VideoResNetConfig):
    """R3D-18 of torchvision with 33.2 M parameters and 512 features."""

    name = "r3d_18"


@register("backbone", "mc3_18")
@dataclass
class MC318Config(Settings):
    """MC3-18 with 11.5 M parameters and 512 features."""

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        return VideoResNet("mc3_18")


@register("backbone", "r2plus1d_18")
@dataclass
class R2Plus1D18Config(_VideoResNetConfig):
    """R(2+1)D-18 with 31.3 M parameters and 512 features."""

    name = "r2plus1d_18"
