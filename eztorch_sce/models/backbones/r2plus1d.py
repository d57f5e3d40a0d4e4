"""R(2+1)D-50 from pytorchvideo, with its public parameter names.

Source: Tran et al., CVPR 2018, arXiv:1711.11248. It reduces time by 4.
"""

from dataclasses import dataclass

from eztorch_sce.compat import import_pytorchvideo_models
from eztorch_sce.models.backbones.base import Backbone, BlockBackbone
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings


@register("backbone", "r2plus1d_50")
@dataclass
class R2Plus1D50Config(Settings):
    """R(2+1)D-50 with 27.3 M parameters and 2048 features."""

    def build(self) -> Backbone:
        """Return the backbone, randomly initialized."""
        net = import_pytorchvideo_models("r2plus1d").create_r2plus1d(model_depth=50)
        return BlockBackbone("r2plus1d_50", net.blocks[-1].proj.in_features, net.blocks[:-1])
