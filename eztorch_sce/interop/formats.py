"""Formats: public kinds of checkpoints, a row each.

To add one, add a row here, and a layout to `layouts.py` if its names are new.
"""

from typing import TYPE_CHECKING

from eztorch_sce.interop.format import BY_PREFIX, Facts, Format, Move, as_scalar, turned
from eztorch_sce.interop.layouts import LAYOUTS

if TYPE_CHECKING:
    from eztorch_sce.interop.recognition import Found

_GUESSED = "the file does not say how its input was normalized or sampled"


def _sce_facts(found: "Found") -> Facts:
    """Return the input of the networks of the SCE papers: of Kinetics, ImageNet or CIFAR-10."""
    if found.layout.name == "torchvision":
        if dict(found.network.settings).get("small_input"):
            return Facts("cifar10", size=32, assumed=f"{_GUESSED}: 32 px with the statistics of CIFAR-10 are assumed")
        return Facts("image", assumed=f"{_GUESSED}: 224 px with the statistics of ImageNet are assumed")
    assumed = f"{_GUESSED}: 8 frames over 2.56 s at 224 px, as in most of the papers' recipes, are assumed"
    return Facts("video", num_frames=8, assumed=assumed)


_TRANSFORMS = r"(^|\.)((train|val|test)_)?transform\."

_PAPERS: tuple[Format, ...] = (
    Format(
        "sce",
        "public SCE code",
        ("torchvision", "pytorchvideo"),
        {"online": r"trunk\.", "momentum": r"momentum_trunk\."},
        _sce_facts,
        ignored={_TRANSFORMS: "buffer of an augmentation"},
        head=r"classifier\.(layers\.[01]|proj)|trunk\.head\.proj",
        method=(
            Move(r"(projector|predictor)\.layers\.(.+)", r"online.\1.\2"),
            Move(r"momentum_projector\.layers\.(.+)", r"momentum_encoder.encoder.projector.\1"),
            Move("queue", "queue.keys", turned),
            Move("queue_ptr", "queue.position", as_scalar),
        ),
        momentum="momentum",
    ),
)

_VIDEO: tuple[Format, ...] = (
    Format("pytorchvideo", "pytorchvideo", ("pytorchvideo",), {"network": ""}, Facts("video", num_frames=8)),
)

_IMAGES: tuple[Format, ...] = (Format("torchvision", "torchvision ResNet", ("torchvision",), {"network": ""}, Facts()),)


def _unknown_facts(found: "Found") -> Facts:
    """Return the usual input of a network for images or for videos."""
    is_video = found.container.tensors[found.prefix + found.layout.anchor].ndim == 5
    usual = "8 frames of 224 px with the statistics of Kinetics" if is_video else "224 px with those of ImageNet"
    assumed = f"of a code base that is not known: {usual}, RGB and the usual paddings and strides are assumed"
    return Facts("video" if is_video else "image", num_frames=8 if is_video else 1, assumed=assumed)


_ANY = (Format("other", "unknown code base", tuple(LAYOUTS), {BY_PREFIX: r"(?:[^.]+\.)*"}, _unknown_facts),)

FORMATS: tuple[Format, ...] = (*_PAPERS, *_VIDEO, *_IMAGES, *_ANY)
"""The formats. Of those that fit a file equally well, the first is taken: write special ones before general ones."""
