"""Tests of the formats of public video networks, by recorded outputs and by networks written here."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from formula import filled, filled_state, hash_sym
from torch import Tensor, nn
from torch.nn import functional

from eztorch_sce.errors import ConfigError
from eztorch_sce.interop import accounting
from eztorch_sce.interop.containers import Container, read_container
from eztorch_sce.interop.import_weights import Choices, Imported, examine, import_container
from eztorch_sce.interop.layouts import LAYOUTS, Network, shapes_of
from eztorch_sce.models.backbones.base import as_backbone, build_network

pytestmark = pytest.mark.xdist_group("video_formats")

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
ENTRIES = {entry["name"]: entry for entry in json.loads((VECTORS / "backbones.json").read_text())["backbones"]}
TRAINING = {"epoch": 3, "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 0.1}]}}


def recorded(case: str) -> tuple[Tensor, Tensor]:
    """Return the input and the output of a recorded network."""
    key, _, shape = ENTRIES[case]["input"].removeprefix("hash_sym('").partition("',")
    inputs = hash_sym(key, tuple(json.loads(shape[: shape.index("]") + 1])))
    return inputs, torch.from_numpy(np.load(VECTORS / "backbones.npz")[case])


def names_of(network: Network, layout: str, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network by its names in a layout, the second ones of layers included."""
    names = LAYOUTS[layout]
    return {
        prefix + theirs: tuple(shape)
        for ours, shape in shapes_of(network).items()
        for theirs in names.names(names.theirs(ours))
    }


def contained(content: Mapping[str, Any]) -> Container:
    """Return what a file with this content holds."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}

    def add(value: Any, path: str) -> None:
        if isinstance(value, Mapping):
            for name, item in value.items():
                add(item, f"{path}.{name}" if path else str(name))
        elif isinstance(value, Tensor):
            tensors[path] = value
        else:
            values[path] = value

    add(content, "")
    return Container("torch.save (zip)", tensors, values, {})


def with_module(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def network_of(imported: Imported) -> nn.Module:
    """Return the imported network in float64, after checking that every tensor of the file has a row."""
    held = set(imported.found.container.tensors)
    assert {row.theirs for row in imported.rows} - {""} == held
    assert not accounting.problems(imported.rows)
    network = as_backbone(build_network(imported.config))
    network.load_state_dict(imported.state)
    return network.double().eval()


def assert_equal_outputs(imported: Imported, clips: Tensor, expected: Tensor, with_head: bool = False) -> None:
    """Compare with a network that may have had its weights in float64."""
    with torch.no_grad():
        outputs = network_of(imported)(clips.double())
        if with_head:
            assert imported.head is not None
            outputs = functional.linear(outputs, imported.head["weight"].double(), imported.head["bias"].double())
    torch.testing.assert_close(outputs, expected.double(), rtol=1e-5, atol=1e-5 * expected.abs().max().item())


# CoCLR: S3D, whose layers it registers twice


@pytest.fixture(scope="module")
def coclr() -> dict[str, Tensor]:
    state = filled_state(names_of(Network("s3d"), "coclr"))
    first_of = {twin: name for name in state for twin in LAYOUTS["coclr"].names(name)[1:]}
    return {name: state[first_of.get(name, name)] for name in state}


def coclr_file(online: Mapping[str, Tensor], momentum: Mapping[str, Tensor]) -> dict[str, Any]:
    state = {
        **with_module(online, "encoder_q.0."),
        **with_module(momentum, "encoder_k.0."),
        **{f"encoder_{which}.{layer}.bias": torch.zeros(128) for which in "qk" for layer in (2, 4)},
        "queue": torch.zeros(128, 64),
        "queue_ptr": torch.zeros(1, dtype=torch.long),
        "queue_label": torch.zeros(64, dtype=torch.long),
    }
    return {**TRAINING, "state_dict": state, "best_acc": 0.5, "iteration": 7}


def test_coclr_gives_the_recorded_outputs(coclr: dict[str, Tensor], tmp_path: Path) -> None:
    clips, expected = recorded("s3d_no_fc")
    momentum = {name: tensor / 2 for name, tensor in coclr.items()}
    torch.save(coclr_file(coclr, momentum), tmp_path / "epoch3.pth.tar")
    container = read_container(tmp_path / "epoch3.pth.tar")

    imported = import_container(container, "epoch3.pth.tar")
    assert (imported.found.format.name, imported.found.encoder) == ("coclr", "encoder_q")
    assert (imported.spec.size, imported.spec.num_frames, imported.spec.stats) == (128, 32, "image")
    assert imported.head is None
    assert_equal_outputs(imported, clips, expected)
    other = import_container(container, "epoch3.pth.tar", Choices(encoder="encoder_k"))
    assert torch.equal(other.state["blocks.2.0.weight"], imported.state["blocks.2.0.weight"] / 2)


@pytest.mark.parametrize("kept", [r"block", r"Conv_|Mixed_"])
def test_coclr_needs_only_one_of_the_names_of_a_layer(coclr: dict[str, Tensor], kept: str) -> None:
    clips, expected = recorded("s3d_no_fc")
    state = {name: tensor for name, tensor in coclr.items() if name.startswith(tuple(kept.split("|")))}
    assert_equal_outputs(import_container(contained({"state_dict": state}), "file"), clips, expected)


def test_a_layer_that_differs_between_its_names_is_refused(coclr: dict[str, Tensor]) -> None:
    changed = coclr | {"Mixed_4d.branch3.1.conv.weight": coclr["Mixed_4d.branch3.1.conv.weight"] + 1}
    with pytest.raises(
        ConfigError, match=r"0\.Mixed_4d.branch3.1.conv.weight differs from .*block4.3.branch3.1.conv.weight"
    ):
        import_container(contained(coclr_file(changed, coclr)), "file")


def test_a_classifier_of_coclr_keeps_its_head(coclr: dict[str, Tensor]) -> None:
    head = {"final_fc.1.weight": torch.randn(101, 1024), "final_fc.1.bias": torch.zeros(101)}
    imported = import_container(contained({"state_dict": with_module(coclr, "backbone.") | head}), "file")
    assert imported.head is not None
    assert torch.equal(imported.head["weight"], head["final_fc.1.weight"])
    network_of(imported)


# torchvision and what is built on its networks


def torchvision_network(name: str, num_classes: int = 400) -> nn.Module:
    from torchvision.models import get_model

    network: nn.Module = get_model(name, weights=None, num_classes=num_classes)
    network.load_state_dict(filled_state({key: tuple(value.shape) for key, value in network.state_dict().items()}))
    return network.double().eval()


def as_saved(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in network.state_dict().items()
    }


@pytest.mark.parametrize(
    "name",
    [
        "mc3_18",
        "s3d",
        pytest.param("r3d_18", marks=pytest.mark.long),
        pytest.param("r2plus1d_18", marks=pytest.mark.long),
    ],
)
def test_networks_of_torchvision_give_its_outputs(name: str, tmp_path: Path) -> None:
    network: Any = torchvision_network(name)
    if name == "s3d":
        network.avgpool.kernel_size = (2, 1, 1)  # as it is cut to the map of a frame of 32 px, of 1 x 1
    torch.save(as_saved(network), tmp_path / f"{name}.pth")
    imported = import_container(read_container(tmp_path / f"{name}.pth"), name)
    assert (imported.found.format.name, imported.found.network.backbone) == ("torchvision_video", name)
    wanted = (128, 224, 128 / 15) if name == "s3d" else (16, 112, 16 / 15)
    assert (imported.spec.num_frames, imported.spec.size, imported.spec.clip_s) == wanted
    clips = hash_sym("clips", (1, 3, 24, 32, 32))  # 3 frames at the end of s3d, whose windows of 2 overlap
    with torch.no_grad():
        assert_equal_outputs(imported, clips, network(clips), with_head=True)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) for name in ("r3d_18", "r2plus1d_18")] + ["mc3_18"]
)
def test_videomoco_gives_the_features_of_its_query_encoder(name: str) -> None:
    query, key = torchvision_network(name, num_classes=128), torchvision_network(name, num_classes=128)
    state = with_module(as_saved(query), "module.encoder_q.") | with_module(as_saved(key), "module.encoder_k.")
    state |= {"module.queue": torch.zeros(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    imported = import_container(contained({"epoch": 200, "arch": name, "state_dict": state}), "file")
    assert (imported.found.format.name, imported.found.encoder) == ("videomoco", "encoder_q")
    assert imported.head is None  # its fc is a projector, although it looks like a classifier of 128 classes
    assert imported.spec.stats == "image"
    query.fc = nn.Identity()
    clips = hash_sym("clips", (1, 3, 4, 32, 32))
    with torch.no_grad():
        assert_equal_outputs(imported, clips, query(clips))


@pytest.fixture(scope="module")
def tclr() -> nn.Module:
    """R3D-18 whose last stage keeps the number of frames, by a dilation under equal shapes."""
    network: Any = torchvision_network("r3d_18")
    network.fc = nn.Identity()
    first, shortcut = network.layer4[0].conv1[0], network.layer4[0].downsample[0]
    first.stride, first.padding, first.dilation = (1, 2, 2), (2, 1, 1), (2, 1, 1)
    shortcut.stride = (1, 2, 2)
    return network  # type: ignore[no-any-return]


@pytest.mark.parametrize("prefix", ["module.0.", pytest.param("0.", marks=pytest.mark.long)])
def test_tclr_keeps_its_frames_and_takes_blue_first(tclr: nn.Module, prefix: str) -> None:
    head = {f"1.{name}": torch.zeros(512) for name in ("fc1.weight", "fc1.bias", "bn1.running_mean")}
    state = with_module(as_saved(tclr), prefix) | with_module(head, prefix.removesuffix("0."))
    imported = import_container(contained({**TRAINING, "state_dict": state, "learning_rate": 1e-3}), "file")
    assert imported.found.format.name == "tclr"
    frames = hash_sym("clips", (1, 3, 8, 32, 32))
    with torch.no_grad():
        expected = tclr(frames.flip(1))  # as OpenCV decodes them
    assert_equal_outputs(imported, frames, expected)


def test_the_gradient_scaler_in_files_of_tclr_is_no_obstacle(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu")
    torch.save({"state_dict": {"a": torch.ones(2)}, "amp_scaler": scaler}, tmp_path / "model_temp.pth")
    container = read_container(tmp_path / "model_temp.pth")
    assert list(container.tensors) == ["state_dict.a"]
    assert container.objects == {"amp_scaler": "torch.amp.grad_scaler.GradScaler"}


def test_a_classifier_of_tclr_is_told_by_its_name_only(tclr: nn.Module) -> None:
    content = contained({"state_dict": with_module(as_saved(tclr), "module.")})
    assert import_container(content, "file").found.format.name == "torchvision_video"
    named = import_container(content, "file", Choices(format="tclr_classifier"))
    assert named.config.dilate_last is True  # type: ignore[attr-defined]


def test_averages_and_numbers_beside_the_network_are_accounted_for() -> None:
    state = ones(names_of(Network("mc3_18"), "torchvision_video")) | linear("fc", 400, 512)
    average = {"n_averaged": torch.tensor(9)} | with_module(
        {name: tensor / 2 for name, tensor in state.items()}, "module."
    )
    content = contained({"model": state, "model_ema": average, "best_acc1": torch.tensor([82.5])})
    network = import_container(content, "file")
    assert list(network.found.encoders) == ["network", "ema"]
    assert {row.note for row in network.rows if row.theirs == "best_acc1"} == {"number of the training"}
    average_of = import_container(content, "file", Choices(encoder="ema"))
    assert torch.equal(average_of.state["stem.0.weight"], network.state["stem.0.weight"] / 2)


# The slow network of 50 layers under several names


@pytest.fixture(scope="module")
def slow50() -> dict[str, Tensor]:
    """The recorded network by our names."""
    shapes = shapes_of(Network("r3d50"))
    return {name: filled(f"model.{name}", tuple(shape)).float() for name, shape in shapes.items()}


def renamed(state: Mapping[str, Tensor], layout: str, prefix: str) -> dict[str, Tensor]:
    return {prefix + LAYOUTS[layout].theirs(name): tensor for name, tensor in state.items()}


def linear(name: str, num_classes: int = 400, width: int = 2048) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(num_classes, width), f"{name}.bias": torch.zeros(num_classes)}


SLOW50: dict[str, tuple[str, Callable[[dict[str, Tensor]], dict[str, Any]]]] = {
    "slowfast": ("slowfast", lambda s: {"model_state": renamed(s, "slowfast", "") | linear("head.projection")}),
    "slowfast_ssl": (
        "slowfast_ssl",
        lambda s: {
            "model_state": {
                **renamed(s, "slowfast", "backbone."),
                **{name: tensor / 2 for name, tensor in renamed(s, "slowfast", "backbone_hist.").items()},
                **linear("backbone.head.projection", 128),  # a projector of one layer
                **{"queue_x": torch.zeros(64, 128), "ptr": torch.zeros(1), "iter": torch.zeros(1)},
            },
            "epoch": 199,
        },
    ),
    "mmaction2": (
        "mmaction",
        lambda s: {"state_dict": renamed(s, "mmaction", "backbone.") | linear("cls_head.fc_cls"), "meta": {"epoch": 2}},
    ),
    "mmaction2 before .conv": (
        "mmaction",
        lambda s: {"state_dict": renamed(s, "mmaction_without_conv", "backbone.") | linear("cls_head.fc_cls")},
    ),
    "pytorchvideo": ("pytorchvideo", lambda s: {"model_state": s | linear("blocks.5.proj")}),
}


@pytest.mark.parametrize(
    "case", [case if case != "pytorchvideo" else pytest.param(case, marks=pytest.mark.long) for case in SLOW50]
)
def test_the_slow_network_gives_the_recorded_outputs(case: str, slow50: dict[str, Tensor]) -> None:
    format_name, wrapped = SLOW50[case]
    imported = import_container(contained(wrapped(slow50)), "file")
    assert imported.found.format.name == format_name
    assert (imported.head is None) == (case == "slowfast_ssl")
    clips, expected = recorded("r3d50_slow_no_fc")
    assert_equal_outputs(imported, clips, expected)


def test_the_moving_average_of_slowfast_can_be_chosen(slow50: dict[str, Tensor]) -> None:
    content = contained(SLOW50["slowfast_ssl"][1](slow50))
    imported = import_container(content, "file", Choices(encoder="backbone_hist"))
    assert torch.equal(imported.state["blocks.0.conv.weight"], slow50["blocks.0.conv.weight"] / 2)


def ones(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return tensors without memory, for tests of what names and settings say."""
    return {name: torch.ones(()).expand(shape) for name, shape in shapes.items()}


SLOWFAST_CFG = """BN:
  NORM_TYPE: batchnorm
DATA:
  MEAN:
  - 0.1
  - 0.2
  - 0.3
  NUM_FRAMES: 4
  REVERSE_INPUT_CHANNEL: true
  SAMPLING_RATE: 16
  STD: [0.4, 0.5, 0.6]
  TARGET_FPS: 30
  TRAIN_CROP_SIZE: 224
RESNET:
  DEPTH: 50
  SPATIAL_DILATIONS:
  - - 1
  - - 1
  - - 1
  - - 1
  STRIDE_1X1: false
"""


def slowfast_file(cfg: str) -> Container:
    return contained({"model_state": ones(names_of(Network("r3d50"), "slowfast")), "cfg": cfg})


def test_the_settings_in_a_file_of_slowfast_are_its_facts() -> None:
    imported = import_container(slowfast_file(SLOWFAST_CFG), "file")
    assert (imported.spec.num_frames, imported.spec.clip_s, imported.spec.size) == (4, 64 / 30, 224)
    assert imported.found.facts.stats == ((0.3, 0.2, 0.1), (0.6, 0.5, 0.4))
    assert [row.theirs for row in imported.rows if row.note == "from BGR to RGB"] == [
        "model_state.s1.pathway0_stem.conv.weight"
    ]
    assert imported.notes == []


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("STRIDE_1X1: false", "STRIDE_1X1: true", r"RESNET.STRIDE_1X1=True in its cfg"),
        ("  - - 1\n  STRIDE", "  - - 2\n  STRIDE", r"RESNET.SPATIAL_DILATIONS=\[1, 1, 1, 2\] in its cfg"),
    ],
)
def test_settings_of_slowfast_that_our_networks_lack_are_refused(old: str, new: str, named: str) -> None:
    assert old in SLOWFAST_CFG
    with pytest.raises(ConfigError, match=named):
        import_container(slowfast_file(SLOWFAST_CFG.replace(old, new)), "file")


MMACTION_CONFIG = """model = dict(
    type='Recognizer3D',
    backbone=dict(type='ResNet3dSlowOnly', depth=50, style='pytorch', spatial_strides=(1, 2, 2, 2)),
    cls_head=dict(type='I3DHead'))
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], to_bgr=True)
train_pipeline = [dict(type='SampleFrames', clip_len=4, frame_interval=16, num_clips=1)]
"""


def mmaction_file(config: str, more: Mapping[str, Tensor] = {}) -> Container:
    state = ones(names_of(Network("r3d50"), "mmaction", "backbone.")) | linear("cls_head.fc_cls") | dict(more)
    return contained({"state_dict": state, "meta": {"config": config}})


def test_the_config_in_a_file_of_mmaction_is_its_facts() -> None:
    imported = import_container(mmaction_file(MMACTION_CONFIG), "file")
    assert (imported.spec.num_frames, imported.spec.frame_stride, imported.spec.stats) == (4, 16, "image")
    assert any(row.note == "from BGR to RGB" for row in imported.rows)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("'pytorch'", "'caffe'", "style=caffe in its config"),
        ("(1, 2, 2, 2)", "(1, 2, 2, 1)", r"spatial_strides=\(1, 2, 2, 1\) in its config"),
        ("depth=50", "depth=50, norm_cfg=dict(type='BN3d', eps=1e-3)", r"eps=0.001 of batch norm in its config"),
    ],
)
def test_configs_of_mmaction_that_our_networks_lack_are_refused(old: str, new: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        import_container(mmaction_file(MMACTION_CONFIG.replace(old, new)), "file")


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("roi_head.bbox_head.fc_cls.weight", "the last stage of a detector"),
        ("backbone.layer3.0.non_local_block.g.conv.weight", "non-local blocks"),
        ("backbone.layer1.0.conv1.conv.net.weight", "temporal shifts"),
    ],
)
def test_parts_of_mmaction_that_our_networks_lack_are_refused(name: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        import_container(mmaction_file("", {name: torch.ones(4, 4)}), "file")


def test_slowfast_with_two_pathways_is_refused_in_words() -> None:
    state = ones(names_of(Network("r3d50"), "slowfast")) | {"s1.pathway1_stem.conv.weight": torch.ones(8, 3, 5, 7, 7)}
    with pytest.raises(ConfigError, match=r"two pathways \(SlowFast\)"):
        import_container(contained({"model_state": state}), "file")
    alone = {"blocks.0.multipathway_blocks.0.conv.weight": torch.ones(64, 3, 1, 7, 7)}
    with pytest.raises(ConfigError, match=r"a network with two pathways \(SlowFast\), for which there is no backbone"):
        import_container(contained({"model_state": alone}), "file")


def test_a_multiscale_vision_transformer_is_refused_in_words() -> None:
    state = {
        "patch_embed.proj.weight": torch.ones(96, 3, 3, 7, 7),
        "blocks.0.attn.pool_q.weight": torch.ones(96, 1, 3, 3, 3),
    }
    with pytest.raises(ConfigError, match=r"multiscale vision transformer \(MViT\).*--help"):
        import_container(contained({"model_state": state}), "file")


def test_nonsense_in_stored_settings_is_passed_over() -> None:
    cfg = "DATA:\n  NUM_FRAMES: many\n  SAMPLING_RATE: -3\n  MEAN: [a, b]\n  TARGET_FPS: 0\nRESNET: [[[["
    imported = examine(slowfast_file(cfg), "file")
    assert (imported.spec.num_frames, imported.spec.stats) == (8, "video")


# Other networks of pytorchvideo and mmaction2


@pytest.mark.parametrize(
    ("case", "network", "num_classes"),
    [
        ("x3d_xs_head10", "x3d_xs", 10),
        pytest.param("x3d_s_head400", "x3d_s", 400, marks=pytest.mark.long),
        pytest.param("r2plus1d_50_head400", "r2plus1d_50", 400, marks=pytest.mark.long),
    ],
)
def test_networks_of_pytorchvideo_give_the_recorded_logits(case: str, network: str, num_classes: int) -> None:
    shapes = {name: tuple(shape) for name, shape in shapes_of(Network(network)).items()}
    width = 2048
    state = filled_state(shapes | {"blocks.5.proj.weight": (num_classes, width), "blocks.5.proj.bias": (num_classes,)})
    imported = import_container(contained({"model_state": state}), "file")
    assert imported.found.format.name == "pytorchvideo"
    assert ("one network for different clips" in " ".join(imported.notes)) == network.startswith("x3d")
    clips, expected = recorded(case)
    assert_equal_outputs(imported, clips, expected, with_head=True)


@pytest.mark.parametrize("with_conv", [True, False])
def test_segment_networks_of_mmaction_are_resnets_for_images(with_conv: bool) -> None:
    layout = "mmaction_images" if with_conv else "torchvision"
    state = {
        f"backbone.{LAYOUTS[layout].theirs(name)}": filled(name, tuple(shape)).float()
        for name, shape in shapes_of(Network("resnet18")).items()
    }
    imported = import_container(contained({"state_dict": state | linear("cls_head.fc_cls", 400, 512)}), "file")
    assert (imported.found.format.name, imported.spec.num_frames, imported.spec.size) == ("mmaction", 1, 224)
    images, expected = recorded("resnet18_no_fc")
    assert_equal_outputs(imported, images, expected)


def test_the_config_of_a_segment_network_decides_its_strides() -> None:
    state = ones(names_of(Network("resnet50"), "mmaction_images", "backbone.")) | linear("cls_head.fc_cls")
    config = {"model": {"backbone": {"type": "ResNet", "style": "caffe", "norm_cfg": {"type": "BN", "eps": 1e-3}}}}
    imported = import_container(contained({"state_dict": state, "meta": {"config": config}}), "file")
    assert imported.config.stride_in_1x1 is True  # type: ignore[attr-defined]
    assert imported.config.norm_eps == 1e-3  # type: ignore[attr-defined]


class Split:
    """A (2+1)D network of basic blocks, computed from the names of its tensors.

    Args:
        state: Its tensors by name.
        eps: Epsilon of batch norm after a convolution; between its parts, it is 1e-5.
        is_pooled: Whether a max-pooling follows the first convolution.
        parts: Names in a split convolution: in space, batch norm, in time.
    """

    def __init__(self, state: Mapping[str, Tensor], eps: float, is_pooled: bool, parts: tuple[str, str, str]) -> None:
        self.state = {name: tensor.double() for name, tensor in state.items()}
        self.eps, self.is_pooled, self.parts = eps, is_pooled, parts

    def norm(self, x: Tensor, name: str, eps: float) -> Tensor:
        mean, var, weight, bias = (
            self.state[f"{name}.{part}"][:, None, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + eps) * weight + bias

    def split(self, x: Tensor, name: str, stride: tuple[int, int]) -> Tensor:
        space, time = (self.state[f"{name}.{part}.weight"] for part in self.parts[::2])
        in_space, in_time = space.shape[-1] // 2, time.shape[2] // 2
        x = functional.conv3d(x, space, stride=(1, stride[1], stride[1]), padding=(0, in_space, in_space))
        x = self.norm(x, f"{name}.{self.parts[1]}", 1e-5).relu()
        return functional.conv3d(x, time, stride=(stride[0], 1, 1), padding=(in_time, 0, 0))

    def block(self, x: Tensor, names: Mapping[str, str], stride: int) -> Tensor:
        """Return the output of a block; `names` are those of its convolutions and batch norms."""
        y = self.norm(self.split(x, names["conv1"], (stride, stride)), names["bn1"], self.eps).relu()
        y = self.norm(self.split(y, names["conv2"], (1, 1)), names["bn2"], self.eps)
        if f"{names['downsample_bn']}.weight" in self.state:
            x = self.norm(self.split(x, names["downsample"], (stride, stride)), names["downsample_bn"], self.eps)
        return (x + y).relu()

    def features(self, clips: Tensor, stem: tuple[str, str], blocks: list[tuple[int, dict[str, str]]]) -> Tensor:
        """Return the averaged last map; `blocks` are pairs of a stride and names."""
        x = self.norm(self.split(clips, stem[0], (1, 2)), stem[1], self.eps).relu()
        if self.is_pooled:
            x = functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for stride, names in blocks:
            x = self.block(x, names, stride)
        return x.mean(dim=(2, 3, 4))


@pytest.mark.parametrize(
    "config",
    [pytest.param("", marks=pytest.mark.long), "model=dict(backbone=dict(norm_cfg=dict(type='SyncBN', eps=1e-2)))"],
)
def test_split_networks_of_mmaction_give_the_outputs_of_its_layers(config: str) -> None:
    small = Network("r2plus1d_34", (("num_blocks", (2, 2, 2, 2)),))
    state = filled_state(names_of(small, "mmaction_r2plus1d"))
    names = [f"layer{stage}.{block}." for stage in range(1, 5) for block in range(2)]
    blocks = [
        (
            2 if name.endswith(".0.") and not name.startswith("layer1") else 1,
            {
                **{f"conv{i}": f"{name}conv{i}.conv" for i in (1, 2)},
                **{f"bn{i}": f"{name}conv{i}.bn" for i in (1, 2)},
                **{"downsample": f"{name}downsample.conv", "downsample_bn": f"{name}downsample.bn"},
            },
        )
        for name in names
    ]
    assert state["layer2.0.downsample.conv.conv_s.weight"].shape == (54, 64, 1, 1, 1)  # 3 * 64 * 128 / (64 + 3 * 128)
    clips = hash_sym("clips", (1, 3, 8, 32, 32))
    network = Split(state, 1e-2 if config else 1e-3, True, ("conv_s", "bn_s", "conv_t"))
    expected = network.features(clips, ("conv1.conv", "conv1.bn"), blocks)
    content = {"state_dict": with_module(state, "backbone.") | linear("cls_head.fc_cls", 400, 512)}
    imported = import_container(contained(content | {"meta": {"config": config}}), "file")
    assert (imported.found.format.name, imported.found.network) == ("mmaction", small)
    assert_equal_outputs(imported, clips, expected)


def test_split_networks_of_the_public_sce_code_give_the_outputs_of_its_layers() -> None:
    layout = LAYOUTS["sce_r2plus1d"]
    network = next(each for each in layout.networks if dict(each.settings)["num_blocks"] == (1, 1, 1, 1))
    state = filled_state(names_of(network, "sce_r2plus1d"))
    stem = {"stem.0": "spatial_conv", "stem.1": "bn", "stem.3": "temporal_conv"}
    as_split = {
        f"stem.{part}{name.removeprefix(old)}": state[name]
        for old, part in stem.items()
        for name in state
        if name.startswith(f"{old}.")
    }
    blocks = [
        (
            1 if stage == 1 else 2,
            {
                **{part: f"layer{stage}.block1.{part}" for part in ("conv1", "conv2", "bn1", "bn2")},
                "downsample": f"layer{stage}.block1.downsampleconv",
                "downsample_bn": f"layer{stage}.block1.downsamplebn",
            },
        )
        for stage in range(1, 5)
    ]
    clips = hash_sym("clips", (1, 3, 8, 32, 32))
    written = Split(state | as_split, 1e-5, False, ("spatial_conv", "bn", "temporal_conv"))
    expected = written.features(clips, ("stem", "stem.4"), blocks)
    imported = import_container(contained({"state_dict": with_module(state, "trunk.")}), "file")
    assert imported.found.network == network
    assert_equal_outputs(imported, clips, expected)
