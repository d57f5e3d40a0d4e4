"""Facts of the networks of the public SCE code, which stores the settings of a training beside its weights."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eztorch_sce.augment.statistics import Channels
from eztorch_sce.interop import video_facts
from eztorch_sce.interop.format import Facts

if TYPE_CHECKING:
    from eztorch_sce.interop.recognition import Found


def sce(found: "Found") -> Facts:
    """Return the input of a network: as far as the file says, or else that of the papers' recipes."""
    values = found.container.values
    mean, std = _channels(values, "mean"), _channels(values, "std")
    facts = _usual(found, "" if mean and std else " with its statistics")
    if mean is not None and std is not None:
        facts = replace(facts, stats=(mean, std))
    if found.network.backbone == "s3d" and any(name.endswith("trunk.slow") and values[name] is True for name in values):
        facts = replace(facts, settings={**facts.settings, "stem_time_stride": 1})
    return facts


def _usual(found: "Found", statistics: str) -> Facts:
    """Return the input of the networks of the SCE papers: of Kinetics, ImageNet or CIFAR-10."""
    name, guessed = found.network.backbone, "the file does not say what its input was; assumed is that of"
    if name.startswith("resnet"):
        if dict(found.network.settings).get("small_input"):
            return Facts("cifar10", size=32, assumed=f"{guessed} CIFAR-10 at 32 px{statistics}")
        return Facts("image", assumed=f"{guessed} ImageNet at 224 px{statistics}")
    if name.startswith("x3d"):
        return video_facts.pytorchvideo(found)
    stem = ", and a stem that halves the frames (slow: false)" if name == "s3d" else ""
    recipe = f"Kinetics at 224 px{statistics}, 8 frames over 2.56 s as in most of the papers' recipes{stem}"
    return Facts("video", num_frames=8, assumed=f"{guessed} {recipe}")


def _channels(values: Mapping[str, Any], name: str) -> Channels | None:
    """Return the mean or standard deviation of the settings' transforms, if they agree on one."""
    found: dict[str, dict[int, Any]] = {}
    for path, value in values.items():
        if (match := re.search(rf"^(.*\b{name})\.([012])$", path)) and isinstance(value, (int, float)):
            found.setdefault(match[1], {})[int(match[2])] = float(value)
    triples = {tuple(each[i] for i in range(3)) for each in found.values() if len(each) == 3}
    if len(triples) != 1:
        return None
    red, green, blue = triples.pop()
    return (red, green, blue) if all(0 <= each <= 1 for each in (red, green, blue)) else None
