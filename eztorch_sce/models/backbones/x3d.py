"""X3D-XS, S, M and L from pytorchvideo, with its parameter names.

Source: Feichtenhofer, CVPR 2020, arXiv:2004.04730. XS, S and M are one network: they differ in the clips that they are
published for (4 frames of 160 px, 13 of 160, 16 of 224; L: 16 of 312), and here each takes clips of any size.
"""

from dataclasses import dataclass

from torch import nn

from eztorch_sce.compat import import_pytorchvideo_models
from eztorch_sce.models.backbones.base import Backbone, BlockBackbone
from eztorch_sce.registry import register


def _build(name: str, depth_factor: float) -> BlockBackbone:
    """Build the net without its classifier; the features are what the classifier sees."""
    # SiLU is its Swish, without a function of torch that is deprecated.
    blocks = import_pytorchvideo_models("x3d").create_x3d(depth_factor=depth_factor, inner_act=nn.SiLU).blocks
    head = blocks[-1]
    num_features = head.proj.in_features
    head.pool.pool = nn.AdaptiveAvgPool3d(1)  # the published one is a window of the published clip size
    head.dropout = head.proj = head.activation = head.output_pool = None
    return BlockBackbone(name, num_features, blocks)


@register("backbone", "x3d_xs")
@dataclass
class X3DXSConfig:
    """3.0 M parameters, 2048 features."""

    def build(self) -> Backbone:
        """Build it, untrained."""
        return _build("x3d_xs", depth_factor=2.2)


@register("backbone", "x3d_s")
@dataclass
class X3DSConfig:
    """3.0 M parameters, 2048 features."""

    def build(self) -> Backbone:
        """Build it, untrained."""
        return _build("x3d_s", depth_factor=2.2)


@register("backbone", "x3d_m")
@dataclass
class X3DMConfig:
    """3.0 M parameters, 2048 features."""

    def build(self) -> Backbone:
        """Build it, untrained."""
        return _build("x3d_m", depth_factor=2.2)


@register("backbone", "x3d_l")
@dataclass
class X3DLConfig:
    """5.3 M parameters, 2048 features."""

    def build(self) -> Backbone:
        """Build it, untrained."""
        return _build("x3d_l", depth_factor=5.0)
