"""X3D-XS, S, M and L from pytorchvideo, with their public parameter names.

Source: Feichtenhofer, CVPR 2020, arXiv:2004.04730. XS, S and M are the same network, published for different clips (4
frames of 160 px, 13 of 160 and 16 of 224; L: 16 of 312). Here, each accepts clips of any size.
"""

from dataclasses import dataclass

from torch import nn

from eztorch_sce.compat import import_pytorchvideo_models
from eztorch_sce.models.backbones.base import Backbone, BlockBackbone
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings


def _build(name: str, depth_factor: float) -> BlockBackbone:
    """Build the network up to the input of its classifier."""
    # SiLU equals pytorchvideo's Swish, which calls a deprecated function of torch.
    blocks = import_pytorchvideo_models("x3d").create_x3d(depth_factor=depth_factor, inner_act=nn.SiLU).blocks
    head = blocks[-1]
    num_features = head.proj.in_features
    head.pool.pool = nn.AdaptiveAvgPool3d(1)  # instead of a window of the published clip size
    head.dropout = head.proj = head.activation = head.output_pool = None
    return BlockBackbone(name, num_features, blocks)


@register("backbone", "x3d_xs")
@dataclass
class X3DXSConfig(Settings):
    """X3D-XS with 3.0 M parameters and 2048 features."""

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        return _build("x3d_xs", depth_factor=2.2)


@register("backbone", "x3d_s")
@dataclass
class X3DSConfig(Settings):
    """X3D-S with 3.0 M parameters and 2048 features."""

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        return _build("x3d_s", depth_factor=2.2)


@register("backbone", "x3d_m")
@dataclass
class X3DMConfig(Settings):
    """X3D-M with 3.0 M parameters and 2048 features."""

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        return _build("x3d_m", depth_factor=2.2)


@register("backbone", "x3d_l")
@dataclass
class X3DLConfig(Settings):
    """X3D-L with 5.3 M parameters and 2048 features."""

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        return _build("x3d_l", depth_factor=5.0)
