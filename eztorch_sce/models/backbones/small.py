"""A (2+1)D residual network small enough to train on a CPU; ours, not published.

Every 3x3x3 convolution is one over space (1x3x3) and one over time (3x1x1), as in R(2+1)D (Tran et al., CVPR 2018,
arXiv:1711.11248).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eztorch_sce.models.backbones.base import Backbone, init_convolutions
from eztorch_sce.registry import register


def _over_space(num_in: int, num_out: int, kernel: int, stride: int) -> nn.Conv3d:
    half = kernel // 2
    return nn.Conv3d(
        num_in, num_out, (1, kernel, kernel), stride=(1, stride, stride), padding=(0, half, half), bias=False
    )


def _over_time(num_in: int, num_out: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(num_in, num_out, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False)


class _ResidualBlock(nn.Module):
    """Space, then time, beside a shortcut."""

    def __init__(self, num_in: int, num_out: int, space_stride: int, time_stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _over_space(num_in, num_out, 3, space_stride),
            nn.BatchNorm3d(num_out),
            nn.ReLU(inplace=True),
            _over_time(num_out, num_out, time_stride),
            nn.BatchNorm3d(num_out),  # not silent at first: short trainings need the branch from the start
        )
        self.shortcut: nn.Module = nn.Identity()
        if num_in != num_out:
            stride = (time_stride, space_stride, space_stride)
            self.shortcut = nn.Sequential(
                nn.Conv3d(num_in, num_out, 1, stride=stride, bias=False), nn.BatchNorm3d(num_out)
            )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.shortcut(x) + self.branch(x))


class SmallR2Plus1D(Backbone):
    """A stem, stride 2 in space, and four stages; the last three halve space, the last two halve time as well.

    Made for 8 to 16 frames of 64 to 112 px; takes any T >= 1 and any H, W >= 32.

    Args:
        width: Channels of the first stage, doubled by each of the three others; F = 8 * width.
        num_blocks: Residual blocks in each stage but the first, which has one: a block costs most there.

    Raises:
        ValueError: If either is below 1.
    """

    def __init__(self, width: int, num_blocks: int) -> None:
        if width < 1 or num_blocks < 1:
            raise ValueError(f"width={width} and num_blocks={num_blocks} must each be at least 1")
        super().__init__("r2plus1d_small", num_features=8 * width)
        self.stem = nn.Sequential(
            _over_space(3, width, 5, 2),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
            _over_time(width, width),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.Sequential()
        num_in = width
        for stage, (space_stride, time_stride) in enumerate(((1, 1), (2, 1), (2, 2), (2, 2))):
            num_out = width * 2**stage
            blocks = [_ResidualBlock(num_in, num_out, space_stride, time_stride)]
            if stage > 0:
                blocks += [_ResidualBlock(num_out, num_out, 1, 1) for _ in range(num_blocks - 1)]
            self.stages.append(nn.Sequential(*blocks))
            num_in = num_out
        init_convolutions(self)

    def features(self, clips: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to (B, F)."""
        # Channels last: a training step takes 0.6 to 0.85 of the time on a CPU.
        x = clips.contiguous(memory_format=torch.channels_last_3d)
        x = self.stages(self.stem(x))  # (B, F, T / 4, H / 16, W / 16)
        return x.mean(dim=(2, 3, 4))


@register("backbone", "r2plus1d_small")
@dataclass
class SmallR2Plus1DConfig:
    """See `SmallR2Plus1D`."""

    width: int = 32
    num_blocks: int = 2

    def build(self) -> Backbone:
        """Build it, untrained."""
        return SmallR2Plus1D(self.width, self.num_blocks)
