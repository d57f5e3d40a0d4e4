"""Tests of the published views."""

from dataclasses import replace

import pytest

from eztorch_sce.augment.policies import policy
from eztorch_sce.errors import ConfigError

COLUMNS = ["size", "scale", "brightness", "contrast", "saturation", "hue", "gray", "blur", "solarize", "flip"]
COLUMNS += ["temporal_difference", "stats"]
IMAGE_1 = (224, [0.2, 1.0], 0.4, 0.4, 0.2, 0.1, 0.2, 1.0, 0.0, 0.5, 0.0, "image")
IMAGE_2 = (224, [0.2, 1.0], 0.4, 0.4, 0.2, 0.1, 0.2, 0.1, 0.2, 0.5, 0.0, "image")
MOCO_V2 = (224, [0.2, 1.0], 0.4, 0.4, 0.4, 0.1, 0.2, 0.5, 0.0, 0.5, 0.0, "image")
SIMCLR = (224, [0.08, 1.0], 0.8, 0.8, 0.8, 0.2, 0.2, 0.5, 0.0, 0.5, 0.0, "image")
DINO_LOCAL = (96, [0.05, 0.4], 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.0, 0.5, 0.0, "image")
PUBLISHED = {
    "image": [IMAGE_1, IMAGE_2],
    "image_multicrop": [
        IMAGE_1,
        IMAGE_2,
        (192, [0.172, 0.86], 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.2, 0.5, 0.0, "image"),
        (160, [0.143, 0.715], 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.2, 0.5, 0.0, "image"),
        (128, [0.114, 0.571], 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.2, 0.5, 0.0, "image"),
        (96, [0.086, 0.429], 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.2, 0.5, 0.0, "image"),
    ],
    "moco_v2": [MOCO_V2, MOCO_V2],
    "simclr": [SIMCLR, SIMCLR],
    "byol": [
        (224, [0.08, 1.0], 0.4, 0.4, 0.2, 0.1, 0.2, 1.0, 0.0, 0.5, 0.0, "image"),
        (224, [0.08, 1.0], 0.4, 0.4, 0.2, 0.1, 0.2, 0.1, 0.2, 0.5, 0.0, "image"),
    ],
    "dino": [
        (224, [0.4, 1.0], 0.4, 0.4, 0.2, 0.1, 0.2, 1.0, 0.0, 0.5, 0.0, "image"),
        (224, [0.4, 1.0], 0.4, 0.4, 0.2, 0.1, 0.2, 0.1, 0.2, 0.5, 0.0, "image"),
        *[DINO_LOCAL] * 8,
    ],
    "cifar": [
        (32, [0.2, 1.0], 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, "cifar10"),
        (32, [0.2, 1.0], 0.4, 0.4, 0.4, 0.1, 0.2, 0.5, 0.0, 0.5, 0.0, "cifar10"),
    ],
    "kinetics": [
        (224, [0.2, 0.766], 0.8, 0.8, 0.4, 0.2, 0.2, 1.0, 0.0, 0.5, 0.2, "video"),
        (224, [0.2, 0.766], 0.8, 0.8, 0.4, 0.2, 0.2, 0.1, 0.2, 0.5, 0.2, "video"),
    ],
    "kinetics_112": [
        (112, [0.2, 0.766], 0.8, 0.8, 0.4, 0.2, 0.2, 1.0, 0.0, 0.5, 0.2, "video"),
        (112, [0.2, 0.766], 0.8, 0.8, 0.4, 0.2, 0.2, 0.1, 0.2, 0.5, 0.2, "video"),
    ],
    "kinetics_baseline": [
        (224, [0.2, 0.766], 0.4, 0.4, 0.2, 0.1, 0.2, 1.0, 0.0, 0.5, 0.0, "video"),
        (224, [0.2, 0.766], 0.4, 0.4, 0.2, 0.1, 0.2, 0.1, 0.2, 0.5, 0.0, "video"),
    ],
    "kinetics_baseline_112": [
        (112, [0.2, 0.766], 0.4, 0.4, 0.2, 0.1, 0.2, 1.0, 0.0, 0.5, 0.0, "video"),
        (112, [0.2, 0.766], 0.4, 0.4, 0.2, 0.1, 0.2, 0.1, 0.2, 0.5, 0.0, "video"),
    ],
    "linear_image": [(None, [0.08, 1.0], 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, None)],
    "linear_video": [(None, [], 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, None)],
    "finetune_video": [(None, [], 0.4, 0.4, 0.4, 0.1, 0.2, 0.0, 0.0, 0.5, 0.0, None)],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_policies_have_the_published_settings(name: str) -> None:
    settings = []
    for view in policy(name):
        without_unused = replace(view, scale=[]) if view.short_side else view
        settings.append(tuple(getattr(without_unused, column) for column in COLUMNS))
    assert settings == PUBLISHED[name]
    assert {view.jitter_p for view in policy(name)} == {0.8}


@pytest.mark.parametrize(("size", "shortest", "longest"), [(224, 256, 320), (112, 128, 160)])
@pytest.mark.parametrize("name", ["linear_video", "finetune_video"])
def test_a_video_is_cropped_from_a_published_short_side(name: str, size: int, shortest: int, longest: int) -> None:
    (view,) = policy(name)
    assert [round(multiple * size) for multiple in view.short_side] == [shortest, longest]


def test_every_view_of_a_policy_is_a_fresh_copy() -> None:
    views = policy("moco_v2")
    views[0].scale[0], views[0].flip = 0.9, 0.0
    assert views[1].scale == [0.2, 1.0]
    assert views[1].flip == 0.5
    assert policy("image")[0].scale == [0.2, 1.0]


def test_an_unknown_policy_suggests_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean kinetics"):
        policy("kinetic")
