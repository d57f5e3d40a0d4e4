"""S3D and S3D-G: an Inception network whose convolutions alternate between space and time.

Source: Xie et al., ECCV 2018, arXiv:1712.04851. They reduce time by 8, and height and width by 32.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from eztorch_sce.models.backbones.base import Backbone, BlockBackbone, init_convolutions
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, setting

_Widths = tuple[int, int, int, int, int, int]
_STAGES: tuple[tuple[_Widths, ...], ...] = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
"""Channels of the branches of each Inception block, see `_InceptionBlock`, by stage; a pool separates two stages."""
_WINDOW = (2, 7, 7)  # that torchvision averages over before it averages the windows


def _convolution(
    num_in: int,
    num_out: int,
    norm_eps: float,
    kernel: tuple[int, int, int] = (1, 1, 1),
    strides: tuple[int, int] = (1, 1),
) -> nn.Sequential:
    """Return a convolution, batch norm and ReLU; `strides` are those of time and of space."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    stride = (strides[0], strides[1], strides[1])
    return nn.Sequential(
        nn.Conv3d(num_in, num_out, kernel, stride, padding, bias=False),
        nn.BatchNorm3d(num_out, eps=norm_eps),
        nn.ReLU(inplace=True),
    )


def _separable(
    num_in: int, num_out: int, norm_eps: float, size: int, strides: tuple[int, int] = (1, 1)
) -> nn.Sequential:
    """Return a convolution over space followed by one over time."""
    return nn.Sequential(
        _convolution(num_in, num_out, norm_eps, (1, size, size), (1, strides[1])),
        _convolution(num_out, num_out, norm_eps, (size, 1, 1), (strides[0], 1)),
    )


class _Gate(nn.Module):
    """Self-gating of S3D-G: scale each channel by a function of the averages of all."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(num_channels, num_channels)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T H W"]:
        scale: Tensor = torch.sigmoid(self.fc(x.mean(dim=(2, 3, 4))))
        return x * scale[:, :, None, None, None]


class _InceptionBlock(nn.Module):
    """Four branches side by side.

    Args:
        num_in: Channels of the input.
        widths: Channels of branch 0; of the first and last convolution of branch 1; the same for branch 2; of branch 3.
        norm_eps: Epsilon of batch norm.
        gating: Whether each branch ends in a gate.
    """

    def __init__(self, num_in: int, widths: _Widths, norm_eps: float, gating: bool) -> None:
        super().__init__()
        width_0, inner_1, width_1, inner_2, width_2, width_3 = widths
        self.branch0 = _convolution(num_in, width_0, norm_eps)
        self.branch1 = nn.Sequential(
            _convolution(num_in, inner_1, norm_eps), _separable(inner_1, width_1, norm_eps, size=3)
        )
        self.branch2 = nn.Sequential(
            _convolution(num_in, inner_2, norm_eps), _separable(inner_2, width_2, norm_eps, size=3)
        )
        self.branch3 = nn.Sequential(
            nn.MaxPool3d(kernel_size=3, stride=1, padding=1), _convolution(num_in, width_3, norm_eps)
        )
        self.num_out = width_0 + width_1 + width_2 + width_3
        for number, width in enumerate((width_0, width_1, width_2, width_3)):
            self.add_module(f"gating_b{number}", _Gate(width) if gating else nn.Identity())

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C2 T H W"]:
        branches = (self.branch0, self.branch1, self.branch2, self.branch3)
        gates = (getattr(self, f"gating_b{number}") for number in range(len(branches)))
        return torch.cat([gate(branch(x)) for branch, gate in zip(branches, gates, strict=True)], dim=1)


class _HalvingPool(nn.Module):
    """Maximum over windows of 2 x 2 x 2. An axis of size 1 keeps it, so that images and short clips pass."""

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C T2 H2 W2"]:
        kernel = [min(2, size) for size in x.shape[2:]]
        return functional.max_pool3d(x, kernel, stride=2)


class S3D(BlockBackbone):
    """S3D, or S3D-G with gates.

    Args:
        norm_eps: Epsilon of batch norm.
        gating: Whether the branches of its blocks end in gates, as in S3D-G.
        stem_time_stride: Stride of the first convolution over time.
        pool: "mean" averages the last feature map; "windows" averages it over windows of 2 x 7 x 7, which overlap, and
            then averages the windows, so that the inner part of a larger map weighs more.
    """

    stage_names = ("blocks.3", "blocks.6", "blocks.12", "blocks.15")

    def __init__(self, norm_eps: float, gating: bool, stem_time_stride: int, pool: str) -> None:
        blocks = nn.ModuleList(
            [
                _separable(3, 64, norm_eps, size=7, strides=(stem_time_stride, 2)),
                nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
                _convolution(64, 64, norm_eps),
                _separable(64, 192, norm_eps, size=3),
                nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            ]
        )
        pools = (nn.MaxPool3d(3, stride=2, padding=1), _HalvingPool(), None)
        num_channels = 192
        for stage, pool_after in zip(_STAGES, pools, strict=True):
            for widths in stage:
                block = _InceptionBlock(num_channels, widths, norm_eps, gating)
                blocks.append(block)
                num_channels = block.num_out
            if pool_after is not None:
                blocks.append(pool_after)
        super().__init__("s3d", num_channels, blocks)
        self.pool = pool
        init_convolutions(self)

    def features(self, clips: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized clips."""
        x = clips
        for block in self.blocks:
            x = block(x)
        if self.pool == "windows":
            x = functional.avg_pool3d(x, [min(*sizes) for sizes in zip(_WINDOW, x.shape[2:], strict=True)], stride=1)
        return x.mean(dim=(2, 3, 4))


@register("backbone", "s3d")
@dataclass
class S3DConfig(Settings):
    """S3D with 7.9 M parameters and 1024 features."""

    norm_eps: float = setting(1e-3, above=0, help="Epsilon of batch norm: 1e-3 as published, 1e-5 in CoCLR.")
    gating: bool = setting(False, help="End each branch of a block in a gate, as in S3D-G.")
    stem_time_stride: int = setting(
        2, at_least=1, help="Stride of the first convolution over time; 1 keeps all frames."
    )
    pool: str = setting(
        "mean",
        choices=("mean", "windows"),
        help="Average the last feature map at once, or over windows of 2 x 7 x 7 first, as torchvision does.",
    )

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        return S3D(self.norm_eps, self.gating, self.stem_time_stride, self.pool)
