"""R3D-18 and R3D-50 as in the SCE papers: slow-only ResNets, which never reduce the number of frames.

Source: Denize et al., MVAP 2023, arXiv:2212.11187; the slow pathway of Feichtenhofer et al., ICCV 2019,
arXiv:1812.03982. R3D-50 equals pytorchvideo's `create_resnet(model_depth=50, stem_conv_kernel_size=(1, 7, 7))`. R3D-18
is its counterpart with basic blocks; it differs from torchvision's `r3d_18`. Parameters have pytorchvideo's names.
"""

from collections import OrderedDict
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from eztorch_sce.models.backbones.base import Backbone, BlockBackbone, init_convolutions, zero_batch_norm
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings

_TEMPORAL_KERNELS = (1, 1, 3, 3)  # first convolution of each block, by stage


def _conv(num_in: int, num_out: int, kernel: tuple[int, int, int], stride: int = 1) -> nn.Conv3d:
    """Return a convolution that keeps T and divides H and W by `stride`."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Conv3d(num_in, num_out, kernel, stride=(1, stride, stride), padding=padding, bias=False)


def _basic_branch(num_in: int, num_out: int, temporal_kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv_a=_conv(num_in, num_out, (temporal_kernel, 3, 3), stride),
            norm_a=nn.BatchNorm3d(num_out),
            act_a=nn.ReLU(inplace=True),
            conv_b=_conv(num_out, num_out, (1, 3, 3)),
            norm_b=zero_batch_norm(num_out),
        )
    )


def _bottleneck_branch(num_in: int, num_out: int, temporal_kernel: int, stride: int) -> nn.Sequential:
    num_inner = num_out // 4
    return nn.Sequential(
        OrderedDict(
            conv_a=_conv(num_in, num_inner, (temporal_kernel, 1, 1)),
            norm_a=nn.BatchNorm3d(num_inner),
            act_a=nn.ReLU(inplace=True),
            conv_b=_conv(num_inner, num_inner, (1, 3, 3), stride),
            norm_b=nn.BatchNorm3d(num_inner),
            act_b=nn.ReLU(inplace=True),
            conv_c=_conv(num_inner, num_out, (1, 1, 1)),
            norm_c=zero_batch_norm(num_out),
        )
    )


class _ResidualBlock(nn.Module):
    """Residual branch `branch2` beside a shortcut, which is the identity unless the shape changes."""

    def __init__(self, num_in: int, num_out: int, temporal_kernel: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        self.branch1_conv: nn.Module = nn.Identity()
        self.branch1_norm: nn.Module = nn.Identity()
        if num_in != num_out or stride != 1:
            self.branch1_conv = _conv(num_in, num_out, (1, 1, 1), stride)
            self.branch1_norm = nn.BatchNorm3d(num_out)
        make_branch = _bottleneck_branch if bottleneck else _basic_branch
        self.branch2 = make_branch(num_in, num_out, temporal_kernel, stride)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C2 T H2 W2"]:
        result: Tensor = self.activation(self.branch1_norm(self.branch1_conv(x)) + self.branch2(x))
        return result


def _build(name: str, depths: tuple[int, ...], bottleneck: bool) -> BlockBackbone:
    """Stack a stem of spatial stride 4 and four stages; the last three halve height and width."""
    stem = nn.Sequential(
        OrderedDict(
            conv=_conv(3, 64, (1, 7, 7), stride=2),
            norm=nn.BatchNorm3d(64),
            activation=nn.ReLU(inplace=True),
            pool=nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        )
    )
    blocks = nn.ModuleList([stem])
    num_in = 64
    for stage, (depth, temporal_kernel) in enumerate(zip(depths, _TEMPORAL_KERNELS, strict=True)):
        num_out = (256 if bottleneck else 64) * 2**stage
        res_blocks = nn.Sequential()
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            res_blocks.append(_ResidualBlock(num_in, num_out, temporal_kernel, stride, bottleneck))
            num_in = num_out
        blocks.append(nn.Sequential(OrderedDict(res_blocks=res_blocks)))
    backbone = BlockBackbone(name, num_in, blocks)
    init_convolutions(backbone)
    return backbone


@register("backbone", "r3d18")
@dataclass
class R3D18Config(Settings):
    """R3D-18 with 20.0 M parameters and 512 features."""

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        return _build("r3d18", depths=(2, 2, 2, 2), bottleneck=False)


@register("backbone", "r3d50")
@dataclass
class R3D50Config(Settings):
    """R3D-50 with 31.6 M parameters and 2048 features."""

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        return _build("r3d50", depths=(3, 4, 6, 3), bottleneck=True)
