"""Tests of networks that become backbones: what is found out about them, and what is wrong with others."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from eztorch_sce.errors import ConfigError
from eztorch_sce.models.backbones.base import as_backbone
from eztorch_sce.models.backbones.probing import check_network
from eztorch_sce.models.backbones.small import SmallR2Plus1D


def image_network(num_features: int = 4) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, num_features, 3, stride=2),
            norm=nn.BatchNorm2d(num_features),
            drop=nn.Dropout(0.5),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
        )
    )


def clip_network() -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(3, 6, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten())


class Returning(nn.Module):
    """Returns one part of its mean over time and space, or all of them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, clips: Tensor) -> object:
        pooled = clips.mean(dim=(2, 3, 4))
        outputs: dict[str, object] = {
            "tuple": (pooled, clips),
            "dict": {"pooler_output": pooled, "attentions": None},
            "none": None,
            "tokens": clips.flatten(2),
            "no batch": pooled.mean(dim=0),
            "classes": pooled.argsort(),
        }
        return outputs[self.kind]


def test_the_input_and_the_width_of_a_network_are_found() -> None:
    images, clips = as_backbone(image_network(), size=16), as_backbone(clip_network(), size=16)
    assert (images.takes_clips, images.num_features) == (False, 4)
    assert (clips.takes_clips, clips.num_features) == (True, 6)
    assert images.name == "Sequential"
    assert next(iter(images.state_dict())) == "network.conv.weight"


def test_a_backbone_is_returned_as_it_is() -> None:
    backbone = SmallR2Plus1D(width=4, num_blocks=1)
    assert as_backbone(backbone) is backbone


def test_the_trial_leaves_the_network_and_the_generators_as_they_were() -> None:
    network = image_network().double()
    norm, drop = network.get_submodule("norm"), network.get_submodule("drop")
    norm.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    as_backbone(network, size=16)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert network.training
    assert drop.training
    assert not norm.training  # frozen by its owner


def test_a_network_for_clips_gets_the_frames_it_needs() -> None:
    with pytest.raises(
        ConfigError, match=r"fails on clips .* \(2, 3, 1, 16, 16\): .*Kernel.* set data.num_frames"
    ) as e:
        as_backbone(clip_network(), num_frames=1, size=16)
    assert "images" not in str(e.value)


def test_a_network_for_one_size_of_images_says_which_size_was_tried() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    assert as_backbone(network, num_frames=2, size=8).num_features == 5
    with pytest.raises(ConfigError, match=r"2 x 16 x 16 \(frames x height x width\), set data.num_frames and the size"):
        as_backbone(network, num_frames=2, size=16)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("tuple", r"returns a tuple, .*: one of \[0\] \(2, 3\), \[1\] \(2, 3, 8, 8, 8\)"),
        ("dict", r"returns a dict, .*: one of pooler_output \(2, 3\)$"),
        ("none", r"returns None, but a backbone returns features \(B, F\)"),
        ("tokens", r"shape \(2, 3, 512\) .* tokens, .*mean\(dim=1\)"),
        ("no batch", r"shape \(3,\) for a batch of 2, .*: keep the batch as the first axis"),
        ("classes", r"returns torch.int64, .* as floats"),
    ],
)
def test_an_output_other_than_features_is_named(kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        as_backbone(Returning(kind), size=8)


def test_feature_maps_instead_of_features_are_named_with_the_cure() -> None:
    with pytest.raises(ConfigError, match=r"feature maps, not features .* nn.AdaptiveAvgPool2d\(1\) and nn.Flatten"):
        as_backbone(nn.Conv2d(3, 4, 3), size=8)


def test_a_class_is_not_a_network() -> None:
    with pytest.raises(ConfigError, match=r"Returning is a class, and a backbone is an object: pass Returning\(\)"):
        check_network(Returning)
    with pytest.raises(ConfigError, match=r"a backbone is a torch.nn.Module, not 'resnet81'"):
        check_network("resnet81")


def test_stages_of_an_own_network_have_its_names() -> None:
    backbone = as_backbone(image_network(), size=16, stage_names=["conv", "norm"])
    assert {name: tuple(stage.shape) for name, stage in backbone.feature_maps(torch.zeros(2, 3, 9, 9)).items()} == {
        "conv": (2, 4, 4, 4),
        "norm": (2, 4, 4, 4),
    }
    with pytest.raises(ValueError, match=r"no module 'nrom'; did you mean norm\? \(its modules: conv, norm, drop"):
        backbone.feature_maps(torch.zeros(2, 3, 9, 9), ["nrom"])
    with pytest.raises(ValueError, match=r"names no stages: set its attribute stage_names .*conv, norm, drop, pool"):
        as_backbone(image_network(), size=16).feature_maps(torch.zeros(2, 3, 9, 9))


def test_a_stage_that_is_not_called_is_an_error() -> None:
    network = image_network()
    network[0].unused = nn.ReLU()
    with pytest.raises(ValueError, match=r"does not call its stages conv.unused"):
        as_backbone(network, size=16).feature_maps(torch.zeros(2, 3, 9, 9), ["conv.unused"])


def test_a_network_for_a_common_size_needs_no_size() -> None:
    assert as_backbone(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))).num_features == 5
    assert as_backbone(nn.Sequential(nn.Conv3d(3, 7, (16, 1, 1)), nn.AdaptiveAvgPool3d(1), nn.Flatten())).takes_clips


def test_features_that_depend_on_the_input_need_its_size() -> None:
    unpooled = nn.Sequential(nn.Conv2d(3, 1, 3), nn.Flatten())
    with pytest.raises(ConfigError, match=r"on the input \(3844 for 8 x 64 x 64 and 8836 for .* give as_backbone"):
        as_backbone(unpooled)
    backbone = as_backbone(unpooled, num_frames=1, size=10)
    assert backbone.num_features == 64
    with pytest.raises(ValueError, match=r"returned shape \(2, 100\) .* instead of \(B, F\) with F = 64"):
        backbone(torch.zeros(2, 3, 12, 12))
    with pytest.raises(ConfigError, match=r"has lazy layers, .*: give as_backbone the num_frames and the size"):
        as_backbone(nn.Sequential(nn.Flatten(), nn.LazyLinear(5)))
    assert as_backbone(nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), num_frames=1, size=8).num_features == 5
