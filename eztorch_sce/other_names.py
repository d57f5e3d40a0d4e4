"""Names that choices have elsewhere, such as MoCo for momentum contrast with InfoNCE."""

from eztorch_sce.errors import normalized

# By group: the name as people type it, without case and separators; the choice here; what it is here, as one types it.
_OTHER_NAMES: dict[str, dict[str, tuple[str, str]]] = {
    "method": {
        "moco": ("momentum_contrast", "method=momentum_contrast with loss=infonce"),
        "mocov1": ("momentum_contrast", "method=momentum_contrast with loss=infonce"),
        "mocov2": ("momentum_contrast", "method=momentum_contrast with loss=infonce"),
        "mocov3": ("momentum_predict", "method=momentum_predict with loss=infonce"),
        "byol": ("momentum_predict", "method=momentum_predict with loss=cosine"),
        "sce": ("momentum_contrast", "method=momentum_contrast with loss=sce"),
        "ressl": ("momentum_contrast", "method=momentum_contrast with loss=ressl"),
        "contrastive": ("momentum_contrast", "method=momentum_contrast, or method=simclr without a queue"),
    },
    "loss": {
        "simclr": ("ntxent", "loss=ntxent with method=simclr"),
        "moco": ("infonce", "loss=infonce with method=momentum_contrast"),
        "mocov2": ("infonce", "loss=infonce with method=momentum_contrast"),
        "mocov3": ("infonce", "loss=infonce with method=momentum_predict"),
        "byol": ("cosine", "loss=cosine with method=momentum_predict"),
        "nce": ("infonce", "loss=infonce"),
        "contrastive": ("infonce", "loss=infonce"),
        "cosinesimilarity": ("cosine", "loss=cosine"),
        "mse": ("cosine", "loss=cosine, which is the squared distance of unit vectors"),
    },
    "optimizer": {
        "adam": ("adamw", "optimizer=adamw, which is Adam with optimizer.weight_decay=0"),
        "momentum": ("sgd", "optimizer=sgd, with optimizer.momentum"),
    },
    "views": {
        "imagenet": ("image", "views=image"),
        "cifar10": ("cifar", "views=cifar"),
        "moco": ("moco_v2", "views=moco_v2"),
        "multicrop": ("image_multicrop", "views=image_multicrop"),
        "swav": ("image_multicrop", "views=image_multicrop"),
        "sce": ("image", "views=image, or views=kinetics for videos"),
        "video": ("kinetics", "views=kinetics"),
        "kinetics400": ("kinetics", "views=kinetics"),
        "k400": ("kinetics", "views=kinetics"),
    },
    "backbone": {
        "resnet3d18": ("r3d18", "backbone=r3d18"),
        "resnet3d50": ("r3d50", "backbone=r3d50"),
        "3dresnet18": ("r3d18", "backbone=r3d18"),
        "3dresnet50": ("r3d50", "backbone=r3d50"),
        "slowr50": ("r3d50", "backbone=r3d50"),
        "r21d": ("r2plus1d_18", "backbone=r2plus1d_18"),
        "r21d18": ("r2plus1d_18", "backbone=r2plus1d_18"),
        "r21d50": ("r2plus1d_50", "backbone=r2plus1d_50"),
        "resnet": ("resnet18", "backbone=resnet18 or backbone=resnet50"),
        "x3d": ("x3d_s", "backbone=x3d_s, from x3d_xs to x3d_l"),
    },
}


def known_elsewhere(group: str, name: str) -> tuple[str, str] | None:
    """Return the choice that has another name elsewhere, and what it is here as one types it, or None.

    >>> known_elsewhere("method", "MoCo_v3")
    ('momentum_predict', 'method=momentum_predict with loss=infonce')
    """
    return _OTHER_NAMES.get(group, {}).get(normalized(name))
