"""Contract tests of every registered backbone, and comparison with the published networks."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formula import filled, hash_sym
from torch import Tensor, nn

from eztorch_sce.models.backbones.base import Backbone, BackboneConfig, BlockBackbone, NetworkBackbone
from eztorch_sce.models.backbones.resnet2d import ResNet2d
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.registry import choices
from eztorch_sce.settings import invalid_settings

VECTORS = Path(__file__).resolve().parents[1] / "vectors"  # see the README there

# Published number of parameters in millions, and the classes of the classifier that it includes (0 for none).
# Sources: the model zoos of torchvision and pytorchvideo; for r3d18 and r3d50, the public SCE code.
PUBLISHED = {
    "resnet18": (11.69, 1000),
    "resnet34": (21.80, 1000),
    "resnet50": (25.56, 1000),
    "r3d18": (20.02, 0),
    "r3d50": (31.63, 0),
    "r2plus1d_18": (31.51, 400),
    "r2plus1d_50": (28.11, 400),
    "r3d_18": (33.37, 400),
    "mc3_18": (11.70, 400),
    "r2plus1d_34": (63.76, 400),
    "s3d": (8.32, 400),
    "x3d_xs": (3.79, 400),
    "x3d_s": (3.79, 400),
    "x3d_m": (3.79, 400),
    "x3d_l": (6.15, 400),
}


def build(name: str, **settings: Any) -> Backbone:
    torch.manual_seed(0)
    backbone: Backbone = choices("backbone")[name](**settings).build()
    return backbone


def activate_residual_branches(backbone: nn.Module) -> None:
    """Set the weights of every batch norm to 1, since those that start at 0 block the gradients of their branch."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.ones_(module.weight)


@pytest.fixture(scope="module", params=choices("backbone"))
def backbone(request: pytest.FixtureRequest) -> Backbone:
    backbone = build(request.param)
    activate_residual_branches(backbone)
    return backbone


def random_clips(backbone: Backbone, num_frames: int = 4, height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(2, 3, num_frames if backbone.takes_clips else 1, height, width)


def test_every_backbone_fulfills_the_contract(backbone: Backbone) -> None:
    clips = random_clips(backbone)

    backbone.train()
    features = backbone(clips)
    assert features.shape == (2, backbone.num_features)
    (features * torch.randn_like(features)).sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name

    backbone.eval()
    with torch.no_grad():
        features = backbone(clips)
        assert torch.equal(features, backbone(clips))
        assert torch.equal(features, copy.deepcopy(backbone)(clips))  # as for the momentum encoder
        torch.testing.assert_close(backbone(clips[:1]), features[:1], rtol=1e-4, atol=1e-5)  # independent of the batch
        assert not torch.allclose(features[0], features[1], rtol=1e-3)
        for num_frames, height, width in ((1, 32, 32), (5, 48, 40)):
            other = backbone(random_clips(backbone, num_frames, height, width))
            assert other.shape == (2, backbone.num_features)

    with pytest.raises(ValueError, match=rf"{backbone.name} takes \(B, C, T, H, W\), got shape \(3, 32, 32\)"):
        backbone(torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match=r"3 channels, got shape \(3, 4, 32, 32\); .* clip.unsqueeze\(0\)"):
        backbone(torch.zeros(3, 4, 32, 32))
    with pytest.raises(ValueError, match=r"3 channels, got shape \(2, 8, 3, 32, 32\); .* clips.transpose\(1, 2\)"):
        backbone(torch.zeros(2, 8, 3, 32, 32))
    if not backbone.takes_clips:
        with pytest.raises(ValueError, match=rf"{backbone.name} takes images .* T = 2 .* data.num_frames=1"):
            backbone(torch.zeros(1, 3, 2, 32, 32))


def test_a_batch_of_images_is_a_batch_of_clips_of_one_frame(backbone: Backbone) -> None:
    backbone.eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(backbone(images), backbone(images.unsqueeze(2)))


def test_feature_maps_are_the_stages_before_pooling(backbone: Backbone) -> None:
    backbone.eval()
    clips = random_clips(backbone, height=64, width=96)
    maps = backbone.feature_maps(clips)
    assert [tuple(stage.shape[-2:]) for stage in maps.values()][-3:] == [(8, 12), (4, 6), (2, 3)] or (
        backbone.name
        in ("r2plus1d_18", "r3d_18", "mc3_18", "r2plus1d_small")  # they reduce height and width by 16, not 32
    )
    assert all(stage.ndim == 5 and len(stage) == 2 for stage in maps.values())
    assert {name: stage.shape[1] for name, stage in maps.items()} == backbone.stage_channels()
    parameters = [name.rpartition(".")[0] for name in backbone.state_dict()]
    assert all(any(parameter.startswith(f"{name}.") for parameter in parameters) for name in maps)
    last = list(maps.values())[-1]
    if not backbone.name.startswith("x3d"):  # its head convolves the last map before and after pooling
        torch.testing.assert_close(last.mean(dim=(2, 3, 4)), backbone(clips))

    of_images = backbone.feature_maps(clips[:, :, 0])
    assert all(stage.ndim == 4 for stage in of_images.values())
    assert list(of_images) == list(maps)

    backbone.zero_grad()
    next(iter(maps.values())).sum().backward()
    assert next(backbone.parameters()).grad is not None


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_number_of_parameters_is_as_published(name: str) -> None:
    millions, num_classes = PUBLISHED[name]
    with torch.device("meta"):
        backbone = build(name)
    classifier = num_classes * (backbone.num_features + 1) if num_classes else 0
    count = sum(parameter.numel() for parameter in backbone.parameters()) + classifier
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize(("name", "num_blocks"), [("r3d18", 8), ("r3d50", 16)])
def test_residual_branches_are_initially_zero(name: str, num_blocks: int) -> None:
    norms = [module for module in build(name).modules() if isinstance(module, nn.BatchNorm3d)]
    assert sum(not norm.weight.any() for norm in norms) == num_blocks


def test_slow_only_networks_keep_every_frame() -> None:
    x = torch.zeros(1, 3, 5, 32, 32)
    backbone = build("r3d18")
    assert isinstance(backbone, BlockBackbone)
    for block in backbone.blocks:
        x = block(x)
        assert x.shape[2] == 5


def test_small_input_keeps_the_resolution_of_the_first_stage() -> None:
    backbone = build("resnet18", small_input=True)
    assert isinstance(backbone, ResNet2d)
    x = torch.zeros(2, 3, 32, 32)
    assert backbone.maxpool(backbone.conv1(x)).shape == (2, 64, 32, 32)


def test_the_small_network_rejects_a_width_of_zero() -> None:
    with pytest.raises(ValueError, match="width=0"):
        build("r2plus1d_small", width=0)
    assert invalid_settings(SmallR2Plus1DConfig(width=0, num_blocks=-1), "backbone") == [
        "backbone.width=0 must be at least 1",
        "backbone.num_blocks=-1 must be at least 1",
    ]


@pytest.mark.parametrize("name", choices("backbone"))
def test_every_choice_is_a_backbone_config(name: str) -> None:
    assert isinstance(choices("backbone")[name](), BackboneConfig)


@pytest.mark.parametrize("takes_clips", [True, False])
def test_any_network_becomes_a_backbone(takes_clips: bool) -> None:
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(7))
    backbone = NetworkBackbone("mine", 7, network, takes_clips)
    assert backbone(torch.zeros(2, 3, 1, 4, 4)).shape == (2, 7)
    if not takes_clips:
        with pytest.raises(ValueError, match="backbone mine takes images"):
            backbone(torch.zeros(2, 3, 5, 4, 4))


# Recorded networks of the public code: (our choice, settings, prefix of the public keys, classes of the classifier).
RECORDED: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "resnet18_no_fc": ("resnet18", {}, "", 0),
    "resnet18_small_input_no_fc": ("resnet18", {"small_input": True}, "", 0),
    "r3d18_no_fc": ("r3d18", {}, "model.", 0),
    "r3d50_slow_no_fc": ("r3d50", {}, "model.", 0),
    "r2plus1d_50_head400": ("r2plus1d_50", {}, "", 400),
    "x3d_s_head400": ("x3d_s", {}, "", 400),
    "x3d_xs_head10": ("x3d_xs", {}, "", 10),
}


@pytest.mark.parametrize("case", RECORDED)
def test_outputs_match_the_public_code(case: str) -> None:
    name, settings, prefix, num_classes = RECORDED[case]
    backbone = build(name, **settings).double().eval()
    entries = {entry["name"]: entry for entry in json.loads((VECTORS / "backbones.json").read_text())["backbones"]}
    key, _, shape = entries[case]["input"].removeprefix("hash_sym('").partition("',")
    inputs = hash_sym(key, tuple(json.loads(shape[: shape.index("]") + 1])))
    clips = inputs if inputs.ndim == 5 else inputs.unsqueeze(2)

    backbone.load_state_dict({key: filled(prefix + key, value.shape) for key, value in backbone.state_dict().items()})
    with torch.no_grad():
        outputs = backbone(clips)
    if num_classes:
        weight = filled("blocks.5.proj.weight", (num_classes, backbone.num_features))
        outputs = outputs @ weight.T + filled("blocks.5.proj.bias", (num_classes,))

    expected = torch.from_numpy(np.load(VECTORS / "backbones.npz")[case])
    torch.testing.assert_close(outputs, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("case", "name", "settings", "prefix"),
    [
        ("resnet18_no_fc", "resnet18", {}, ""),
        ("resnet18_small_input_no_fc", "resnet18", {"small_input": True}, ""),
        ("resnet50_no_fc", "resnet50", {}, ""),
        ("resnet50_small_input_no_fc", "resnet50", {"small_input": True}, ""),
        ("r3d18_no_fc_no_head", "r3d18", {}, ""),
        ("r3d18_no_fc", "r3d18", {}, "model."),
        ("r3d50_slow_no_fc", "r3d50", {}, "model."),
        ("r2plus1d_18_torchvision_repaired", "r2plus1d_18", {}, ""),
        ("r2plus1d_50_no_head", "r2plus1d_50", {}, ""),
        ("x3d_s_head400", "x3d_s", {}, ""),
        ("x3d_xs_head10", "x3d_xs", {}, ""),
    ],
)
def test_state_dict_keys_and_shapes_match_the_public_code(
    case: str, name: str, settings: dict[str, Any], prefix: str
) -> None:
    public = json.loads((VECTORS / "state_dict_keys.json").read_text())[case]
    with torch.device("meta"):
        state = build(name, **settings).state_dict()
    lines = sorted(f"{prefix}{key} {list(value.shape)}" for key, value in state.items())
    assert len(lines) == public["tensors"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == public["sha256"]
