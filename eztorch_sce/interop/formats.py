"""Formats: public kinds of checkpoints, a row each.

To add one, add a row here, and a layout to `layouts.py` if its names are new.
"""

from typing import TYPE_CHECKING

from eztorch_sce.interop import sce_facts
from eztorch_sce.interop.format import BY_PREFIX, Facts, Format, Move, Unsupported, as_scalar, turned
from eztorch_sce.interop.image_facts import deep_layouts, generic_facts
from eztorch_sce.interop.image_formats import IMAGES
from eztorch_sce.interop.layouts import LAYOUTS, Layout
from eztorch_sce.interop.video_formats import VIDEO

if TYPE_CHECKING:
    from eztorch_sce.interop.containers import Container
    from eztorch_sce.interop.recognition import Found

_TRANSFORMS = r"(^|\.)((train|val|test)_)?transform\."

_PAPERS: tuple[Format, ...] = (
    Format(
        "sce",
        "public SCE code",
        ("torchvision", "pytorchvideo", "pytorchvideo_x3d", "torchvision_video", "sce_r2plus1d", "coclr"),
        {"online": r"trunk\.", "momentum": r"momentum_trunk\."},
        sce_facts.sce,
        ignored={_TRANSFORMS: "buffer of an augmentation"},
        head=r"(classifier\.(layers\.[01]|proj)|trunk\.head\.proj)",
        method=(
            Move(r"(projector|predictor)\.layers\.(.+)", r"online.\1.\2"),
            Move(r"momentum_projector\.layers\.(.+)", r"momentum_encoder.encoder.projector.\1"),
            Move("queue", "queue.keys", turned),
            Move("queue_ptr", "queue.position", as_scalar),
        ),
        momentum="momentum",
    ),
    Format(
        "sce_encoder",
        "released encoder of the public SCE code",  # those of its other networks are like those of their own libraries
        ("sce_encoder",),
        {"network": ""},
        sce_facts.sce,
        head=r"head\.proj",
    ),
)

_NO_HOME = "give a network that `eztorch-sce pretrain --help` lists under backbone"

UNSUPPORTED: tuple[Unsupported, ...] = (
    Unsupported("a multiscale vision transformer (MViT)", (r"(^|\.)blocks\.\d+\.attn\.pool_[qkv]\.",), _NO_HOME),
    Unsupported(
        "a network with two pathways (SlowFast)",
        (r"(^|\.)(s1\.pathway1_stem|(backbone\.)?fast_path|blocks\.0\.multipathway_blocks)\.",),
        "give its slow network alone, which R3D-50 equals",
    ),
    Unsupported("a network with temporal shifts (TSM)", (r"(^|\.)layer1\.\d+\.(conv1\.(conv\.)?)?net\.",), _NO_HOME),
    Unsupported("a video transformer", (r"(^|\.)patch_embed\.proj(ection)?\.", r"\.(time_attn|temporal_)"), _NO_HOME),
    Unsupported(
        "X3D with the names of SlowFast",
        (r"(^|\.)s1\.pathway0_stem\.conv_xy\.",),
        "give pytorchvideo's, whose shortcuts are those of our X3D",
    ),
    Unsupported(
        "a ResNet with a deep stem (resnet50d and the like)",
        (r"(^|\.)(conv1|stem)\.0\.weight$", r"(^|\.)layer1\.0\.conv1\.weight$"),
        "for one of timm, name it: backbone=timm/resnet50d",
    ),
    Unsupported("I3D", (r"(^|\.)Conv3d_1a_7x7\.",), _NO_HOME),
)
"""Networks without a home, of which we say so."""


def _unknown_facts(found: "Found") -> Facts:
    """Return the usual input of a network for images or for videos."""
    anchors = (found.prefix + name for name in found.layout.names(found.layout.anchor))
    is_video = any(found.container.tensors[name].ndim == 5 for name in anchors if name in found.container.tensors)
    if not is_video:
        return generic_facts(found)
    usual = "8 frames of 224 px with the statistics of Kinetics"
    assumed = f"of a code base that is not known: {usual}, RGB and the usual paddings and strides are assumed"
    return Facts("video", num_frames=8, assumed=assumed)


def _any_layouts(container: "Container") -> list[Layout]:
    """Return all layouts, with those that follow from the file."""
    return [*LAYOUTS.values(), *deep_layouts(container)]


_ANY = (Format("other", "unknown code base", _any_layouts, {BY_PREFIX: r"(?:[^.]+\.)*"}, _unknown_facts),)

FORMATS: tuple[Format, ...] = (*_PAPERS, *VIDEO, *IMAGES, *_ANY)
"""The formats. Of those that fit a file equally well, the first is taken: write special ones before general ones."""
