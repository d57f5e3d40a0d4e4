"""Facts of public video networks that depend on what the file says.

The functions take what was found in a file, and return the facts; see `Format.facts`.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eztorch_sce.augment.statistics import Channels
from eztorch_sce.interop.format import Facts
from eztorch_sce.interop.openmmlab_facts import DEFAULT_EPS, backbone_text, config_text, norm_eps, stats_in
from eztorch_sce.interop.stored_settings import differing, option, slowfast_settings

if TYPE_CHECKING:
    from eztorch_sce.interop.recognition import Found

_KINETICS = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))  # mean and std in torchvision's video weights
_SQUEEZED = (
    "it was trained on frames resized to 128 x 171 whatever their shape; here their short side becomes 128, which is "
    "the same for videos of 4:3"
)
_X3D = {  # (frames, step in frames at 30 frames per second, side in pixels) of training
    "x3d_xs": (4, 12, 160),
    "x3d_s": (13, 6, 160),
    "x3d_m": (16, 5, 224),
    "x3d_l": (16, 5, 312),
}
_X3D_SAME = (
    "X3D-XS, S and M are one network for different clips, and it is taken as {}: backbone=x3d_xs, x3d_s or x3d_m"
)

_SLOWFAST = {
    "RESNET.STRIDE_1X1": False,
    "RESNET.SPATIAL_STRIDES": [1, 2, 2, 2],
    "RESNET.SPATIAL_DILATIONS": [1, 1, 1, 1],
}
"""Settings of SlowFast that its names and shapes do not show, as in our networks."""
_MMACTION = {
    "style": "pytorch",
    "dilations": (1, 1, 1, 1),
    "spatial_strides": (1, 2, 2, 2),
    "temporal_strides": (1, 1, 1, 1),
    "conv1_stride_t": 1,
    "pool1_stride_t": 1,
}
"""The same for mmaction2's 3-D networks."""
_MMACTION_REFUSED = {
    r"\broi_head\.": "the last stage of a detector (roi_head), with a stride of 1",
    r"\.net\.": "temporal shifts (TSM)",
    r"non_local": "non-local blocks",
}
"""Patterns of names of tensors that show another function."""


def torchvision_video(found: "Found") -> Facts:
    """Return the facts of torchvision's video networks, which take 15 frames per second."""
    if found.network.backbone == "s3d":
        return Facts(_KINETICS, size=224, num_frames=128, clip_s=128 / 15)
    return Facts(_KINETICS, size=112, num_frames=16, clip_s=16 / 15, assumed=_SQUEEZED)


def tclr(found: "Found") -> Facts:
    """Return the facts of TCLR, which divides the frames that OpenCV decodes, with blue first, by 255."""
    if found.layout.name != "torchvision_dilated":
        return _refused("its last stage is not that of TCLR's networks, so its strides are not known")
    return Facts(((0, 0, 0), (1, 1, 1)), channels="bgr", size=112, num_frames=16, frame_stride=2)


def pytorchvideo(found: "Found") -> Facts:
    """Return the facts of pytorchvideo's networks, which take frames at 30 per second."""
    name = found.network.backbone
    if name in _X3D:
        num_frames, step, size = _X3D[name]
        assumed = "" if name == "x3d_l" else _X3D_SAME.format(name)
        return Facts("video", size=size, num_frames=num_frames, clip_s=num_frames * step / 30, assumed=assumed)
    num_frames, step = (16, 4) if name == "r2plus1d_50" else (8, 8)
    assumed = f"clips of {num_frames} frames, {step} frames apart at 30 frames per second"
    return Facts("video", num_frames=num_frames, clip_s=num_frames * step / 30, assumed=assumed)


def slowfast(found: "Found") -> Facts:
    """Return the facts of SlowFast's networks from the `cfg` that it stores, or its defaults."""
    names = [name for name in found.container.tensors if name.startswith(found.prefix)]
    if any(".pathway1_" in name for name in names):
        return _refused("two pathways (SlowFast), of which ours have one: give a network of MODEL.ARCH slow")
    if any("_nonlocal" in name for name in names):
        return _refused("non-local blocks, which our networks do not have")
    cfg = slowfast_settings(found.container)
    if others := differing(cfg, _SLOWFAST):
        return _refused(f"{', '.join(others)} in its cfg, which our networks cannot express")
    num_frames, step = int(_number(cfg, "DATA.NUM_FRAMES", 8)), _number(cfg, "DATA.SAMPLING_RATE", 8)
    is_bgr = cfg.get("DATA.REVERSE_INPUT_CHANNEL") is True
    mean, std = _channels(cfg.get("DATA.MEAN"), is_bgr), _channels(cfg.get("DATA.STD"), is_bgr)
    return Facts(
        "video" if mean is None or std is None else (mean, std),
        channels="bgr" if is_bgr else "rgb",
        size=int(_number(cfg, "DATA.TRAIN_CROP_SIZE", 224)),
        num_frames=num_frames,
        clip_s=num_frames * step / _number(cfg, "DATA.TARGET_FPS", 30),
        assumed="" if cfg else "it holds no cfg: SlowFast's defaults are taken (8 frames, 8 apart, RGB, mean 0.45)",
    )


def mmaction(found: "Found") -> Facts:
    """Return the facts of mmaction2's networks from the config that it stores, or those of the published ones."""
    names, network = list(found.container.tensors), found.network.backbone
    for pattern, reason in _MMACTION_REFUSED.items():
        if any(re.search(pattern, name) for name in names):
            return _refused(f"{reason}, which our networks do not have")
    config = config_text(found.container)
    backbone = backbone_text(config)
    is_video = not network.startswith("resnet")
    stored, eps = _options(backbone), norm_eps(backbone)
    settings: dict[str, Any] = {}
    expected = _MMACTION | ({"temporal_strides": (1, 2, 2, 2)} if network.startswith("r2plus1d") else {})
    if network == "resnet50" and stored.get("style") == "caffe":
        settings["stride_in_1x1"] = True
    if network == "r2plus1d_34" or (not is_video and eps is not None):
        settings["norm_eps"] = 1e-3 if eps is None else eps
    others = differing(stored, expected if is_video else {"dilations": expected["dilations"]})
    if eps not in (None, DEFAULT_EPS) and "norm_eps" not in settings:
        others.append(f"eps={eps} of batch norm")
    if others:
        return _refused(f"{', '.join(others)} in its config, which {network} cannot express")
    is_bgr = option(config, "to_bgr") is True
    clip = {name: option(config, name) for name in ("clip_len", "frame_interval")}
    return Facts(
        stats_in(config, is_bgr) or "image",
        channels="bgr" if is_bgr else "rgb",
        num_frames=int(_number(clip, "clip_len", 8)) if is_video else 1,
        frame_stride=int(_number(clip, "frame_interval", 8)) if is_video else None,
        settings=settings,
        assumed="" if config else f"it holds no config: that of the published {network} is taken",
    )


def _refused(reason: str) -> Facts:
    """Return the facts of a network for videos that ours cannot express."""
    return Facts("video", num_frames=8, refused=reason)


def _options(config: str) -> dict[str, Any]:
    """Return the options of an OpenMMLab config that decide what a network computes, as far as it sets them."""
    found = {name: option(config, name) for name in _MMACTION}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in found.items() if value is not None
    }


def _number(settings: Mapping[str, Any], name: str, default: float) -> float:
    """Return a stored number that is greater than 0, or the default."""
    value = settings.get(name)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else default


def _channels(value: Any, is_bgr: bool) -> Channels | None:
    """Return three stored numbers for red, green and blue, or None."""
    if not isinstance(value, (list, tuple)) or len(value) != 3 or not all(isinstance(x, (int, float)) for x in value):
        return None
    first, second, third = (float(x) for x in value)
    return (third, second, first) if is_bgr else (first, second, third)
