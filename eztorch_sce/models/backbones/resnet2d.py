"""ResNets for images from torchvision, with their public parameter names.

Source: He et al., CVPR 2016, arXiv:1512.03385. torchvision implements version 1.5, with the stride of a bottleneck in
its 3x3 convolution, as do the self-supervised papers that we compare with. Further settings express what networks of
other code bases compute with tensors of the same names and shapes.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
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
        padding: Zeros around the input of the first convolution; None is half its kernel, 3 or 1.
        tf_padding: Pad before strides as "SAME" does in TensorFlow and JAX: for an input of even size, one zero less
            on the left and at the top.
        norm_eps: Epsilon of batch norm, > 0.
        stride_in_1x1: Stride in the first 1x1 convolution of a bottleneck instead of in its 3x3 convolution.
    """

    takes_clips = False
    stage_names = ("layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        name: str,
        small_input: bool = False,
        padding: int | None = None,
        tf_padding: bool = False,
        norm_eps: float = 1e-5,
        stride_in_1x1: bool = False,
    ) -> None:
        from torchvision.models import get_model  # takes a second to import

        net = get_model(name, weights=None)
        super().__init__(name, num_features=net.fc.in_features)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        if small_input:
            self.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
            self.maxpool = nn.Identity()
            init_convolutions(self.conv1)
        if padding is not None:
            self.conv1.padding = (padding, padding)
        if stride_in_1x1:
            self._stride_in_1x1()
        if tf_padding:
            self._pad_as_same()
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = norm_eps

    def features(self, clips: Float[Tensor, "B C 1 H W"]) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized images."""
        x: Tensor = clips.squeeze(2)  # (B, C, H, W)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, F, H / 32, W / 32)
        return x.mean(dim=(2, 3))

    def _stride_in_1x1(self) -> None:
        """Move the stride of each bottleneck to its first convolution."""
        for stage in (self.layer2, self.layer3, self.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride

    def _pad_as_same(self) -> None:
        """Replace the padding of all strided convolutions and of the max-pooling."""
        for module in list(self.modules()):
            if isinstance(module, nn.Conv2d) and module.stride[0] > 1 and module.kernel_size[0] > 1:
                module.register_forward_pre_hook(_pad_input_as_same)
                module.padding = (0, 0)
            elif isinstance(module, nn.MaxPool2d):
                module.register_forward_pre_hook(_pad_input_as_same)
                module.padding = 0


def _pad_input_as_same(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    """Return the input of a layer with the zeros of "SAME", as a forward hook. Before the max-pooling, 0 is least."""
    assert isinstance(module, nn.Conv2d | nn.MaxPool2d)
    (x,) = inputs
    kernel, stride = (size if isinstance(size, int) else size[0] for size in (module.kernel_size, module.stride))
    padding: list[int] = []
    for length in (x.shape[3], x.shape[2]):  # width first, as F.pad has it
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding)


@dataclass
class ResNetConfig(Settings):
    """Settings shared by the ResNets."""

    name: ClassVar[str]
    small_input: bool = setting(
        False, help="Stem for images of about 32 px: a 3x3 convolution with stride 1 and no max-pooling."
    )

    padding: int | None = setting(
        None, at_least=0, help="Zeros around the input of the first convolution; null is half its kernel."
    )
    tf_padding: bool = setting(False, help="Pad before strides as SAME does in TensorFlow and JAX.")
    norm_eps: float = setting(1e-5, above=0, help="Epsilon of batch norm.")

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        return ResNet2d(self.name, self.small_input, self.padding, self.tf_padding, self.norm_eps)

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per rule across settings that is broken."""
        if self.tf_padding and self.padding is not None and not self.small_input:
            settings = f"{prefix}.tf_padding=true and {prefix}.padding={self.padding}"
            return [f"{settings} both pad the first convolution: leave out one"]
        return []


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
    stride_in_1x1: bool = setting(
        False, help="Stride in the first 1x1 convolution of a bottleneck, as in Caffe; false is in its 3x3 convolution."
    )

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        return ResNet2d(self.name, self.small_input, self.padding, self.tf_padding, self.norm_eps, self.stride_in_1x1)
