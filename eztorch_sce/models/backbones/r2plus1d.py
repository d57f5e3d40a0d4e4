"""R(2+1)D-34 as published, and R(2+1)D-50 from pytorchvideo with its public parameter names.

Source: Tran et al., CVPR 2018, arXiv:1711.11248. R(2+1)D-34 reduces time by 8, and R(2+1)D-50 by 4.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from eztorch_sce.compat import import_pytorchvideo_models
from eztorch_sce.models.backbones.base import Backbone, BlockBackbone, init_convolutions
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, setting


def _width(num_in: int, num_out: int, time: int, space: int) -> int:
    """Return the channels between space and time with which a split convolution has as many weights as a whole one."""
    return time * space**2 * num_in * num_out // (space**2 * num_in + time * num_out)


def _split(num_in: int, width: int, num_out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Sequential:
    """Return a convolution over space and one over time; `kernel` and `stride` are of time and of space."""
    (time, space), (time_stride, space_stride) = kernel, stride
    in_space = ((1, space, space), (1, space_stride, space_stride), (0, space // 2, space // 2))
    in_time = ((time, 1, 1), (time_stride, 1, 1), (time // 2, 0, 0))
    return nn.Sequential(
        nn.Conv3d(num_in, width, *in_space, bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
        nn.Conv3d(width, num_out, *in_time, bias=False),
    )


class _ResidualBlock(nn.Module):
    """Two split convolutions beside a shortcut, which is split too where the shape changes."""

    def __init__(self, num_in: int, num_out: int, stride: int, norm_eps: float, wide_shortcut: bool) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            _split(num_in, _width(num_in, num_out, 3, 3), num_out, (3, 3), (stride, stride)),
            nn.BatchNorm3d(num_out, eps=norm_eps),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(
            _split(num_out, _width(num_out, num_out, 3, 3), num_out, (3, 3), (1, 1)),
            nn.BatchNorm3d(num_out, eps=norm_eps),
        )
        self.downsample: nn.Module = nn.Identity()
        if num_in != num_out:
            width = _width(num_in, num_out, 3 if wide_shortcut else 1, 1)
            self.downsample = nn.Sequential(
                _split(num_in, width, num_out, (1, 1), (stride, stride)), nn.BatchNorm3d(num_out, eps=norm_eps)
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C2 T2 H2 W2"]:
        result: Tensor = self.relu(self.conv2(self.conv1(x)) + self.downsample(x))
        return result


class R2Plus1D(Backbone):
    """A network of basic blocks in which every convolution is split. Parameters are named as in torchvision's networks.

    Unlike those, it also splits the shortcuts, gives each convolution a width of its own between space and time, and
    may pool after the stem.

    Args:
        num_blocks: Residual blocks of each of the four stages.
        stem_width: Channels between the two convolutions of the stem.
        stem_pool: Whether a max-pooling follows the stem.
        norm_eps: Epsilon of batch norm, except of those between the two parts of a convolution, where it is 1e-5.
        wide_shortcuts: Whether the width of a shortcut is that of a kernel of 3 frames, although it has 1.
    """

    stage_names = ("layer1", "layer2", "layer3", "layer4")

    def __init__(
        self, num_blocks: list[int], stem_width: int, stem_pool: bool, norm_eps: float, wide_shortcuts: bool
    ) -> None:
        super().__init__("r2plus1d_34", num_features=512)
        self.stem = nn.Sequential(
            *_split(3, stem_width, 64, (3, 7), (1, 2)), nn.BatchNorm3d(64, eps=norm_eps), nn.ReLU(inplace=True)
        )
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)) if stem_pool else nn.Identity()
        num_in = 64
        for stage, count in enumerate(num_blocks):
            num_out = 64 * 2**stage
            layer = nn.Sequential()
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                layer.append(_ResidualBlock(num_in, num_out, stride, norm_eps, wide_shortcuts))
                num_in = num_out
            self.add_module(f"layer{stage + 1}", layer)
        init_convolutions(self)

    def features(self, clips: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B F"]:
        """Return pooled features of normalized clips."""
        x: Tensor = self.maxpool(self.stem(clips))
        for name in self.stage_names:
            x = getattr(self, name)(x)
        return x.mean(dim=(2, 3, 4))


@register("backbone", "r2plus1d_34")
@dataclass
class R2Plus1D34Config(Settings):
    """R(2+1)D-34 with 63.6 M parameters and 512 features."""

    num_blocks: list[int] = setting([3, 4, 6, 3], at_least=1, help="Residual blocks of each of the four stages.")
    stem_width: int = setting(83, at_least=1, help="Channels between space and time in the stem.")
    stem_pool: bool = setting(True, help="Pool after the stem, as in mmaction2.")
    norm_eps: float = setting(
        1e-3, above=0, help="Epsilon of batch norm after a convolution; between its parts, it is 1e-5."
    )
    wide_shortcuts: bool = setting(
        True, help="Width of split shortcuts as for kernels of 3 frames, as in mmaction2, instead of 1."
    )

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        return R2Plus1D(self.num_blocks, self.stem_width, self.stem_pool, self.norm_eps, self.wide_shortcuts)


@register("backbone", "r2plus1d_50")
@dataclass
class R2Plus1D50Config(Settings):
    """R(2+1)D-50 with 27.3 M parameters and 2048 features."""

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        net = import_pytorchvideo_models("r2plus1d").create_r2plus1d(model_depth=50)
        return BlockBackbone("r2plus1d_50", net.blocks[-1].proj.in_features, net.blocks[:-1])
