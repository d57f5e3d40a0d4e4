"""Formats: public kinds of checkpoints, a row each.

To add one, add a row here, and a layout to `layouts.py` if its names are new.
"""

from eztorch_sce.interop.format import Facts, Format

_PAPERS: tuple[Format, ...] = ()

_VIDEO: tuple[Format, ...] = (
    Format("pytorchvideo", "pytorchvideo", ("pytorchvideo",), {"network": ""}, Facts("video", num_frames=8)),
)

_IMAGES: tuple[Format, ...] = (Format("torchvision", "torchvision ResNet", ("torchvision",), {"network": ""}, Facts()),)

FORMATS: tuple[Format, ...] = (*_PAPERS, *_VIDEO, *_IMAGES)
"""The formats. Of those that fit a file equally well, the first is taken: write special ones before general ones."""
