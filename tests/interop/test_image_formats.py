"""Tests of the formats of images: files in the layout of each code base give what its own network computes."""

import itertools
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from formula import filled_state, hash_sym
from reference_resnet import Source
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import get_model

from eztorch_sce.augment.statistics import STATISTICS
from eztorch_sce.errors import ConfigError
from eztorch_sce.interop import accounting
from eztorch_sce.interop.containers import read_container
from eztorch_sce.interop.import_weights import Choices, Imported, import_container, import_file
from eztorch_sce.models.backbones.base import as_backbone, build_network
from eztorch_sce.models.backbones.timm_models import TimmConfig

State = dict[str, Tensor]
pytestmark = pytest.mark.xdist_group("image_formats")  # they share the weights

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
RGB = Source()
SWAV = Source(std=(0.228, 0.224, 0.225))
UNIT = Source((0, 0, 0), (1, 1, 1))
SOLO = Source((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), padding=2)
CIFAR = Source((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), padding=1)
MSRA = Source((103.53, 116.28, 123.675), (1, 1, 1), 255, is_bgr=True, stride_in_1x1=True)
CAFFE = Source((103.53, 116.28, 123.675), (1, 1, 1), 255, is_bgr=True)


@cache
def resnet(name: str = "resnet18", small: bool = False) -> State:
    """Return a ResNet in torchvision's names without a classifier."""
    with torch.device("meta"):
        net = get_model(name)
        net.fc = nn.Identity()
        if small:
            net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    return filled_state({key: tuple(tensor.shape) for key, tensor in net.state_dict().items()})


def other(state: State) -> State:
    """Return another network of the same shapes."""
    return {key: tensor.flip(0) if tensor.ndim else tensor for key, tensor in state.items()}


def under(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


def without_counters(state: State) -> State:
    return {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}


def linear(name: str, num_in: int, num_out: int, bias: bool = True) -> State:
    weight = {f"{name}.weight": hash_sym(name, (num_out, num_in)).float()}
    return weight | ({f"{name}.bias": torch.zeros(num_out)} if bias else {})


def norm(name: str, width: int, affine: bool = True) -> State:
    parts = {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)} if affine else {}
    return {
        **parts,
        f"{name}.running_mean": torch.zeros(width),
        f"{name}.running_var": torch.ones(width),
        f"{name}.num_batches_tracked": torch.tensor(3),
    }


def children(state: State, first_stage: int = 4) -> State:
    """Return the names in nn.Sequential(*resnet.children())."""
    places = {"conv1": 0, "bn1": 1} | {f"layer{stage}": first_stage + stage - 1 for stage in range(1, 5)}
    parts = ((*key.partition("."), tensor) for key, tensor in state.items())
    return {f"{places[module]}.{rest}": tensor for module, _, rest, tensor in parts}


def shortcut(state: State) -> State:
    return {key.replace("downsample", "shortcut"): tensor for key, tensor in state.items()}


def detectron2(state: State) -> State:
    """Return Detectron2's names, as its own conversion of torchvision's makes them."""
    names = {}
    for key in without_counters(state):
        name = key if "layer" in key else f"stem.{key}"
        for number in (4, 3, 2, 1):
            name = name.replace(f"layer{number}", f"res{number + 1}").replace(f"bn{number}", f"conv{number}.norm")
        names[key] = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    return {names[key]: state[key] for key in names}


def transformers(state: State) -> State:
    """Return the names of transformers, without `resnet.`."""
    names = {}
    for key in state:
        parts = key.split(".")
        leaf = parts[-1]
        if parts[0] in ("conv1", "bn1"):
            what = "convolution" if parts[0] == "conv1" else "normalization"
            names[key] = f"embedder.embedder.{what}.{leaf}"
            continue
        layer = f"encoder.stages.{int(parts[0][5:]) - 1}.layers.{parts[1]}"
        if parts[2] == "downsample":
            names[key] = f"{layer}.shortcut.{'convolution' if parts[3] == '0' else 'normalization'}.{leaf}"
        else:
            what = "convolution" if parts[2].startswith("conv") else "normalization"
            names[key] = f"{layer}.layer.{int(parts[2][-1]) - 1}.{what}.{leaf}"
    return {names[key]: tensor for key, tensor in state.items()}


@dataclass
class Case:
    """A file in the layout of a code base.

    Attributes:
        format: Name of the format that it is recognized as.
        content: Content of the file from a network and another one of the same shapes.
        source: What the code base computes.
        encoders: Its encoders by name, in order, and whether they are the other network.
        size: Side of its images in pixels.
        net: The network.
        choices: What the user says.
        configs: JSON files in the folder of the file.
        suffix: Of the file; .pkl is a pickle of arrays, and .safetensors a folder.
        head: Classes of its classifier, or None.
    """

    format: str
    content: Callable[[State, State], Any]
    source: Source = RGB
    encoders: dict[str, bool] = field(default_factory=lambda: {"network": False})
    size: int = 224
    net: tuple[str, bool] = ("resnet18", False)
    choices: Choices = field(default_factory=Choices)
    configs: dict[str, Any] = field(default_factory=dict)
    suffix: str = ".pth"
    head: int | None = None


def lightning(state: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    return {
        "epoch": 9,
        "pytorch-lightning_version": "2.1.2",
        "state_dict": state,
        "optimizer_states": [optimizer],
        **more,
    }


def mlp(name: str, *widths: int, bias: bool = True) -> State:
    """Return linear layers with batch norm and ReLU between them."""
    layers: State = {}
    for number, (num_in, num_out) in enumerate(itertools.pairwise(widths)):
        layers |= linear(f"{name}.{3 * number}", num_in, num_out, bias)
        layers |= norm(f"{name}.{3 * number + 1}", num_out) if number < len(widths) - 2 else {}
    return layers


QUEUE = {"queue": torch.zeros(8, 32), "queue_ptr": torch.zeros(1, dtype=torch.long)}

CASES = {
    "torchvision": Case("torchvision", lambda a, b: a | linear("fc", 512, 10), head=10),
    "torchvision_without_counters": Case(
        "torchvision", lambda a, b: without_counters(a) | linear("fc", 512, 10), head=10
    ),
    "moco_v1": Case(
        "moco",
        lambda a, b: {
            "epoch": 200,
            "arch": "resnet18",
            "state_dict": under("module.", under("encoder_q.", a | linear("fc", 512, 128)))
            | under("module.encoder_k.", b | linear("fc", 512, 128))
            | under("module.", QUEUE),
            "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}},
        },
        encoders={"query": False, "key": True},
    ),
    "moco_v2_released": Case(
        "moco",
        lambda a, b: {
            "arch": "resnet18",
            "state_dict": under("module.encoder_q.", a | linear("fc.0", 512, 512) | linear("fc.2", 512, 128)),
        },
        encoders={"query": False},
    ),
    "moco_v3": Case(
        "moco_v3",
        lambda a, b: {
            "state_dict": under("module.base_encoder.", a | mlp("fc", 512, 16, 8, bias=False) | norm("fc.4", 8, False))
            | under("module.momentum_encoder.", b | mlp("fc", 512, 16, 8, bias=False) | norm("fc.4", 8, False))
            | under("module.", mlp("predictor", 8, 16, 8, bias=False) | norm("predictor.4", 8, False)),
            "scaler": {"scale": 65536.0},
        },
        encoders={"base": False, "momentum": True},
    ),
    "dino": Case(
        "dino",
        lambda a, b: {
            "student": under("module.backbone.", b)
            | under("module.head.", linear("mlp.0", 512, 16) | {"last_layer.weight_g": torch.ones(8, 1)}),
            "teacher": under("backbone.", a) | under("head.", linear("mlp.0", 512, 16)),
            "dino_loss": {"center": torch.zeros(1, 8)},
            "epoch": 300,
        },
        encoders={"teacher": False, "student": True},
    ),
    "dino_distributed_teacher": Case(
        "dino",
        lambda a, b: {"student": under("module.backbone.", b), "teacher": under("module.backbone.", a)},
        encoders={"teacher": False, "student": True},
    ),
    "swav": Case(
        "swav",
        lambda a, b: under("module.", a | mlp("projection_head", 512, 16, 8) | linear("prototypes", 8, 30, bias=False)),
        SWAV,
    ),
    "barlow_twins": Case(
        "barlow_twins",
        lambda a, b: {
            "epoch": 1000,
            "model": under("module.backbone.", a)
            | under("module.", mlp("projector", 512, 16, 8, bias=False) | norm("bn", 8, False)),
        },
    ),
    "vicreg": Case(
        "vicreg", lambda a, b: {"model": under("module.backbone.", a) | under("module.", mlp("projector", 512, 16, 8))}
    ),
    "byol_lucidrains": Case(
        "byol",
        lambda a, b: (
            under("net.", a | linear("fc", 512, 1000))
            | under("online_encoder.net.", a | linear("fc", 512, 1000))
            | under("online_encoder.", mlp("projector", 512, 16, 8))
            | under("target_encoder.net.", b | linear("fc", 512, 1000))
            | under("target_encoder.", mlp("projector", 512, 16, 8))
            | mlp("online_predictor", 8, 16, 8)
        ),
        encoders={"online": False, "target": True, "network": False},
    ),
    "byol_sthalles": Case(
        "byol",
        lambda a, b: {
            "online_network_state_dict": under("encoder.", children(a)) | mlp("projetion.net", 512, 16, 8),
            "target_network_state_dict": under("encoder.", children(b)) | mlp("projetion.net", 512, 16, 8),
            "optimizer_state_dict": {"state": {0: {"momentum_buffer": torch.zeros(3)}}},
        },
        encoders={"online": False, "target": True},
    ),
    "byol_converted": Case(
        "byol_converted", lambda a, b: without_counters(a), Source(same=True), choices=Choices("byol_converted")
    ),
    "simclr_converted": Case(
        "simclr_converted",
        lambda a, b: {"state_dict": a | linear("fc", 512, 10)},
        UNIT,
        choices=Choices("simclr_converted"),
        head=10,
    ),
    "simclr_spijkervet": Case(
        "simclr",
        lambda a, b: (
            under("encoder.", a)
            | linear("projector.0", 512, 512, bias=False)
            | linear("projector.2", 512, 64, bias=False)
        ),
        UNIT,
    ),
    "simclr_sthalles": Case(
        "simclr_sthalles",
        lambda a, b: {
            "arch": "resnet18",
            "state_dict": under("backbone.", a | linear("fc.0", 512, 512) | linear("fc.2", 512, 128)),
        },
        UNIT,
    ),
    "solo_learn_cifar": Case(
        "solo_learn",
        lambda a, b: lightning(
            under("backbone.", a)
            | under("momentum_backbone.", b)
            | linear("classifier", 512, 100)
            | mlp("projector", 512, 16, 8)
            | mlp("momentum_projector", 512, 16, 8)
            | mlp("predictor", 8, 16, 8)
            | {"queue": torch.zeros(2, 8, 32), "queue_ptr": torch.zeros(1, dtype=torch.long)},
            hyper_parameters={"data": {"dataset": "cifar100", "num_classes": 100}, "backbone": {"name": "resnet18"}},
        ),
        SOLO,
        {"backbone": False, "momentum": True},
        32,
        ("resnet18", True),
    ),
    "solo_learn_imagenet_older": Case(
        "solo_learn",
        lambda a, b: lightning(under("encoder.", a) | linear("classifier", 512, 100) | mlp("projector", 512, 16, 8)),
        encoders={"backbone": False},
    ),
    "lightly_sequential": Case(
        "lightly",
        lambda a, b: lightning(
            under("backbone.", children(a))
            | under("projection_head.", mlp("layers", 512, 16, 8))
            | under("backbone_momentum.", children(b))
            | under("projection_head_momentum.", mlp("layers", 512, 16, 8))
            | {"criterion.memory_bank.bank": torch.zeros(8, 32)}
        ),
        encoders={"backbone": False, "teacher": True},
    ),
    "lightly_benchmark": Case(
        "lightly",
        lambda a, b: lightning(
            under("backbone.", a)
            | under("projection_head.", mlp("layers", 512, 16, 8))
            | under("student_backbone.", b)
            | under("student_projection_head.", mlp("layers", 512, 16, 8))
            | under("prediction_head.", mlp("layers", 8, 16, 8))
            | linear("online_classifier.linear", 512, 10)
        ),
        encoders={"backbone": False, "student": True},
    ),
    "lightly_cifar": Case(
        "lightly",
        lambda a, b: under("backbone.", children(a)) | under("projection_head.", mlp("layers", 512, 16, 8)),
        CIFAR,
        {"backbone": False},
        32,
        ("resnet18", True),
    ),
    "vissl": Case(
        "vissl",
        lambda a, b: {
            "classy_state_dict": {
                "base_model": {
                    "model": {
                        "trunk": under("_feature_blocks.", a),
                        "heads": under("0.", mlp("clf", 512, 16, 8)),
                    }
                },
                "train_phase_idx": 3,
            },
            "phase_idx": 3,
        },
        encoders={"trunk": False},
    ),
    "vissl_flat": Case("vissl", lambda a, b: under("_feature_blocks.", a), encoders={"trunk": False}),
    "mmselfsup_moco": Case(
        "mmselfsup",
        lambda a, b: {
            "meta": {"epoch": 200, "config": "model = dict(backbone=dict(type='ResNet', depth=18, style='pytorch'))"},
            "state_dict": under("backbone.", a)
            | linear("neck.mlp.0", 512, 16)
            | under("encoder_q.0.", a)
            | linear("encoder_q.1.mlp.0", 512, 16)
            | under("encoder_k.0.", b)
            | linear("encoder_k.1.mlp.0", 512, 16)
            | QUEUE,
        },
        encoders={"backbone": False, "query": False, "key": True},
    ),
    "mmselfsup_byol": Case(
        "mmselfsup",
        lambda a, b: {
            "meta": {},
            "state_dict": under("backbone.", a)
            | linear("neck.fc0", 512, 16)
            | under("target_net.module.0.", b)
            | linear("target_net.module.1.fc0", 512, 16)
            | {"target_net.steps": torch.tensor(7)}
            | linear("head.predictor.fc0", 16, 16),
        },
        encoders={"backbone": False, "target": True},
    ),
    "mmpretrain_caffe": Case(
        "mmselfsup",
        lambda a, b: {
            "meta": {
                "config": "model = dict(backbone=dict(type='ResNet', depth=50, strides=(1, 2, 2, 2), style='caffe'),\n"
                "neck=dict(dilations=(1, 6, 12, 18)))\n"
                "img_norm_cfg = dict(mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)"
            },
            "state_dict": under("backbone.", a) | linear("head.fc", 2048, 5),
        },
        MSRA,
        {"backbone": False},
        net=("resnet50", False),
        head=5,
    ),
    "mmpretrain_cifar": Case(
        "mmselfsup",
        lambda a, b: {
            "state_dict": under("backbone.", a) | linear("head.fc", 512, 10),
            "meta": {
                "cfg": {
                    "model": {"backbone": {"type": "ResNet_CIFAR", "norm_cfg": {"type": "BN", "eps": 0.01}}},
                    "data_preprocessor": {"mean": [127.5, 102.0, 51.0], "std": [51.0, 25.5, 127.5], "to_rgb": True},
                }
            },
        },
        Source((0.5, 0.4, 0.2), (0.2, 0.1, 0.5), padding=1, eps=0.01),
        {"backbone": False},
        32,
        ("resnet18", True),
        head=10,
    ),
    "detectron2_msra": Case(
        "detectron2",
        lambda a, b: {"model": detectron2(a), "__author__": "MSRA"},
        MSRA,
        net=("resnet50", False),
        suffix=".pkl",
    ),
    "detectron2_torchvision": Case(
        "detectron2",
        lambda a, b: {
            "model": detectron2(a) | linear("stem.fc", 2048, 5),
            "__author__": "torchvision",
            "matching_heuristics": True,
        },
        net=("resnet50", False),
        suffix=".pkl",
        head=5,
    ),
    "detectron2_detector": Case(
        "detectron2",
        lambda a, b: {
            "model": {
                "pixel_mean": torch.tensor([103.53, 116.28, 123.675]).reshape(3, 1, 1),
                "pixel_std": torch.tensor([1.0, 1.0, 1.0]).reshape(3, 1, 1),
            }
            | under("backbone.bottom_up.", detectron2(a))
            | linear("backbone.fpn_lateral2", 256, 8)
            | linear("proposal_generator.rpn_head.conv", 8, 8)
            | linear("roi_heads.box_head.fc1", 8, 8),
            "iteration": 9,
        },
        CAFFE,
    ),
    "detectron2_rgb": Case("detectron2_rgb", lambda a, b: {"model": detectron2(a)}, choices=Choices("detectron2_rgb")),
    "transformers": Case(
        "transformers",
        lambda a, b: under("resnet.", transformers(a)) | linear("classifier.1", 2048, 5),
        Source((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), stride_in_1x1=True),
        net=("resnet50", False),
        configs={
            "config": {
                "model_type": "resnet",
                "depths": [3, 4, 6, 3],
                "layer_type": "bottleneck",
                "hidden_act": "relu",
                "downsample_in_first_stage": False,
                "downsample_in_bottleneck": True,
            },
            "preprocessor_config": {
                "image_mean": [0.1, 0.2, 0.3],
                "image_std": [0.4, 0.5, 0.6],
                "size": {"shortest_edge": 160},
            },
        },
        size=160,
        suffix=".safetensors",
        head=5,
    ),
    "timm_folder": Case(
        "timm",
        lambda a, b: a | linear("fc", 512, 5),
        Source((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        configs={
            "config": {
                "architecture": "resnet18",
                "pretrained_cfg": {
                    "input_size": [3, 288, 288],
                    "mean": [0.5, 0.5, 0.5],
                    "std": [0.5, 0.5, 0.5],
                    "interpolation": "bilinear",
                    "first_conv": "conv1",
                    "classifier": "fc",
                },
            }
        },
        size=288,
        suffix=".safetensors",
        head=5,
    ),
    "timm_training": Case(
        "timm",
        lambda a, b: {
            "epoch": 3,
            "arch": "resnet18",
            "version": 2,
            "state_dict": b | linear("fc", 512, 5),
            "state_dict_ema": a | linear("fc", 512, 5),
        },
        encoders={"ema": False, "network": True},
        head=5,
    ),
    "supcon": Case(  # of no code base in the table: any prefix, and a classifier that the user leaves out
        "other",
        lambda a, b: {"model": under("encoder.module.", shortcut(a)) | linear("head.0", 512, 16)},
        CIFAR,
        {"model.encoder.module": False},
        32,
        ("resnet18", True),
        Choices(allow=["head"]),
    ),
}


def write(case: Case, folder: Path) -> str:
    """Write the file of a case in its container."""
    net = resnet(*case.net)
    content = case.content(net, other(net))
    file = folder / f"file{case.suffix}"
    if case.suffix == ".safetensors":
        save_file(content, folder / "model.safetensors")
        for name, config in case.configs.items():
            (folder / f"{name}.json").write_text(json.dumps(config))
        return str(folder)
    if case.suffix == ".pkl":
        arrays = {**content, "model": {name: np.asarray(tensor) for name, tensor in content["model"].items()}}
        file.write_bytes(pickle.dumps(arrays, protocol=2))
    else:
        torch.save(content, file)
    return str(file)


def features(imported: Imported, pixels: Tensor) -> Tensor:
    """Return what our network makes of RGB pixels in [0, 1], with the normalization that the import says."""
    with torch.device("meta"):
        backbone = as_backbone(build_network(imported.config)).eval()
    backbone.load_state_dict(imported.state, assign=True)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in STATISTICS[imported.spec.stats])
    with torch.no_grad():
        return backbone((pixels - mean) / std)


LONG = {  # like others in what decides their function
    "torchvision_without_counters",
    "moco_v2_released",
    "dino_distributed_teacher",
    "vissl_flat",
    "lightly_benchmark",
    "mmselfsup_byol",
    "detectron2_rgb",
    "detectron2_torchvision",
    "solo_learn_imagenet_older",
    "barlow_twins",
    "timm_training",
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in CASES])
def test_each_layout_gives_what_its_code_base_computes(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    file = write(case, tmp_path)
    net = resnet(*case.net)
    pixels = (1 + hash_sym("pixels", (2, 3, 48, 48)).float()) / 2

    container = read_container(file)
    imported = import_container(container, file, case.choices)

    assert imported.found.format.name == case.format
    assert list(imported.found.encoders) == list(case.encoders)
    assert imported.spec.size == case.size
    assert imported.spec.num_frames == 1
    assert not [row for row in imported.rows if row.status in accounting.PROBLEMS]
    assert (None if imported.head is None else len(imported.head["bias"])) == case.head
    for encoder, is_other in case.encoders.items():
        choices = Choices(case.choices.format, encoder, allow=case.choices.allow)
        taken = imported if encoder == imported.found.encoder else import_container(container, file, choices)
        expected = case.source.features(other(net) if is_other else net, pixels)
        torch.testing.assert_close(
            features(taken, pixels), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item()
        )


@pytest.mark.parametrize("case", ["resnet18_no_fc", "resnet18_small_input_no_fc"])
def test_these_weights_give_the_recorded_outputs(case: str, tmp_path: Path) -> None:
    state = resnet(small="small" in case)
    torch.save({"state_dict": under("module.encoder_q.", state)}, tmp_path / "moco.pth")
    imported = import_file(str(tmp_path / "moco.pth"))
    size = 32 if "small" in case else 64
    images = hash_sym(f"input.{case}", (2, 3, size, size))
    expected = torch.from_numpy(np.load(VECTORS / "backbones.npz")[case]).float()
    backbone = as_backbone(build_network(imported.config)).eval()
    backbone.load_state_dict(imported.state)
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(images.float()), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item()
        )


def filled_model(model: str, **options: Any) -> tuple[Any, State]:
    """Return a network of timm with its weights and a classifier."""
    net = timm.create_model(model, num_classes=5, **options).eval()
    state = filled_state({key: tuple(tensor.shape) for key, tensor in net.state_dict().items()})
    net.load_state_dict(state)
    return net, state


@pytest.mark.parametrize("model", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_folder_of_timm_becomes_that_network_with_its_input(model: str, wrapped: bool, tmp_path: Path) -> None:
    net, state = filled_model(model)
    config = {
        "architecture": model,
        "num_classes": 5,
        "pretrained_cfg": {**net.pretrained_cfg, "mean": [0.1, 0.2, 0.3]},
    }
    save_file(under("timm_model." if wrapped else "", state), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))

    imported = import_file(str(tmp_path))

    assert (imported.found.format.name, imported.config) == ("timm", TimmConfig(model))
    assert STATISTICS[imported.spec.stats].mean == (0.1, 0.2, 0.3)
    assert imported.spec.size == net.pretrained_cfg["input_size"][-1]
    images = hash_sym("images", (2, 3, imported.spec.size, imported.spec.size)).float()
    backbone = imported.config.build()
    backbone.load_state_dict(imported.state)
    with torch.no_grad():
        features = backbone.eval()(images)
        expected = net.forward_head(net.forward_features(images), pre_logits=True)
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
        assert imported.head is not None
        logits = features @ imported.head["weight"].T + imported.head["bias"]
        torch.testing.assert_close(logits, net(images), rtol=1e-4, atol=1e-4 * logits.abs().max().item())


def test_a_file_that_does_not_name_its_network_of_timm_needs_it_named(tmp_path: Path) -> None:
    file = str(tmp_path / "net.pth")
    torch.save(filled_model("test_convnext")[1], file)
    with pytest.raises(ConfigError, match="backbone=timm/MODEL"):
        import_file(file)
    imported = import_file(file, Choices(backbone="timm/test_convnext"))
    assert imported.config == TimmConfig("test_convnext")
    assert any("are assumed" in note for note in imported.notes)
    with pytest.raises(ConfigError, match="did you mean test_convnext"):
        import_file(file, Choices(backbone="timm/test_convnet"))


def test_a_network_of_timm_with_the_names_of_ours_and_another_function_is_built_by_timm(tmp_path: Path) -> None:
    net, state = filled_model("resnetblur18")  # it blurs before it strides
    assert state.keys() == (resnet() | linear("fc", 512, 5)).keys()
    torch.save({"arch": "resnetblur18", "state_dict": state}, tmp_path / "net.pth")
    imported = import_file(str(tmp_path / "net.pth"))
    assert imported.config == TimmConfig("resnetblur18")
    images = hash_sym("images", (1, 3, 64, 64)).float()
    backbone = imported.config.build()
    backbone.load_state_dict(imported.state)
    with torch.no_grad():
        expected = net.forward_head(net.forward_features(images), pre_logits=True)
        torch.testing.assert_close(backbone.eval()(images), expected, rtol=1e-4, atol=1e-5)


def written(content: Any, folder: Path) -> str:
    torch.save(content, folder / "net.pth")
    return str(folder / "net.pth")


def test_an_example_of_pytorch_is_not_taken_for_timm(tmp_path: Path) -> None:
    state = under("module.", resnet() | linear("fc", 512, 10))
    imported = import_file(written({"epoch": 90, "arch": "resnet18", "state_dict": state, "best_acc1": 70.0}, tmp_path))
    assert imported.found.format.name == "torchvision"


def test_a_resnet_with_a_deep_stem_is_another_network(tmp_path: Path) -> None:
    _, state = filled_model("resnet26d")
    with pytest.raises(ConfigError, match=r"a ResNet with a deep stem .*name it: backbone=timm/resnet50d"):
        import_file(written(state, tmp_path))


REFUSED: dict[str, tuple[Callable[[State], Any], str]] = {
    "children_without_relu": (
        lambda state: under("backbone.", children(shortcut(state), first_stage=2)),
        "drops the ReLU behind its first convolution",
    ),
    "dilated_mm": (
        lambda state: {
            "meta": {"config": "backbone=dict(type='ResNet', depth=18, dilations=(1, 1, 2, 4), style='pytorch')"},
            "state_dict": under("backbone.", state) | linear("head.fc", 512, 5),
        },
        r"dilations 1, 1, 2, 4, which ours cannot have",
    ),
    "segmentation": (
        lambda state: under("backbone.", state) | {"classifier.0.weight": torch.zeros(4, 512, 3, 3)},
        "dilated instead of strided",
    ),
    "projector_after_an_unknown_prefix": (
        lambda state: under("net.trunk2.", state) | linear("proj_mlp.0", 512, 16),
        r"2 are unexpected: proj_mlp.0.weight, proj_mlp.0.bias",
    ),
    "two_unknown_prefixes": (
        lambda state: under("left.", state) | under("right.", other(state)),
        r"holds 2 networks, left, right: name the one to take",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_ours_cannot_compute_is_refused(name: str, tmp_path: Path) -> None:
    content, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        import_file(written(content(resnet()), tmp_path))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"downsample_in_first_stage": True}, "its first stage has a stride"),
        ({"hidden_act": "gelu"}, "its activation is gelu, and ours is relu"),
    ],
)
def test_a_resnet_of_transformers_that_ours_cannot_be_is_refused(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save_file(transformers(resnet()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet", **config}))
    with pytest.raises(ConfigError, match=message):
        import_file(str(tmp_path))


@pytest.mark.long
def test_vision_transformers_have_the_heads_of_their_code_base(tmp_path: Path) -> None:
    nets = {}
    for num_heads in (6, 12):  # of DINO and MoCo v3
        net = timm.models.vision_transformer.VisionTransformer(
            embed_dim=384, depth=12, num_heads=num_heads, num_classes=0
        ).eval()
        state = filled_state({key: tuple(tensor.shape) for key, tensor in net.state_dict().items()})
        net.load_state_dict(state)
        nets[num_heads] = net
    contents = {
        12: {"state_dict": under("module.base_encoder.", state | linear("head.0", 384, 16))},
        6: {"teacher": under("backbone.", state) | linear("head.mlp.0", 384, 16)},
    }
    images = hash_sym("images", (1, 3, 224, 224)).float()
    for num_heads, content in contents.items():
        imported = import_file(written(content, tmp_path))
        assert imported.spec.stats == "image"
        backbone = imported.config.build()
        backbone.load_state_dict(imported.state)
        with torch.no_grad():
            expected = nets[num_heads](images)
            torch.testing.assert_close(backbone.eval()(images), expected, rtol=1e-3, atol=1e-4)
