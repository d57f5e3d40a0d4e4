"""What OpenMMLab's networks for images compute: their files hold the config that built them, as text or as values."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from eztorch_sce.interop.containers import Container
from eztorch_sce.interop.format import Facts
from eztorch_sce.interop.image_facts import IMAGENET, Stats, resnet_facts

if TYPE_CHECKING:
    from eztorch_sce.interop.recognition import Found

DEFAULT_EPS = 1e-5  # of batch norm in PyTorch
_USUAL = {"dilations": [1, 1, 1, 1], "strides": [1, 2, 2, 2]}
_KEY = r"""['"]?\b(?:{})['"]?\s*[=:]\s*"""  # in a dict of Python
_NUMBERS = r"[(\[]\s*([-\d., e]+)[)\]]"


def openmmlab_facts(found: "Found") -> Facts:
    """Return the facts of a network of mmselfsup, mmpretrain or mmcls."""
    text = config_text(found.container)
    backbone = backbone_text(text)
    settings: dict[str, Any] = {}
    if re.search(_KEY.format("style") + r"""['"]caffe['"]""", backbone):
        settings["stride_in_1x1"] = True
    if (eps := norm_eps(backbone)) not in (None, DEFAULT_EPS):
        settings["norm_eps"] = eps
    for name, usual in _USUAL.items():
        if (numbers := _numbers_in(backbone, name)) and numbers != usual:
            shown = ", ".join(f"{number:g}" for number in numbers)
            return Facts(refused=f"its stages have {name} {shown}, which ours cannot have")
    is_bgr = re.search(_KEY.format("to_rgb|bgr_to_rgb") + "False", text) is not None
    stats = stats_in(text, is_bgr)
    assumed = "" if text else "the file has no config: strides in 3x3 convolutions, RGB and ImageNet's mean are assumed"
    channels = "bgr" if is_bgr else "rgb"
    return resnet_facts(
        found, stats or "image", channels=channels, settings=settings, assumed=assumed, small_stats=stats
    )


def config_text(container: Container) -> str:
    """Return the text of a config; one that is stored as values is written in the same form."""
    texts = [
        value
        for name, value in container.values.items()
        if isinstance(value, str) and name.split(".")[-1] in ("config", "cfg")
    ]
    return "\n".join(texts or _lines_of(container))


def _lines_of(container: Container) -> Iterator[str]:
    """Yield the settings of a config that is stored as values, those of the backbone in braces."""
    lists: dict[str, list[Any]] = {}
    backbone: list[str] = []
    for name, value in container.values.items():
        match = re.fullmatch(r"(?:.*\.)?(?:config|cfg)\.(.+)", name)
        if match is None:
            continue
        path = match[1].split(".")
        if path[-1].isdigit() and path[-2:-1]:
            lists.setdefault(".".join(path[:-1]), []).append(value)
        elif path[-2:] == ["norm_cfg", "eps"]:
            backbone.append(f"norm_cfg=dict(eps={value})")
        elif "backbone" in path:
            backbone.append(f"{path[-1]}={value!r}")
        else:
            yield f"{path[-1]}={value!r}"
    for name, values in lists.items():
        line = f"{name.split('.')[-1]}={values}"
        if "backbone" in name.split("."):
            backbone.append(line)
        else:
            yield line
    if backbone:
        yield f"backbone=dict({', '.join(backbone)})"


def backbone_text(text: str) -> str:
    """Return what a config says of the backbone, to the end of its parentheses."""
    match = re.search(_KEY.format("backbone") + r"(?:dict\(|\{)", text)
    if match is None:
        return ""
    depth = 0
    for place in range(match.end() - 1, len(text)):
        depth += (text[place] in "({[") - (text[place] in ")}]")
        if depth == 0:
            return text[match.start() : place + 1]
    return text[match.start() :]


def norm_eps(backbone: str) -> float | None:
    """Return the epsilon of batch norm by what a config says of the backbone; None if it does not say."""
    norm = re.search(_KEY.format("norm_cfg") + r"(?:dict\(|\{)([^)}]*)", backbone)
    if norm is None:
        return None
    eps = re.search(_KEY.format("eps") + r"([\d.e-]+)", norm[1])
    return DEFAULT_EPS if eps is None else float(eps[1])


def stats_in(text: str, is_bgr: bool) -> Stats | None:
    """Return the mean and standard deviation of RGB pixels in [0, 1]; None if the config has none."""
    mean, std = (_numbers_in(text, name) for name in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3:
        return None
    mean, std = ([value / 255 for value in (values[::-1] if is_bgr else values)] for values in (mean, std))
    pairs = zip([*mean, *std], [*IMAGENET[0], *IMAGENET[1]], strict=True)
    if all(abs(value - known) < 1e-4 for value, known in pairs):
        return IMAGENET  # which they round
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _numbers_in(text: str, name: str) -> list[float]:
    match = re.search(_KEY.format(name) + _NUMBERS, text)
    return [float(number) for number in match[1].split(",") if number.strip()] if match else []
