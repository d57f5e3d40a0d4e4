"""Layouts: the names that code bases give to the tensors of networks that we have."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch

from eztorch_sce import registry
from eztorch_sce.models.backbones.base import Backbone, BackboneConfig, built_on_meta

Renames = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
"""Pairs of a pattern in names and its replacement, applied in order by `re.sub`."""

COUNTER = "num_batches_tracked"
"""Last part of the name of a counter of batch norm, which no output depends on and many files lack."""


class Network(NamedTuple):
    """A network of ours.

    Attributes:
        backbone: Its registered name.
        settings: Settings that decide shapes, or that the names of its tensors tell, as (name, value), other than the
            defaults.
    """

    backbone: str
    settings: tuple[tuple[str, Any], ...] = ()

    def config(self, more: Mapping[str, Any] | None = None) -> BackboneConfig:
        """Return the config that builds it, with further settings."""
        cls = registry.choices("backbone")[self.backbone]
        settings = {**dict(self.settings), **(more or {})}
        config: BackboneConfig = cls(
            **{name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
        )
        return config


@cache
def _built(network: Network) -> Backbone:
    return built_on_meta(network.config())


@cache
def shapes_of(network: Network) -> Mapping[str, torch.Size]:
    """Return the shapes in the state dict of a network, in order, by our names."""
    return {name: tensor.shape for name, tensor in _built(network).state_dict().items()}


def width_of(network: Network) -> int:
    """Return the number of features of a network."""
    return _built(network).num_features


def renamed(name: str, renames: Renames) -> str:
    """Return a name after all replacements."""
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


@dataclass(frozen=True)
class Layout:
    """The names that a code base gives to the tensors of networks.

    Attributes:
        name: Its name.
        anchor: Their name of the first convolution's weight, by which a network is found in a file.
        networks: The networks that have such names, in the order in which they are tried. Of several that fit a file,
            the first is taken unless the user names another.
        renames: From our names to theirs.
        head: Their name of the linear classifier, without ".weight"; "" if there is none.
        twins: From their names to the second names of tensors, for a code base that registers layers twice. A file may
            have either name, or both with the same content.
    """

    name: str
    anchor: str
    networks: tuple[Network, ...]
    renames: Renames = ()
    head: str = "fc"
    twins: Renames = ()

    def theirs(self, name: str) -> str:
        """Return the name that a tensor of ours has in this layout."""
        return renamed(name, self.renames)

    def names(self, theirs: str) -> tuple[str, ...]:
        """Return a name of theirs, and its twin if it has one."""
        twin = renamed(theirs, self.twins)
        return (theirs,) if twin == theirs else (theirs, twin)


AS_IMAGES: Renames = (
    (r"^blocks\.0\.conv\.", "conv1."),
    (r"^blocks\.0\.norm\.", "bn1."),
    (r"^blocks\.(\d)\.res_blocks\.", r"layer\1."),
    (r"\.branch1_conv\.", ".downsample.0."),
    (r"\.branch1_norm\.", ".downsample.1."),
    (r"\.branch2\.(conv|norm)_a\.", r".\1_1."),
    (r"\.branch2\.(conv|norm)_b\.", r".\1_2."),
    (r"\.branch2\.(conv|norm)_c\.", r".\1_3."),
    (r"\.conv_(\d)\.", r".conv\1."),
    (r"\.norm_(\d)\.", r".bn\1."),
)
"""From the names of R3D-18 and R3D-50 to those of torchvision's ResNets for images."""
_OPENMMLAB: Renames = (
    (r"^conv1\.", "conv1.conv."),
    (r"^bn1\.", "conv1.bn."),
    (r"^(layer\d\.\d+)\.conv(\d)\.", r"\1.conv\2.conv."),
    (r"^(layer\d\.\d+)\.bn(\d)\.", r"\1.conv\2.bn."),
    (r"\.downsample\.0\.", ".downsample.conv."),
    (r"\.downsample\.1\.", ".downsample.bn."),
)
"""From torchvision's names to those of mmcv's `ConvModule`."""

_RESNETS = tuple(
    Network(name, settings)
    for settings in ((), (("small_input", True),))
    for name in ("resnet50", "resnet18", "resnet34")
)

_IMAGES = (
    Layout("torchvision", "conv1.weight", _RESNETS),
    Layout(  # nn.Sequential(*resnet.children())
        "torchvision_children",
        "0.weight",
        _RESNETS,
        ((r"^conv1\.", "0."), (r"^bn1\.", "1."), (r"^layer(\d)\.", lambda match: f"{int(match[1]) + 3}.")),
        head="9",
    ),
    Layout("shortcut", "conv1.weight", _RESNETS, ((r"\.downsample\.", ".shortcut."),), head="linear"),
    Layout(  # nn.Sequential(*resnet.children()) of a ResNet whose forward calls ReLU and pooling as functions
        "shortcut_children",
        "0.weight",
        _RESNETS,
        (
            (r"^conv1\.", "0."),
            (r"^bn1\.", "1."),
            (r"^layer(\d)\.", lambda match: f"{int(match[1]) + 1}."),
            (r"\.downsample\.", ".shortcut."),
        ),
        head="",
    ),
    Layout(
        "detectron2",
        "stem.conv1.weight",
        _RESNETS,
        (
            (r"^(conv1|bn1)\.", r"stem.\1."),
            (r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}."),
            (r"\bbn(\d)\.", r"conv\1.norm."),
            (r"\.downsample\.0\.", ".shortcut."),
            (r"\.downsample\.1\.", ".shortcut.norm."),
        ),
        head="stem.fc",
    ),
    Layout(
        "transformers",
        "embedder.embedder.convolution.weight",
        _RESNETS,
        (
            (r"^conv1\.", "embedder.embedder.convolution."),
            (r"^bn1\.", "embedder.embedder.normalization."),
            (r"^layer(\d)\.(\d+)\.", lambda match: f"encoder.stages.{int(match[1]) - 1}.layers.{match[2]}."),
            (r"\.conv(\d)\.", lambda match: f".layer.{int(match[1]) - 1}.convolution."),
            (r"\.bn(\d)\.", lambda match: f".layer.{int(match[1]) - 1}.normalization."),
            (r"\.downsample\.0\.", ".shortcut.convolution."),
            (r"\.downsample\.1\.", ".shortcut.normalization."),
        ),
        head="",
    ),
    Layout(
        "vit",
        "patch_embed.proj.weight",
        tuple(
            Network("timm", (("model", f"vit_{width}_patch{patch}_224"),))
            for width, patch in (("small", 16), ("base", 16), ("small", 8), ("base", 8), ("tiny", 16), ("large", 16))
        ),
        ((r"^network\.", ""),),
        head="head",
    ),
)

_COCLR_BLOCKS = {0: (1, 0), 2: (2, 1), 3: (2, 2), 5: (3, 1), 6: (3, 2)}
_COCLR_BLOCKS |= {block: (4, block - 7) for block in range(8, 13)} | {14: (5, 1), 15: (5, 2)}
_COCLR_TWINS = {(1, 0): "Conv_1a", (2, 1): "Conv_2b", (2, 2): "Conv_2c", (3, 1): "Mixed_3b", (3, 2): "Mixed_3c"}
_COCLR_TWINS |= {(4, i): f"Mixed_4{'abcdef'[i]}" for i in range(1, 6)} | {(5, 1): "Mixed_5b", (5, 2): "Mixed_5c"}
_COCLR_SEPARABLE = r"^(block1\.0|block2\.2|block\d\.\d\.branch[12]\.1)"
_COCLR_PLAIN = r"^(block2\.1|block\d\.\d\.branch[12]\.0|block\d\.\d\.branch3\.1)"
_COCLR_EPS = (("norm_eps", 1e-5),)  # S3D was published with 1e-3
_SCE_R2PLUS1D = (("stem_pool", False), ("norm_eps", 1e-5), ("wide_shortcuts", False))
_DILATED = (("dilate_last", True),)

_VIDEO = (
    Layout("torchvision_video", "stem.0.weight", (Network("r3d_18"), Network("mc3_18"), Network("r2plus1d_18"))),
    Layout("torchvision_dilated", "stem.0.weight", (Network("r3d_18", _DILATED), Network("r2plus1d_18", _DILATED))),
    Layout(
        "torchvision_s3d",
        "features.0.0.0.weight",
        (Network("s3d", (("pool", "windows"),)),),
        renames=((r"^blocks\.", "features."),),
        head="classifier.1",
    ),
    Layout(
        "pytorchvideo",
        "blocks.0.conv.weight",
        (Network("r3d50"), Network("r3d18"), Network("r2plus1d_50")),
        head="blocks.5.proj",
    ),
    Layout("sce_encoder", "blocks.0.conv.weight", (Network("r3d18"),), head=""),
    Layout(
        "pytorchvideo_x3d",
        "blocks.0.conv.conv_t.weight",
        (Network("x3d_m"), Network("x3d_s"), Network("x3d_xs"), Network("x3d_l")),
        head="blocks.5.proj",
    ),
    Layout(
        "slowfast",
        "s1.pathway0_stem.conv.weight",
        (Network("r3d50"),),
        renames=(
            *((rf"^blocks\.{block}\.res_blocks\.", f"s{block + 1}.pathway0_res") for block in range(1, 5)),
            (r"^blocks\.0\.conv\.", "s1.pathway0_stem.conv."),
            (r"^blocks\.0\.norm\.", "s1.pathway0_stem.bn."),
            (r"\.branch1_conv\.", ".branch1."),
            (r"\.branch1_norm\.", ".branch1_bn."),
            (r"\.branch2\.conv_([abc])\.", r".branch2.\1."),
            (r"\.branch2\.norm_([abc])\.", r".branch2.\1_bn."),
        ),
        head="head.projection",
    ),
    Layout(
        "mmaction",
        "conv1.conv.weight",
        (Network("r3d50"),),
        renames=(*AS_IMAGES, *_OPENMMLAB),
        head="",
    ),
    Layout(
        "mmaction_r2plus1d",
        "conv1.conv.conv_s.weight",
        (Network("r2plus1d_34"), Network("r2plus1d_34", (("num_blocks", (2, 2, 2, 2)),)), Network("r2plus1d_18")),
        renames=(
            (r"^stem\.0\.", "conv1.conv.conv_s."),
            (r"^stem\.1\.", "conv1.conv.bn_s."),
            (r"^stem\.3\.", "conv1.conv.conv_t."),
            (r"^stem\.4\.", "conv1.bn."),
            (r"\.(conv[12]|downsample)\.0\.0\.", r".\1.conv.conv_s."),
            (r"\.(conv[12]|downsample)\.0\.1\.", r".\1.conv.bn_s."),
            (r"\.(conv[12]|downsample)\.0\.3\.", r".\1.conv.conv_t."),
            (r"\.downsample\.0\.", ".downsample.conv."),
            (r"\.(conv[12]|downsample)\.1\.", r".\1.bn."),
        ),
        head="",
    ),
    Layout(
        "sce_r2plus1d",
        "stem.0.weight",
        tuple(
            Network("r2plus1d_34", (("num_blocks", blocks), ("stem_width", width), *_SCE_R2PLUS1D))
            for blocks in ((2, 2, 2, 2), (1, 1, 1, 1))
            for width in (45, 83)
        ),
        renames=(
            (r"^(layer\d)\.0\.", r"\1.block1."),
            *((rf"^(layer\d)\.{index}\.", rf"\1.blocks.{index - 1}.") for index in (1, 2, 3, 4, 5)),
            (r"\.conv([12])\.1\.", r".bn\1."),
            (r"\.downsample\.1\.", ".downsamplebn."),
            (r"\.downsample\.", ".downsampleconv."),
            (r"\.(conv[12]|downsampleconv)\.0\.0\.", r".\1.spatial_conv."),
            (r"\.(conv[12]|downsampleconv)\.0\.1\.", r".\1.bn."),
            (r"\.(conv[12]|downsampleconv)\.0\.3\.", r".\1.temporal_conv."),
        ),
    ),
    Layout(
        "mmaction_without_conv",  # as torchvision names the 2-D ResNet
        "conv1.weight",
        (Network("r3d50"),),
        renames=AS_IMAGES,
        head="fc",
    ),
    Layout(
        "mmaction_images",
        "conv1.conv.weight",
        _RESNETS,
        renames=_OPENMMLAB,
        head="",
    ),
    Layout(
        "coclr",
        "block1.0.conv1.weight",
        (Network("s3d", _COCLR_EPS), Network("s3d", (*_COCLR_EPS, ("gating", True)))),
        renames=(
            *((rf"^blocks\.{ours}\.", f"block{stage}.{i}.") for ours, (stage, i) in _COCLR_BLOCKS.items()),
            *(
                (rf"{_COCLR_SEPARABLE}\.{first}\.{second}\.", rf"\1.{layer}{first + 1}.")
                for first in (0, 1)
                for second, layer in enumerate(("conv", "bn"))
            ),
            (rf"{_COCLR_PLAIN}\.1\.", r"\1.bn."),
            (rf"{_COCLR_PLAIN}\.0\.", r"\1.conv."),
            (r"\.branch0\.1\.", ".branch0.0.bn."),
            (r"\.branch0\.0\.(?!bn\.)", ".branch0.0.conv."),
        ),
        head="fc",
        twins=tuple((rf"^block{stage}\.{i}\.", f"{twin}.") for (stage, i), twin in _COCLR_TWINS.items()),
    ),
)

LAYOUTS: Mapping[str, Layout] = {layout.name: layout for layout in (*_IMAGES, *_VIDEO)}
"""The layouts by name."""
