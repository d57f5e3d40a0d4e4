"""Export under the names of other code bases, in their containers.

The names are those of `layouts.py`, so what is exported is also what is imported. A file is read back as one of its
code base, whose facts may differ under equal names: it is kept only if its network is the same.
"""

import copy
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eztorch_sce.errors import ConfigError, first_line, shorten
from eztorch_sce.interop.exports.check import difference_from
from eztorch_sce.interop.exports.format import ExportFormat, Written
from eztorch_sce.interop.exports.taken import Taken, network_of, outputs_of
from eztorch_sce.interop.import_weights import Choices, import_file
from eztorch_sce.interop.layouts import COUNTER, LAYOUTS, Layout, shapes_of
from eztorch_sce.models.network_config import name_of_network
from eztorch_sce.models.weights import imported_weights
from eztorch_sce.settings import show

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class _Names:
    """The names of a code base.

    Attributes:
        name: Name of the export.
        title: The code base.
        layouts: Names of its layouts, with the formats that files of these layouts are read back as.
        suffixes: Suffixes that the file may have, the usual one first.
        save: Writes tensors and a card in the container of the code base.
        usage: What its users must set, in words, given the network.
        head_axes: Axes of length 1 that the classifier's weight has at its end, by the name of the layout.
        run: Runs the network of the code base itself on inputs, given the network, its layout and the tensors in the
            file; None if the code base is not a dependency of this package.
    """

    name: str
    title: str
    layouts: Mapping[str, str]
    suffixes: tuple[str, ...]
    save: Callable[[Tensors, dict[str, Any], Path], None]
    usage: Callable[[Taken], str]
    head_axes: Mapping[str, int] = field(default_factory=dict)
    run: Callable[[Taken, Layout, Tensors, Tensor], list[Tensor]] | None = None

    def write(self, taken: Taken, path: Path) -> Written:
        """Write a network, and compare it with what the file means to the code base."""
        layout = self._layout_of(taken)
        tensors = {layout.theirs(name): _plain(tensor) for name, tensor in taken.weights.state.items()}
        for part, tensor in (taken.weights.head or {}).items():
            axes = (1,) * self.head_axes.get(layout.name, 0) if part == "weight" else ()
            tensors[f"{layout.head}.{part}"] = _plain(tensor).reshape(*tensor.shape, *axes)
        self.save(tensors, taken.card, path)
        again = self._read_back(taken, path, self.layouts[layout.name])
        difference = difference_from(taken, lambda inputs: outputs_of(again, inputs), self.name)
        compared = f"the network of the file, read back as one of {self.title}"
        if self.run is not None:
            run = partial(self.run, taken, layout, tensors)
            difference, compared = difference_from(taken, run, self.name), f"the network of {self.title}"
        return Written(difference, compared, [self.usage(taken)])

    @property
    def networks(self) -> list[str]:
        """Names of the backbones that have such names."""
        return list(dict.fromkeys(each.backbone for name in self.layouts for each in LAYOUTS[name].networks))

    def _layout_of(self, taken: Taken) -> Layout:
        """Return the layout with the names of a network."""
        name = name_of_network(taken.weights.network)
        shapes = {key: tensor.shape for key, tensor in taken.weights.state.items()}
        for layout in (LAYOUTS[each] for each in self.layouts):
            if not any(each.backbone == name and shapes_of(each) == shapes for each in layout.networks):
                continue
            if taken.weights.head and not layout.head:
                raise ConfigError([f"format={self.name} has no classifier: export the run of the pretraining"])
            return layout
        known = f"it has for {', '.join(self.networks)}"
        raise ConfigError([f"format={self.name} has no names for the backbone {_in_words(taken)}; {known}"])

    def _read_back(self, taken: Taken, path: Path, format_name: str) -> nn.Module:
        """Return the network that a file is for the code base; its settings must be those of the network."""
        name = name_of_network(taken.weights.network)
        refusal = f"format={self.name} does not express the backbone {_in_words(taken)}"
        try:
            imported = import_file(str(path), Choices(format=format_name, backbone=name))
        except ConfigError as error:
            raise ConfigError([f"{refusal}: {'; '.join(error.problems)}"]) from None
        ours, theirs = asdict(taken.config), asdict(imported.config)
        if other := [f"{key}={show(theirs[key])}" for key in ours if ours[key] != theirs[key]]:
            raise ConfigError([f"{refusal}: under the same names, {self.title} computes it with {', '.join(other)}"])
        return network_of(imported_weights(imported, str(path), ""), imported.config)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _in_words(taken: Taken) -> str:
    """Return the name of a backbone with its settings."""
    settings = ", ".join(f"{key}={show(value)}" for key, value in taken.weights.network["settings"].items())
    name = name_of_network(taken.weights.network)
    return f"{name} with {settings}" if settings else name


def _save_flat(tensors: Tensors, card: dict[str, Any], path: Path) -> None:
    """Write a state dict, and the card beside it: `load_state_dict` would take it for a tensor."""
    torch.save(tensors, path)
    path.with_name(f"{path.stem}.card.json").write_text(json.dumps(card, indent=1), encoding="utf-8")


def _save_model_state(tensors: Tensors, card: dict[str, Any], path: Path) -> None:
    torch.save({"model_state": tensors, "card": card}, path)


def _save_detectron2(tensors: Tensors, card: dict[str, Any], path: Path) -> None:
    """Write arrays, which Detectron2 matches with the names of its network by their ends."""
    model = {name: tensor.numpy() for name, tensor in tensors.items() if not name.endswith(COUNTER)}
    content = {"model": model, "__author__": "eztorch_sce", "matching_heuristics": True, "card": card}
    path.write_bytes(pickle.dumps(content, protocol=4))


def _run_torchvision(taken: Taken, layout: Layout, tensors: Tensors, inputs: Tensor) -> list[Tensor]:
    """Return the outputs of torchvision's own network."""
    from torchvision.models import get_model  # takes a second to import

    head = taken.network.head
    options: dict[str, Any] = {} if head is None else {"num_classes": head.out_features}
    network = get_model(taken.name, weights=None, **options)
    try:
        missing, _ = network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ConfigError([f"format=torchvision: its {taken.name} has other shapes: {reason}"]) from None
    if absent := [name for name in missing if head is not None or not name.startswith(f"{layout.head}.")]:
        raise ConfigError([f"format=torchvision: its {taken.name} has more tensors: {shorten(absent)}"])
    network.eval()
    features = copy.deepcopy(network)
    features.set_submodule(layout.head, nn.Identity())
    try:
        with torch.no_grad():
            return [features(inputs)] if head is None else [features(inputs), network(inputs)]
    except RuntimeError as error:
        reason = f"its {taken.name} does not take inputs {tuple(inputs.shape)}: {first_line(error)}"
        raise ConfigError([f"format=torchvision: {reason}"]) from None


def _use_torchvision(taken: Taken) -> str:
    if taken.network.head is None:
        return f"torchvision.models.get_model('{taken.name}') takes it with strict=False: its classifier is missing"
    return f"torchvision.models.get_model('{taken.name}', num_classes={taken.network.head.out_features}) takes it"


def _use_pytorchvideo(taken: Taken) -> str:
    left_out = "" if taken.network.head is not None else ", and lacks those of the head, blocks.5"
    return f"model_state has the names of pytorchvideo's models{left_out}"


def _use_slowfast(taken: Taken) -> str:
    mean, std = (taken.card["preprocessing"][name] for name in ("mean", "std"))
    return (
        f"MODEL.ARCH slow, RESNET.DEPTH 50, DATA.NUM_FRAMES {taken.weights.spec.num_frames}, DATA.MEAN {mean}, "
        f"DATA.STD {std}, TEST.CHECKPOINT_TYPE pytorch"
    )


def _use_detectron2(taken: Taken) -> str:
    mean, std = ([255 * value for value in taken.card["preprocessing"][name] or ()] for name in ("mean", "std"))
    numbers = ", ".join(f"{value:.3f}" for value in mean), ", ".join(f"{value:.3f}" for value in std)
    depth = taken.name.removeprefix("resnet")
    return (
        f"MODEL.RESNETS.DEPTH {depth}, MODEL.RESNETS.STRIDE_IN_1X1 False, INPUT.FORMAT RGB, "
        f"MODEL.PIXEL_MEAN [{numbers[0]}], MODEL.PIXEL_STD [{numbers[1]}]"
    )


def _of_layouts(format_name: str, *layouts: str) -> dict[str, str]:
    return dict.fromkeys(layouts, format_name)


_PICKLES = (".pyth", ".pth", ".pt")

_CODE_BASES = (
    _Names(
        "torchvision",
        "torchvision",
        _of_layouts("torchvision", "torchvision")
        | _of_layouts("torchvision_video", "torchvision_video", "torchvision_s3d"),
        (".pth", ".pt"),
        _save_flat,
        _use_torchvision,
        head_axes={"torchvision_s3d": 3},
        run=_run_torchvision,
    ),
    _Names(
        "pytorchvideo",
        "pytorchvideo",
        _of_layouts("pytorchvideo", "pytorchvideo", "pytorchvideo_x3d"),
        _PICKLES,
        _save_model_state,
        _use_pytorchvideo,
    ),
    _Names("slowfast", "SlowFast", _of_layouts("slowfast", "slowfast"), _PICKLES, _save_model_state, _use_slowfast),
    _Names(
        "detectron2",
        "Detectron2",
        _of_layouts("detectron2", "detectron2"),
        (".pkl",),
        _save_detectron2,
        _use_detectron2,
    ),
)


def _export_of(names: _Names) -> ExportFormat:
    title = f"state dict under the names of {names.title}"
    return ExportFormat(names.name, title, ", ".join(names.networks), names.write, names.suffixes)


OTHER_NAMES: tuple[ExportFormat, ...] = tuple(map(_export_of, _CODE_BASES))
"""The exports under the names of other code bases."""
