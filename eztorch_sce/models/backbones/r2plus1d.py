"""R(2+1)D-18 from torchvision and R(2+1)D-50 from pytorchvideo, with their public parameter names.

Source: Tran et al., CVPR 2018, arXiv:1711.11248. They reduce time by factors of 8 and 4, and then
average over time and space.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from eztorch_sce.compat import import_pytorchvideo_models
from eztorch_sce.models.backbones.base import Backbone, BlockBackbone
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings


class R2Plus1D18(Backbone):
    """torchvision's `r2plus1d_18` without its classifier."""

    stage_names = ("layer1", "layer2", "layer3", "layer4")

    def __init__(self) -> None:
        from torchvision.models.video import r2plus1d_18  # takes a second to import

        net = r2plus1d_18(weights=None)
        super().__init__("r2plus1d_18", num_features=net.fc.in_features)
        self.stem = net.stem
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4

    def features(self, clips: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized clips."""
        x: Tensor = self.layer1(self.stem(clips))  # (B, 64, T, H / 2, W / 2)
        x = self.layer4(self.layer3(self.layer2(x)))  # (B, F, T / 8, H / 16, W / 16)
        return x.mean(dim=(2, 3, 4))


@register("backbone", "r2plus1d_18")
@dataclass
class R2Plus1D18Config(Settings):
    """R(2+1)D-18 with 31.3 M parameters and 512 features."""

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        return R2Plus1D18()


@register("backbone", "r2plus1d_50")
@dataclass
class R2Plus1D50Config(Settings):
    """R(2+1)D-50 with 27.3 M parameters and 2048 features."""

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        net = import_pytorchvideo_models("r2plus1d").create_r2plus1d(model_depth=50)
        return BlockBackbone("r2plus1d_50", net.blocks[-1].proj.in_features, net.blocks[:-1])
