"""Formats of networks for images, a row each. What a row cannot say alone is in `image_facts.py`."""

from collections.abc import Mapping

from eztorch_sce.interop.format import Facts, Format
from eztorch_sce.interop.image_facts import (
    IMAGENET_228,
    UNIT,
    detectron2_facts,
    generic_facts,
    image_layouts,
    network_facts,
    simclr_facts,
    solo_learn_facts,
    timm_facts,
    timm_layouts,
    transformers_facts,
    vit_facts,
)
from eztorch_sce.interop.openmmlab_facts import openmmlab_facts

_PROJECTOR = "projection head: its layers are not those of our projectors"
_PREDICTOR = "prediction head: its layers are not those of our predictors"
_QUEUE = "queue of keys of a projection head that is left out"
_PROTOTYPES = "prototypes, which our methods do not have"
_ONLINE = "classifier trained beside the pretraining"
_CENTER = "state of the loss"
_DETECTOR = "part of a detector behind the backbone"
_DETECTOR_PARTS: Mapping[str, str] = {
    r"(^|\.)(proposal_generator|roi_heads|sem_seg_head|head|linear)\.": _DETECTOR,
    r"(^|\.)backbone\.(fpn|top_block)\w*\.": _DETECTOR,
    r"(^|\.)pixel_(mean|std)$": "normalization, which is among the facts",
}

_MM_HEADS: Mapping[str, str] = {
    r"(^|\.)(neck|projector|pooling|encoder_[qk]\.(module\.)?1|\w+_net\.(module\.)?1)\.": _PROJECTOR,
    r"(^|\.)head\.(?!fc\.)\w+\.": _PREDICTOR,
    r"(^|\.)\w+_head\.": _DETECTOR,
    r"(^|\.)queue\d*(_ptr)?$|(^|\.)(feature_bank|memory_bank)\.": _QUEUE,
    r"(^|\.)data_preprocessor\.": "normalization, which is among the facts",
    r"(^|\.)steps$": "counter of updates",
}

_EMA = r"(ema|model_ema|ema_model|state_dict_ema|ema_state_dict)\."

_METHODS = (
    Format(
        "moco",
        "MoCo v1 and v2",
        image_layouts,
        {"query": r"encoder(_q)?\.", "key": r"encoder_k\."},
        network_facts(),
        evidence=(r"(^|\.)encoder_[qk]\.(conv1|0)\.weight$",),
        ignored={
            r"(^|\.)encoder(_[qk])?\.(fc|head|mlp|projector)\.|(^|\.)projector(_k)?\.": _PROJECTOR,
            r"(^|\.)queue\d*(_ptr)?$": _QUEUE,
            r"(^|\.)predictor\.": _PREDICTOR,
        },
    ),
    Format(
        "moco_v3",
        "MoCo v3",
        image_layouts,
        {"base": r"base_encoder\.", "momentum": r"momentum_encoder\."},
        vit_facts(num_heads={"vit_small_patch16_224": 12}),
        evidence=(r"(^|\.)(base|momentum)_encoder\.(conv1|patch_embed\.proj)\.weight$",),
        ignored={r"(^|\.)(base|momentum)_encoder\.(fc|head)\.": _PROJECTOR, r"(^|\.)predictor\.": _PREDICTOR},
    ),
    Format(
        "dino",
        "DINO",
        image_layouts,
        {"teacher": r"teacher\.(module\.)?(backbone\.)?", "student": r"student\.(module\.)?(backbone\.)?"},
        vit_facts(),
        evidence=(r"(^|\.)(teacher|student)\.",),
        ignored={
            r"(^|\.)(teacher|student)\.(module\.)?(head|fc)\.": _PROJECTOR,
            r"(^|\.)(dino_)?loss\.|(^|\.)center$": _CENTER,
        },
    ),
    Format(
        "swav",
        "SwAV and DeepCluster v2",
        image_layouts,
        {"network": ""},
        network_facts(IMAGENET_228),
        evidence=(r"(^|\.)prototypes\.",),
        ignored={
            r"(^|\.)projection_head\.": _PROJECTOR,
            r"(^|\.)prototypes\.": _PROTOTYPES,
            r"(^|\.)(local_memory|queue)": _QUEUE,
        },
    ),
    Format(
        "barlow_twins",
        "Barlow Twins",
        image_layouts,
        {"network": r"backbone\."},
        network_facts(),
        evidence=(r"(^|\.)projector\.", r"(^|\.)bn\.running_mean$"),
        ignored={r"(^|\.)projector\.": _PROJECTOR, r"(^|\.)bn\.running_": "batch norm of the loss"},
    ),
    Format(
        "simsiam",
        "SimSiam",
        image_layouts,
        {"network": r"encoder\."},
        network_facts(),
        evidence=(r"(^|\.)encoder\.fc\.6\.weight$",),
        ignored={r"(^|\.)encoder\.fc\.": _PROJECTOR, r"(^|\.)predictor\.": _PREDICTOR},
    ),
    Format(
        "simclr_sthalles",
        "SimCLR (sthalles)",
        ("torchvision",),
        {"network": r"backbone\."},
        simclr_facts,
        evidence=(r"(^|\.)backbone\.fc\.2\.weight$",),
        ignored={r"(^|\.)backbone\.fc\.": _PROJECTOR},
    ),
    Format(
        "byol",
        "BYOL (PyTorch)",
        image_layouts,
        {
            "online": r"online_(network|encoder|net)(_state_dict)?\.((net|encoder|backbone)\.)?",
            "target": r"target_(network|encoder|net)(_state_dict)?\.((net|encoder|backbone)\.)?",
            "network": "",  # the layers of the online network, which some code registers a second time
        },
        network_facts(),
        evidence=(r"(^|\.)(online|target)_(network|encoder|net)(_state_dict)?\.(?!\d|module\.\d)",),
        ignored={
            r"(^|\.)(online|target)_\w+\.(\w+\.)?(proj\w+|fc|head)\.": _PROJECTOR,
            r"(^|\.)(online_)?(predictor|prediction_head|predictor_network_state_dict)\.": _PREDICTOR,
        },
    ),
)

_LIBRARIES = (
    Format(
        "vissl",
        "VISSL",
        image_layouts,
        {
            "trunk": r"(classy_state_dict\.)?(base_model\.model\.)?(trunk\.)?(base_model\.)?_feature_blocks\.",
            "momentum": r"(\w+\.)*moco_encoder\.(\w+\.)*_feature_blocks\.",
        },
        network_facts(),
        evidence=(r"(^|\.)_feature_blocks\.",),
        ignored={
            r"(^|\.)heads\.": _PROJECTOR,
            r"(^|\.)classy_state_dict\.(loss|meters|hooks|train_\w+)\.(?!.*_feature_blocks)": _CENTER,
        },
    ),
    Format(
        "solo_learn",
        "solo-learn",
        image_layouts,
        {
            "backbone": r"(backbone|encoder)\.",
            "momentum": r"momentum_(backbone|encoder)\.",
        },
        solo_learn_facts,
        evidence=(r"(^|\.)(momentum_)?classifier\.(weight|bias)$|(^|\.)momentum_(backbone|encoder|projector)\.",),
        ignored={
            r"(^|\.)(momentum_)?classifier\.": _ONLINE,
            r"(^|\.)(momentum_)?(projector|projection_head|head|safe_projector)\d*\.": _PROJECTOR,
            r"(^|\.)predictor\d*\.": _PREDICTOR,
            r"(^|\.)prototypes(\.|$)": _PROTOTYPES,
            r"(^|\.)queue\w*$": _QUEUE,
            r"(^|\.)(dino_loss_func|loss_func|whitening|knn)\w*\.": _CENTER,
        },
    ),
    Format(
        "mmselfsup",
        "OpenMMLab: mmselfsup, mmpretrain and mmcls",
        ("torchvision",),
        {
            "backbone": r"backbone\.",
            "query": r"encoder_q\.(module\.)?0\.",
            "online": r"online_net\.(module\.)?0\.",
            "key": r"encoder_k\.(module\.)?0\.",
            "target": r"target_net\.(module\.)?0\.",
            "momentum": r"momentum_encoder\.(module\.)?0\.",
        },
        openmmlab_facts,
        evidence=(
            r"(^|\.)(neck|head\.\w+|data_preprocessor|(encoder_[qk]|online_net|target_net)\.(module\.)?[01])\.|^meta\.",
        ),
        ignored=_MM_HEADS,
        head=r"(.*\.)?(?<!neck\.)head\.fc",
    ),
    Format(
        "lightly",
        "lightly",
        image_layouts,
        {
            "backbone": r"backbone\.",
            "teacher": r"(teacher_backbone|backbone_momentum|key_backbone|momentum_backbone)\.",
            "student": r"(student_backbone|query_backbone)\.",
        },
        generic_facts,
        evidence=(
            r"(^|\.)((\w+_)?(projection|prediction|classification|student|teacher)_head(_momentum)?|online_classifier)\.",
            r"(^|\.)(\w+_)?backbone(_momentum)?\.",
        ),
        ignored={
            r"(^|\.)(\w+_)?(projection|student|teacher)_head(_momentum)?\.": _PROJECTOR,
            r"(^|\.)(\w+_)?prediction_head(_momentum)?\.": _PREDICTOR,
            r"(^|\.)(online_classifier|knn_classifier|linear)\.": _ONLINE,
            r"(^|\.)prototypes\.": _PROTOTYPES,
            r"(^|\.)criterion\.|(^|\.)memory_bank\.": _CENTER,
        },
        head=r"(.*\.)?classification_head(\.linear)?",
    ),
    Format(
        "simclr",
        "SimCLR (Spijkervet)",
        ("torchvision",),
        {"network": r"encoder\."},
        simclr_facts,
        evidence=(r"(^|\.)encoder\.conv1\.weight$", r"(^|\.)projector\.2\.weight$"),
        ignored={r"(^|\.)projector\.": _PROJECTOR},
    ),
    Format(
        "vicreg",
        "VICReg",
        image_layouts,
        {"network": r"backbone\."},
        solo_learn_facts,
        evidence=(r"(^|\.)projector\.\d+\.weight$",),
        ignored={r"(^|\.)projector\.": _PROJECTOR},
    ),
    Format(
        "detectron2",
        "Detectron2",
        ("detectron2",),
        {"network": r"(backbone\.)?(bottom_up\.)?"},
        detectron2_facts,
        ignored=_DETECTOR_PARTS,
    ),
    Format(
        "torchvision_segmentation",
        "torchvision's networks for segmentation",
        ("torchvision",),
        {"network": r"backbone\."},
        Facts(refused="its last two stages are dilated instead of strided, which ours cannot be"),
        evidence=(r"(^|\.)(aux_)?classifier\.\d+\.",),
        ignored={r"(^|\.)(aux_)?classifier\.": "classifier of pixels"},
    ),
    Format(
        "torchvision_detection",
        "torchvision's detectors",
        ("torchvision",),
        {"network": r"backbone\.body\."},
        network_facts(),
        ignored={r"(^|\.)(backbone\.fpn|rpn|roi_heads|head|anchor_generator)\.": _DETECTOR},
    ),
    Format(
        "transformers",
        "Hugging Face transformers: ResNet",
        ("transformers",),
        {"network": r"(resnet\.)?"},
        transformers_facts,
        head=r"(.*\.)?classifier\.1",
    ),
    Format(
        "timm",
        "timm",
        timm_layouts,
        {"ema": _EMA, "network": r"(timm_model\.)?"},
        timm_facts,
    ),
)

_BY_NAME = (
    Format(
        "detectron2_rgb",
        "Detectron2 with the pixels of torchvision",
        ("detectron2",),
        {"network": r"(backbone\.)?(bottom_up\.)?"},
        network_facts(),
        ignored=_DETECTOR_PARTS,
        named_only=True,
    ),
    Format(
        "byol_converted",
        "BYOL converted from JAX",
        ("torchvision",),
        {"network": ""},
        Facts(settings={"tf_padding": True}),
        named_only=True,
    ),
    Format(
        "simclr_converted",
        "SimCLR converted from TensorFlow",
        ("torchvision",),
        {"network": ""},
        Facts(UNIT),
        named_only=True,
    ),
)

_GENERIC = (Format("torchvision", "torchvision's names", image_layouts, {"network": "", "ema": _EMA}, generic_facts),)

IMAGES: tuple[Format, ...] = (*_METHODS, *_LIBRARIES, *_BY_NAME, *_GENERIC)
"""The formats of images, special ones first."""
