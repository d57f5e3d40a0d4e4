"""Names that choices and settings have elsewhere, such as MoCo for momentum contrast with InfoNCE, or epochs."""

from collections.abc import Collection

from eztorch_sce.errors import nearest, normalized

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
        "r21d34": ("r2plus1d_34", "backbone=r2plus1d_34"),
        "r21d50": ("r2plus1d_50", "backbone=r2plus1d_50"),
        "s3dg": ("s3d", "backbone=s3d backbone.gating=true"),
        "resnet": ("resnet18", "backbone=resnet18 or backbone=resnet50"),
        "x3d": ("x3d_s", "backbone=x3d_s, from x3d_xs to x3d_l"),
    },
}

# The setting that a name means elsewhere: the first one that the command has.
_OTHER_SETTINGS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("lr", "learningrate", "baselr"), ("optimizer.lr",)),
    **dict.fromkeys(("wd", "weightdecay"), ("optimizer.weight_decay",)),
    **dict.fromkeys(("epochs", "numepochs", "maxepochs", "nepochs"), ("trainer.max_epochs", "max_epochs")),
    **dict.fromkeys(("bs", "batch", "batchsize"), ("data.batch_size",)),
    **dict.fromkeys(("workers", "numworkers", "nworkers"), ("data.num_workers",)),
    **dict.fromkeys(("gpus", "numgpus", "ngpus", "devices", "nprocpernode"), ("trainer.devices",)),
    **dict.fromkeys(("gpu", "cuda", "device", "cpu"), ("trainer.accelerator", "accelerator")),
    **dict.fromkeys(("fp16", "amp", "bf16", "halfprecision"), ("trainer.precision", "precision")),
    **dict.fromkeys(("data", "dataset", "dataroot", "datadir", "datapath", "videos", "images"), ("data.root",)),
    **dict.fromkeys(("path", "folder", "input", "inputdir", "root", "dir", "directory", "train"), ("data.root",)),
    **dict.fromkeys(("val", "valdir", "testdir", "testroot"), ("data.test_root",)),
    **dict.fromkeys(("out", "output", "outputdir", "outdir", "savedir", "logdir", "rundir", "workdir"), ("run.dir",)),
    **dict.fromkeys(("name", "expname", "experiment"), ("run.dir",)),
    **dict.fromkeys(("checkpoint", "ckpt", "pretrained", "pretrainedweights", "weight"), ("weights",)),
    **dict.fromkeys(("model", "arch", "net", "network", "encoder"), ("backbone", "weights")),
    **dict.fromkeys(("frames", "numframes", "cliplen", "cliplength"), ("data.num_frames",)),
    **dict.fromkeys(("temperature", "temp", "tau"), ("loss.temperature",)),
    **dict.fromkeys(("queue", "queuesize"), ("method.queue_size",)),
    **dict.fromkeys(("augmentation", "augmentations", "transform", "transforms", "aug"), ("views",)),
    **dict.fromkeys(("size", "imgsize", "imagesize", "cropsize"), ("views.*.size",)),
    **dict.fromkeys(("resume", "resumefrom", "resumefromcheckpoint", "autoresume"), ("run.dir",)),
    "algorithm": ("method",),
    "neighbors": ("k",),
}


def setting_meant(name: str, known: Collection[str]) -> str | None:
    """Return the setting that a name means: as it is called elsewhere, or else the nearest; None if none is near.

    >>> setting_meant("learning-rate", ["optimizer.lr", "seed"]), setting_meant("sed", ["optimizer.lr", "seed"])
    ('optimizer.lr', 'seed')
    """
    if name in known:
        return name
    elsewhere = _OTHER_SETTINGS.get(normalized(name), ())
    return next((setting for setting in elsewhere if setting in known), None) or nearest(name, known)


def known_elsewhere(group: str, name: str) -> tuple[str, str] | None:
    """Return the choice that has another name elsewhere, and what it is here as one types it, or None.

    >>> known_elsewhere("method", "MoCo_v3")
    ('momentum_predict', 'method=momentum_predict with loss=infonce')
    """
    return _OTHER_NAMES.get(group, {}).get(normalized(name))
