"""What the networks of image checkpoints compute, as far as their files and their code bases say it."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from eztorch_sce.augment.statistics import STATISTICS, Channels
from eztorch_sce.errors import ConfigError
from eztorch_sce.interop.containers import Container
from eztorch_sce.interop.format import Facts
from eztorch_sce.interop.layouts import LAYOUTS, Layout, Network
from eztorch_sce.models.backbones.timm_models import import_timm

if TYPE_CHECKING:
    from eztorch_sce.interop.recognition import Found

Stats = tuple[Channels, Channels]

IMAGENET = (STATISTICS["image"].mean, STATISTICS["image"].std)
IMAGENET_228: Stats = (IMAGENET[0], (0.228, 0.224, 0.225))
"""SwAV divides red by 0.228."""
UNIT: Stats = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Pixels in [0, 1] as they are."""
_MSRA: Stats = ((123.675 / 255, 116.28 / 255, 103.53 / 255), (1 / 255, 1 / 255, 1 / 255))

_SOLO_LEARN: Mapping[str, tuple[Stats, int]] = {
    "cifar10": (((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)), 32),
    "cifar100": (((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)), 32),
    "stl10": (((0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)), 96),
    "imagenet": (IMAGENET, 224),
    "imagenet100": (IMAGENET, 224),
}
_UNNAMED = ("torchvision", "other")
"""Formats of files that do not say which code wrote them."""
_SMALL = (
    "the file does not say what its 3x3 stem computes: stride 1, no max-pooling, images of 32 px and the mean and "
    "standard deviation of CIFAR-10 are assumed"
)


# Values of a file


def value_of(container: Container, *names: str) -> Any:
    """Return the value of the first of some names, which may stand behind any others; None if the file has none."""
    for name in names:
        for key, value in container.values.items():
            if key == name or key.endswith(f".{name}"):
                return value
    return None


def values_of(container: Container, name: str) -> dict[str, Any]:
    """Return the values below a name, which may stand behind any others, by the rest of their names.

    Items of lists have their numbers as names.
    """
    pattern = re.compile(rf"(?:.*\.)?{re.escape(name)}\.(.+)")
    matches = ((pattern.fullmatch(key), value) for key, value in container.values.items())
    return {match[1]: value for match, value in matches if match}


def _numbers(container: Container, name: str) -> tuple[float, ...]:
    """Return a list of numbers of a file: of its values, or a tensor."""
    for key, tensor in container.tensors.items():
        if key == name or key.endswith(f".{name}"):
            return tuple(float(number) for number in tensor.flatten())
    found = values_of(container, name)
    return tuple(float(value) for key, value in found.items() if key.isdigit() and isinstance(value, int | float))


# Layouts that follow from the file

_DEEP = {(6, 64): "", (23, 64): "resnet101", (36, 64): "resnet152", (6, 128): "wide_resnet50_2"} | {
    (23, 128): "wide_resnet101_2",
    (6, 4): "resnext50_32x4d",
    (23, 8): "resnext101_32x8d",
}
"""Networks of timm in torchvision's names, by the blocks of the third stage and the fan-in of a 3x3 convolution."""
_OURS = tuple({network.backbone: None for network in LAYOUTS["torchvision"].networks})
"""Networks of timm that are ours too."""


def image_layouts(container: Container) -> list[Layout]:
    """Return the layouts of ResNets and, if the file holds patches, of vision transformers."""
    names = ["torchvision", "torchvision_children", "shortcut", "shortcut_children"]
    if any(name.endswith(LAYOUTS["vit"].anchor) for name in container.tensors):
        names.append("vit")
    return [*(LAYOUTS[name] for name in names), *deep_layouts(container)]


def deep_layouts(container: Container) -> list[Layout]:
    """Return the layout of deeper and wider ResNets of torchvision, which timm has."""
    models: dict[str, None] = {}
    for name, tensor in container.tensors.items():
        if name == "layer1.0.conv2.weight" or name.endswith(".layer1.0.conv2.weight"):
            prefix = name.removesuffix("layer1.0.conv2.weight")
            if tensor.ndim == 4 and f"{prefix}layer1.0.conv3.weight" in container.tensors:
                blocks = sum(f"{prefix}layer3.{number}.conv1.weight" in container.tensors for number in range(64))
                models[_DEEP.get((blocks, tensor.shape[1]), "")] = None
    networks = tuple(Network("timm", (("model", model),)) for model in models if model)
    return [Layout("torchvision_deep", "conv1.weight", networks, ((r"^network\.", ""),))] if networks else []


def _model_of(container: Container) -> str:
    """Return the timm model that a file names; "" if it names none."""
    name = value_of(container, "architecture")
    if name is None:
        name = value_of(container, "arch")
        by_timm = any(key.split(".")[-1] in ("version", "metric") for key in container.values)
        if not by_timm and name in (*_OURS, *_DEEP.values()):  # other code bases have them and this value too
            return ""
    return name if isinstance(name, str) else ""


_LARGEST = 16_384  # of an argument of a network, such as its width, depth or size


class _Options(dict[str, Any]):
    """Options of a network of timm, as a setting that has a hash."""

    def __hash__(self) -> int:  # type: ignore[override]  # dict has none
        return hash(repr(self))


def timm_layouts(container: Container) -> list[Layout]:
    """Return the layouts of the network of timm that the file names: one of our ResNets if it is that, and timm's."""
    name = _model_of(container)
    if not name:
        return []
    options = values_of(container, "model_args")
    if large := [f"{key}={value}" for key, value in options.items() if isinstance(value, int) and value > _LARGEST]:
        raise ConfigError([f"model_args of the file set {', '.join(large)}, larger than any network of timm"])
    settings: list[tuple[str, Any]] = [("model", name.split(".")[0])]
    if options:
        settings.append(("options", _Options(options)))
    layouts = []
    if name.split(".")[0] in _OURS and not options:
        ours = [each for each in LAYOUTS["torchvision"].networks if each.backbone == name.split(".")[0]]
        layouts.append(Layout("torchvision", "conv1.weight", tuple(ours[:1])))
    published = import_timm().get_pretrained_cfg(name) if import_timm().is_model(name.split(".")[0]) else None
    if published is None:
        return layouts
    first = value_of(container, "first_conv")
    first = first if isinstance(first, str) else published.first_conv
    head = value_of(container, "classifier") or published.classifier
    anchor = f"{first if isinstance(first, str) else first[0]}.weight"
    network = Network("timm", tuple(settings))
    renames = ((r"^network\.", ""),)
    return [*layouts, Layout("timm", anchor, (network,), renames, head if isinstance(head, str) else "")]


# Facts


def network_facts(stats: Stats | str = "image") -> Callable[["Found"], Facts]:
    """Return the facts of torchvision's ResNets for a normalization."""
    return lambda found: resnet_facts(found, stats)


def generic_facts(found: "Found") -> Facts:
    """Return the facts of a network whose file does not say which code wrote it."""
    unnamed = found.format.name in _UNNAMED
    assumed = (
        "the file does not say which code wrote it: torchvision's padding and ImageNet's mean and standard deviation "
        "are assumed; for weights converted from JAX or TensorFlow, name format=byol_converted or simclr_converted"
    )
    if found.layout.name == "vit":
        return vit_facts()(found)
    return resnet_facts(found, "image", assumed=assumed if unnamed else "")


def vit_facts(num_heads: Mapping[str, int] | None = None) -> Callable[["Found"], Facts]:
    """Return the facts of vision transformers that are normalized as ImageNet; of ResNets, those of torchvision.

    Args:
        num_heads: Heads of attention by the name in timm, where they are not timm's; no tensor has their number.
    """

    def facts(found: "Found") -> Facts:
        if found.layout.name != "vit":
            return resnet_facts(found, "image")
        heads = (num_heads or {}).get(dict(found.network.settings)["model"])
        settings: dict[str, Any] = {} if heads is None else {"options": {"num_heads": heads}}
        assumed = "the file does not say how many heads its attention has: those of timm are assumed"
        return Facts(settings=settings, assumed=assumed if found.format.name in _UNNAMED else "")

    return facts


def simclr_facts(found: "Found") -> Facts:
    """Return the facts of code that normalizes nothing: it takes pixels in [0, 1]."""
    return resnet_facts(found, UNIT, small_stats=UNIT)


def solo_learn_facts(found: "Found") -> Facts:
    """Return the facts of solo-learn: the 3x3 convolution for CIFAR has a padding of 2."""
    dataset = value_of(found.container, "data.dataset", "dataset", "pretrain_dataset")
    stats, size = _SOLO_LEARN.get(str(dataset), (IMAGENET, 224))
    if not _is_small(found):
        return resnet_facts(found, stats, size=size)
    if dataset not in ("cifar10", "cifar100"):
        stats = _SOLO_LEARN["cifar10"][0]
    assumed = "" if dataset in ("cifar10", "cifar100") else "the file does not name its data set: CIFAR-10 is assumed"
    return resnet_facts(found, stats, small_stats=stats, settings={"padding": 2}, small_assumed=assumed)


def detectron2_facts(found: "Found") -> Facts:
    """Return the facts of Detectron2: by what the file says of its pixels or its author, else those of its default."""
    mean, std = _numbers(found.container, "pixel_mean"), _numbers(found.container, "pixel_std")
    author, converted = value_of(found.container, "__author__"), value_of(found.container, "matching_heuristics")
    of_torchvision = str(author).lower() not in ("msra", "caffe2", "detectron2 model zoo", "none") or bool(converted)
    assumed = ""
    if len(mean) == 3 and len(std) == 3:
        is_bgr = mean[0] < mean[2]  # red is the brightest channel of ImageNet
        ordered = [[value / 255 for value in (values[::-1] if is_bgr else values)] for values in (mean, std)]
        stats: Stats = ((ordered[0][0], ordered[0][1], ordered[0][2]), (ordered[1][0], ordered[1][1], ordered[1][2]))
        in_1x1 = max(std) == 1
        where = "1x1" if in_1x1 else "3x3"
        assumed = (
            f"the file does not say where its bottlenecks have their stride: in the {where} convolution is assumed"
        )
    elif of_torchvision:
        is_bgr, stats, in_1x1 = False, IMAGENET, False
    else:
        is_bgr, stats, in_1x1 = True, _MSRA, True
        assumed = (
            "the file does not say what its pixels are: BGR from 0 to 255 and the stride in the 1x1 convolutions, as "
            "Detectron2 has by default, are assumed; otherwise name format=detectron2_rgb"
        )
    settings = {"stride_in_1x1": True} if in_1x1 and found.network.backbone == "resnet50" else {}
    return resnet_facts(found, stats, channels="bgr" if is_bgr else "rgb", settings=settings, assumed=assumed)


def transformers_facts(found: "Found") -> Facts:
    """Return the facts of a ResNet of transformers, by its config.json and preprocessor_config.json."""
    container, settings = found.container, dict[str, Any]()
    if value_of(container, "downsample_in_first_stage"):
        return Facts(refused="its first stage has a stride (downsample_in_first_stage), which ours cannot have")
    if (activation := value_of(container, "hidden_act")) not in (None, "relu"):
        return Facts(refused=f"its activation is {activation}, and ours is relu")
    if value_of(container, "downsample_in_bottleneck"):
        settings["stride_in_1x1"] = True
    mean, std = _numbers(container, "image_mean"), _numbers(container, "image_std")
    stats: Stats | str = "image"
    if len(mean) == 3 and len(std) == 3:
        stats = ((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
    size = value_of(container, "crop_size.height", "size.shortest_edge", "size.height", "size")
    assumed = "" if len(mean) == 3 else "there is no preprocessor_config.json: ImageNet's mean is assumed"
    return resnet_facts(found, stats, size=size if isinstance(size, int) else 224, settings=settings, assumed=assumed)


def timm_facts(found: "Found") -> Facts:
    """Return the facts of a network of timm, by the pretrained_cfg of the file or of timm."""
    container = found.container
    mean, std, size = (_numbers(container, f"pretrained_cfg.{what}") for what in ("mean", "std", "input_size"))
    interpolation, assumed = value_of(container, "pretrained_cfg.interpolation"), ""
    if len(mean) != 3 or len(std) != 3 or len(size) != 3:
        published = import_timm().get_pretrained_cfg(_model_of(container))
        mean, std, size, interpolation = published.mean, published.std, published.input_size, published.interpolation
        assumed = f"the file has no pretrained_cfg: mean {mean}, deviation {std} and {size[-1]} px of timm are assumed"
    if interpolation not in (None, "bilinear"):
        assumed += f"{'; ' if assumed else ''}timm resizes its images by {interpolation} interpolation, we bilinearly"
    stats: Stats = ((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
    return Facts(stats, size=int(size[-1]), assumed=assumed)


def _is_small(found: "Found") -> bool:
    return bool(dict(found.network.settings).get("small_input", False))


def resnet_facts(
    found: "Found",
    stats: Stats | str,
    *,
    size: int = 224,
    channels: str = "rgb",
    settings: Mapping[str, Any] | None = None,
    assumed: str = "",
    small_stats: Stats | None = None,
    small_assumed: str = _SMALL,
) -> Facts:
    """Return the facts of a ResNet.

    Args:
        found: What was recognized.
        stats: Mean and standard deviation, or their name.
        size: Side of the crop in pixels.
        channels: "rgb" or "bgr".
        settings: Settings of our network.
        assumed: What is assumed, in words.
        small_stats: Mean and standard deviation if the stem is for small images; None are those of CIFAR-10.
        small_assumed: What is assumed of such a stem, in words.
    """
    if found.layout.name == "shortcut_children":
        return Facts(
            refused="nn.Sequential(*resnet.children()) of this ResNet drops the ReLU behind its first convolution"
        )
    if settings and found.network.backbone == "timm":
        shown = ", ".join(f"{name}={value}" for name, value in settings.items())
        return Facts(refused=f"the {dict(found.network.settings)['model']} of timm has no {shown}")
    if "stride_in_1x1" in (settings or {}) and found.network.backbone != "resnet50":
        settings = {name: value for name, value in (settings or {}).items() if name != "stride_in_1x1"}
    if _is_small(found):
        stats, size, assumed = small_stats or "cifar10", 32, small_assumed
    return Facts(stats, channels, size, settings=settings or {}, assumed=assumed)
