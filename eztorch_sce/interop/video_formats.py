"""Formats of networks for videos, a row each. What a row cannot say alone is in `video_facts.py`."""

from eztorch_sce.interop import video_facts
from eztorch_sce.interop.format import Facts, Format

_PROJECTOR = "projector of its pretraining"
_QUEUE = "queue of its pretraining"
_EMA = {"ema": r"(?:\w+_)?ema(?:_\w+)?\."}
"""The moving average of a supervised network."""
_EMA_COUNTERS = {r"(^|\.)(n_averaged|steps)$": "counter of a moving average"}

VIDEO: tuple[Format, ...] = (
    Format(
        "tclr",
        "TCLR",
        ("torchvision_dilated", "torchvision_video"),
        {"network": r"(?:module\.|bb_state_dict\.)*(?:0\.)?"},
        video_facts.tclr,
        evidence=(r"(^|\.)1\.fc1\.weight$",),
        ignored={r"(^|\.)1\.(fc|bn)\d\.": _PROJECTOR},
    ),
    Format(
        "tclr_classifier",
        "classifier of TCLR",
        ("torchvision_dilated",),
        {"network": r"(?:module\.|bb_state_dict\.)*(?:0\.)?"},
        video_facts.tclr,
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
        {"network": r"(?:backbone\.)?"} | _EMA,
        video_facts.torchvision_video,
        ignored=_EMA_COUNTERS,
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
    Format("slowfast", "SlowFast", ("slowfast",), {"network": ""} | _EMA, video_facts.slowfast),
    Format(
        "mmaction",
        "mmaction2",
        ("mmaction", "mmaction_r2plus1d", "mmaction_without_conv", "mmaction_images", "torchvision"),
        {  # OpenMMLab stores a moving average as `state_dict`, and the network itself as `ema_state_dict`
            "backbone": r"(?:backbone\.)?",
            "raw": r"ema_state_dict\.(?:module\.)?(?:backbone\.)?",
        },
        video_facts.mmaction,
        evidence=(r"(^|\.)(cls_head|roi_head)\.|\.(conv|net)\.weight$|\.conv_s\.",),
        ignored={
            r"(^|\.)data_preprocessor\.": "normalization, which is among the facts",
            r"(^|\.)ema_state_dict\.(module\.)?cls_head\.": "classifier of the network that was averaged",
            **_EMA_COUNTERS,
        },
        head=r"cls_head\.fc_cls",
    ),
    Format(
        "pytorchvideo",
        "pytorchvideo",
        ("pytorchvideo", "pytorchvideo_x3d"),
        {"network": ""} | _EMA,
        video_facts.pytorchvideo,
        head=r"head\.proj",  # of the public SCE code, around such networks
    ),
)
"""The formats of videos, special ones first."""
