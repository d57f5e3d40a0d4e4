"""Formats: public kinds of checkpoints, a row each.

To add one, add a row here, and a layout to `layouts.py` if its names are new.
"""

from typing import TYPE_CHECKING

from eztorch_sce.interop import sce_facts, video_facts
from eztorch_sce.interop.format import BY_PREFIX, Facts, Format, Move, Unsupported, as_scalar, turned
from eztorch_sce.interop.image_facts import deep_layouts, generic_facts
from eztorch_sce.interop.image_formats import IMAGES
from eztorch_sce.interop.layouts import LAYOUTS, Layout

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

_PROJECTOR = "projector of its pretraining"
_QUEUE = "queue of its pretraining"

_VIDEO: tuple[Format, ...] = (
    Format(
        "tclr",
        "TCLR",  # RGB is never made of the frames that OpenCV decodes, and pixels are only divided by 255
        ("torchvision_dilated",),
        {"network": r"(?:module\.|bb_state_dict\.)*(?:0\.)?"},
        Facts(((0, 0, 0), (1, 1, 1)), channels="bgr", size=112, num_frames=16, frame_stride=4),
        evidence=(r"(^|\.)1\.fc1\.weight$",),
        ignored={r"(^|\.)1\.(fc|bn)\d\.": _PROJECTOR},
    ),
    Format(
        "tclr_classifier",
        "classifier of TCLR",
        ("torchvision_dilated",),
        {"network": r"(?:module\.|bb_state_dict\.)*(?:0\.)?"},
        Facts(((0, 0, 0), (1, 1, 1)), channels="bgr", size=112, num_frames=16, frame_stride=4),
        named_only=True,  # its tensors are those of torchvision's r3d_18
    ),
    Format(
        "videomoco",
        "VideoMoCo",  # torchvision decodes its clips, so it takes RGB
        ("torchvision_video",),
        {"encoder_q": r"encoder_q\.", "encoder_k": r"encoder_k\."},
        Facts("image", size=112, num_frames=32, frame_stride=1),
        ignored={r"encoder_[qk]\.fc\.": _PROJECTOR, r"(^|\.)queue(_ptr)?$": _QUEUE},
    ),
    Format(
        "coclr",
        "CoCLR",
        ("coclr",),
        {
            "encoder_q": r"encoder_q\.0\.",
            "encoder_k": r"encoder_k\.0\.",
            "sampler": r"sampler\.0\.",
            "network": r"(?:backbone\.)?",
        },
        Facts(
            "image",
            size=128,
            num_frames=32,
            frame_stride=1,
            assumed="it takes RGB; a file does not say whether it is a network for optical flow",
        ),
        ignored={
            r"(encoder_[qk]|sampler)\.[24]\.": _PROJECTOR,
            r"(^|\.)queue(_second|_vname|_label|_ptr)?$": _QUEUE,
        },
        head=r"final_fc\.[01]",
    ),
    Format(
        "torchvision_video",
        "torchvision's video networks",
        ("torchvision_video", "torchvision_s3d"),
        {"network": r"(?:backbone\.)?"},
        video_facts.torchvision_video,
    ),
    Format(
        "slowfast_ssl",
        "self-supervised network of SlowFast",
        ("slowfast",),
        {"backbone": r"backbone\.", "backbone_hist": r"backbone_hist\."},
        video_facts.slowfast,
        evidence=(r"(^|\.)backbone\.s1\.",),
        ignored={
            r"backbone(_hist)?\.head\.": _PROJECTOR,
            r"(^|\.)(queue_x|queue_swav|ptr|iter)$": _QUEUE,
            r"(^|\.)(knn_mem|memory)\.": "memory bank of its pretraining",
            r"(^|\.)swav_prototypes(\.weight)?$": "prototypes of SwAV",
        },
    ),
    Format("slowfast", "SlowFast", ("slowfast",), {"network": ""}, video_facts.slowfast),
    Format(
        "mmaction",
        "mmaction2",
        ("mmaction", "mmaction_r2plus1d", "mmaction_without_conv", "mmaction_images", "torchvision"),
        {"backbone": r"(?:backbone\.)?"},
        video_facts.mmaction,
        evidence=(r"(^|\.)(cls_head|roi_head)\.|\.(conv|net)\.weight$|\.conv_s\.",),
        head=r"cls_head\.fc_cls",
    ),
    Format(
        "pytorchvideo",
        "pytorchvideo",
        ("pytorchvideo", "pytorchvideo_x3d"),
        {"network": ""},
        video_facts.pytorchvideo,
        head=r"head\.proj",  # of the public SCE code, around such networks
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

FORMATS: tuple[Format, ...] = (*_PAPERS, *_VIDEO, *IMAGES, *_ANY)
"""The formats. Of those that fit a file equally well, the first is taken: write special ones before general ones."""
