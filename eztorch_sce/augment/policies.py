"""Named lists of views, as published.

Global views come first; in an asymmetric loss, the first view is the target.

Sources: SCE (arXiv:2111.14585, arXiv:2212.11187), MoCo v2 (arXiv:2003.04297), SimCLR (arXiv:2002.05709), BYOL
(arXiv:2006.07733) and DINO (arXiv:2104.14294). Every setting of a view can be overridden; a policy gets its own name
only if a recipe needs it. The clips and crops of an evaluation are declared in `EvaluationViewsConfig`.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypedDict

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.errors import ConfigError, did_you_mean
from eztorch_sce.plugins import plugin_of
from eztorch_sce.registry import choices, register, unknown_choice
from eztorch_sce.settings import invalid_settings

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from eztorch_sce.config.names import ViewsName

_IMAGE = ViewConfig(scale=[0.2, 1.0], brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, gray=0.2, flip=0.5)
_IMAGE_VIEWS = [replace(_IMAGE, blur=1.0), replace(_IMAGE, blur=0.1, solarize=0.2)]
_LOCAL = replace(_IMAGE, blur=0.5, solarize=0.2)
_MOCO_V2 = replace(_IMAGE, saturation=0.4, blur=0.5)
_SIMCLR = replace(_IMAGE, scale=[0.08, 1.0], brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur=0.5)
_DINO_LOCAL = replace(_IMAGE, size=96, scale=[0.05, 0.4], blur=0.5)
_CIFAR_WEAK = ViewConfig(size=32, scale=[0.2, 1.0], flip=0.5, stats="cifar10")
_CIFAR_STRONG = replace(_CIFAR_WEAK, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, gray=0.2, blur=0.5)
_CIFAR = [_CIFAR_WEAK, _CIFAR_STRONG]
_KINETICS_BASELINE = [replace(view, scale=[0.2, 0.766], stats="video") for view in _IMAGE_VIEWS]
_KINETICS = [
    replace(view, brightness=0.8, contrast=0.8, saturation=0.4, hue=0.2, temporal_difference=0.2)
    for view in _KINETICS_BASELINE
]
# For a pretrained network, whose weights file holds size, input and stats.
_IMAGE_CROP = ViewConfig(size=None, input=None, stats=None, scale=[0.08, 1.0], flip=0.5)
_VIDEO_CROP = replace(_IMAGE_CROP, short_side=[256 / 224, 320 / 224])  # 128 to 160 at size 112
_MOTION = ViewConfig(size=112, scale=[0.5, 1.0], input="difference", stats="difference")

POLICIES: dict[str, list[ViewConfig]] = {
    "image": _IMAGE_VIEWS,
    "image_multicrop": [
        *_IMAGE_VIEWS,
        replace(_LOCAL, size=192, scale=[0.172, 0.86]),
        replace(_LOCAL, size=160, scale=[0.143, 0.715]),
        replace(_LOCAL, size=128, scale=[0.114, 0.571]),
        replace(_LOCAL, size=96, scale=[0.086, 0.429]),
    ],
    "moco_v2": [_MOCO_V2, _MOCO_V2],
    "simclr": [_SIMCLR, _SIMCLR],
    "byol": [replace(view, scale=[0.08, 1.0]) for view in _IMAGE_VIEWS],
    "dino": [*(replace(view, scale=[0.4, 1.0]) for view in _IMAGE_VIEWS), *([_DINO_LOCAL] * 8)],
    "cifar": _CIFAR,
    "cifar_strong": [_CIFAR_STRONG, _CIFAR_STRONG],  # for losses in which both views are targets, as in SimCLR
    "cifar100": [replace(view, stats="cifar100") for view in _CIFAR],
    "small_image": [replace(view, size=64, stats="image") for view in _CIFAR],
    "kinetics": _KINETICS,
    "kinetics_160": [replace(view, size=160) for view in _KINETICS],
    "kinetics_112": [replace(view, size=112) for view in _KINETICS],
    "kinetics_baseline": _KINETICS_BASELINE,
    "kinetics_baseline_112": [replace(view, size=112) for view in _KINETICS_BASELINE],
    "motion": [_MOTION, _MOTION],  # for classes that are motions: a flip would turn left into right
    "finetune_image": [_IMAGE_CROP],
    "linear_image": [_IMAGE_CROP],
    "finetune_video": [replace(_VIDEO_CROP, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, gray=0.2)],
    "linear_video": [_VIDEO_CROP],
}
"""Published policies by name. Use `policy` to get a copy: the views here share their lists."""


def _register_published(name: str) -> None:
    @register("views", name)
    def views() -> list[ViewConfig]:
        # Copy view by view: a deep copy of the list would keep repeated views one object, and change all at once.
        return [copy.deepcopy(view) for view in POLICIES[name]]


for _name in POLICIES:
    _register_published(_name)


class ViewChanges(TypedDict, total=False):
    """The settings of a `ViewConfig`, for type checkers."""

    size: int | None
    scale: list[float]
    short_side: list[float]
    brightness: float
    contrast: float
    saturation: float
    hue: float
    jitter_p: float
    gray: float
    blur: float
    solarize: float
    flip: float
    temporal_difference: float
    input: str | None
    stats: str | None


def views(name: "ViewsName", **changes: "Unpack[ViewChanges]") -> list[ViewConfig]:
    """Return the views of a published policy, with some settings changed in all of them.

    Args:
        name: Name of the policy, as in `views=cifar` on the command line.
        changes: Settings of `ViewConfig`.

    Raises:
        ConfigError: If there is no policy or setting of this name, or a value is invalid.

    Examples:
        >>> [view.size for view in views("motion", size=64)]
        [64, 64]
    """
    known = [item.name for item in fields(ViewConfig)]
    if unknown := [key for key in changes if key not in known]:
        raise ConfigError([f"a view has no setting {key}{did_you_mean(key, known)}" for key in unknown])
    changed = [replace(view, **changes) for view in policy(name)]
    if messages := view_messages(changed):
        raise ConfigError(messages)
    return changed


def view_messages(configs: Sequence[ViewConfig]) -> list[str]:
    """Return one message per invalid setting of a list of views, and one if the list is empty."""
    if not configs:
        return ["views is empty: give at least one view"]
    return [message for number, view in enumerate(configs) for message in invalid_settings(view, f"views.{number}")]


def policy(name: str) -> list[ViewConfig]:
    """Return a fresh copy of the views of a policy: one of POLICIES, or one that a user has registered.

    Raises:
        ConfigError: If there is no policy of this name, or if it does not return a list of views.
    """
    policies = choices("views")
    if name not in policies:
        raise ConfigError([unknown_choice("views", name, "views")])
    return checked_views(name, policies[name])


def checked_views(name: str, function: Callable[[], Any]) -> list[ViewConfig]:
    """Return the views of a registered function.

    Raises:
        ConfigError: If it does not return a list of views.
    """
    result = function()
    if not isinstance(result, list) or not result or not all(isinstance(view, ViewConfig) for view in result):
        place = f"{function.__name__} of {plugin_of(function)}"
        raise ConfigError([f"views={name}: {place} must return a list of ViewConfig, not {result!r}"])
    return result
