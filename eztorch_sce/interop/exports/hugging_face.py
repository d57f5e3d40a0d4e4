"""Export to a folder for the Hugging Face Hub: weights, settings and a page, and the network if it is nobody's else."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from eztorch_sce.errors import ConfigError
from eztorch_sce.interop.exports.check import difference_from
from eztorch_sce.interop.exports.format import ExportFormat, Written
from eztorch_sce.interop.exports.plain_module import built, head_name, source_of
from eztorch_sce.interop.exports.readme import readme_of
from eztorch_sce.interop.exports.taken import Taken, outputs_of
from eztorch_sce.models.backbones.timm_models import INSTALL, TimmBackbone, TimmConfig, import_timm
from eztorch_sce.models.weights import WEIGHTS_IN_FOLDER, load_weights, write_weights

FILES = ("README.md", "config.json", "model.py", WEIGHTS_IN_FOLDER)
"""The files that a folder may have; not every network needs a `model.py`."""

_RESNETS = ("resnet18", "resnet34", "resnet50")  # those of timm have the same names and compute the same


class _Home(NamedTuple):
    """The library that builds a network from the folder.

    Attributes:
        library: Name of the library, for the Hub.
        classifier: Name of the classifier in the state dict; empty if there is none.
        prefix: What our names have before theirs.
        settings: Settings that `config.json` has for the library.
        snippet: Python code that loads the network and runs it, in the folder.
        source: Source of `model.py`; empty if the library has the network.
    """

    library: str
    classifier: str
    prefix: str
    settings: dict[str, Any]
    snippet: str
    source: str = ""

    def name_of(self, name: str) -> str:
        """Return the name in the state dict of the library of a tensor in a weights file."""
        if name in ("head.weight", "head.bias"):
            return f"{self.classifier}.{name.removeprefix('head.')}"
        return name.removeprefix(self.prefix)


def _write(taken: Taken, folder: Path) -> Written:
    name = _timm_name(taken)
    home = _plain_home(taken) if name is None else _timm_home(taken, name)
    alone = replace(taken.weights, about=taken.card, method={}, provenance=None)  # no tensors but those of the network
    write_weights(folder / WEIGHTS_IN_FOLDER, alone, home.name_of)
    config = home.settings | {"eztorch_sce": taken.card}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    page = readme_of(taken, home.library, home.snippet)
    (folder / "README.md").write_text(page, encoding="utf-8")
    if home.source:
        (folder / "model.py").write_text(home.source, encoding="utf-8")
    network = _plain_network(home, folder) if name is None else _timm_network(taken, folder)
    difference = difference_from(taken, lambda inputs: outputs_of(network, inputs), HUGGING_FACE.name)
    return Written(difference, f"the network as the folder's README loads it, by {home.library}")


_PLAIN_SNIPPET = """\
import torch
from safetensors.torch import load_file

from model import Model, preprocess  # the file model.py of this folder

network = Model()
network.load_state_dict(load_file("model.safetensors"))
network.eval()

{frames}
with torch.no_grad():
    {outputs} = network(preprocess({argument})[None])
"""


def _plain_home(taken: Taken) -> _Home:
    """Return PyTorch alone as the home of a network, with its source."""
    takes_clips, num_frames = taken.network.backbone.takes_clips, taken.weights.spec.num_frames
    shape = f"({num_frames}, 3, 240, 320)" if takes_clips else "(3, 240, 320)"
    argument = "frames" if takes_clips else "image"
    frames = f"{argument} = torch.randint(0, 256, {shape}, dtype=torch.uint8)  # in place of yours, RGB"
    outputs = f"({taken.output_names[0]},)" if len(taken.output_names) == 1 else ", ".join(taken.output_names)
    snippet = _PLAIN_SNIPPET.format(frames=frames, outputs=outputs, argument=argument)
    classifier = head_name(taken.network) if taken.network.head is not None else ""
    return _Home("pytorch", classifier, "", {"architecture": taken.name}, snippet, source_of(taken))


def _plain_network(home: _Home, folder: Path) -> nn.Module:
    network = built(home.source)
    weights = load_weights(str(folder))
    tensors = dict(weights.state) | {f"{home.classifier}.{part}": each for part, each in (weights.head or {}).items()}
    network.load_state_dict(tensors)
    return network.eval()


def _timm_name(taken: Taken) -> str | None:
    """Return the name of the network in timm, or None if it has no such network or cannot prepare its input."""
    preprocessing = taken.card["preprocessing"]
    if preprocessing["input"] != "rgb" or preprocessing["mean"] is None or taken.network.backbone.takes_clips:
        return None
    name = str(taken.weights.network.get("name"))
    if isinstance(taken.config, TimmConfig):
        return taken.config.architecture()
    return name if name in _RESNETS and taken.config == type(taken.config)() else None


_TIMM_SNIPPET = """\
import timm
import torch
from PIL import Image

network = timm.create_model("local-dir:.", pretrained=True)  # of the Hub: "hf-hub:OWNER/NAME"
network.eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))

image = Image.new("RGB", (320, 240))  # in place of yours
with torch.no_grad():
    {output} = network(transform(image)[None])
"""


def _timm_home(taken: Taken, name: str) -> _Home:
    """Return timm as the home of a network."""
    if find_spec("timm") is None:
        reason = f"the home of the backbone {taken.name} is timm, which is not installed: {INSTALL}"
        raise ConfigError([f"format={HUGGING_FACE.name}: {reason}"])
    pretrained = import_timm().create_model(name, num_classes=0).default_cfg
    preprocessing, num_classes = taken.card["preprocessing"], len(taken.weights.classes)
    settings: dict[str, Any] = {
        "architecture": name,
        "num_classes": num_classes,
        "num_features": taken.network.backbone.num_features,
        "pretrained_cfg": {
            "input_size": [3, preprocessing["crop"], preprocessing["crop"]],
            "fixed_input_size": bool(pretrained.get("fixed_input_size")),
            "interpolation": "bilinear",
            "crop_pct": preprocessing["crop"] / preprocessing["short_side"],
            "crop_mode": "center",
            "mean": preprocessing["mean"],
            "std": preprocessing["std"],
            "num_classes": num_classes,
            "first_conv": pretrained["first_conv"],
            "classifier": pretrained["classifier"],
        },
    }
    if options := taken.weights.network["settings"].get("options"):
        settings["model_args"] = options
    if taken.weights.classes:
        settings["label_names"] = taken.weights.classes
    if taken.card.get("license"):
        settings["pretrained_cfg"]["license"] = taken.card["license"]
    prefix = "network." if isinstance(taken.network.backbone, TimmBackbone) else ""
    snippet = _TIMM_SNIPPET.format(output=taken.output_names[-1])
    return _Home("timm", str(pretrained["classifier"]), prefix, settings, snippet)


class _TimmNetwork(nn.Module):
    """A network of timm with the outputs of `WholeNetwork`."""

    def __init__(self, network: Any, has_classes: bool) -> None:
        super().__init__()
        self.network, self.has_classes = network, has_classes

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the features, and the logits if it has a classifier."""
        maps = self.network.forward_features(images)
        features = self.network.forward_head(maps, pre_logits=True)
        return (features, self.network.forward_head(maps)) if self.has_classes else (features,)


def _timm_network(taken: Taken, folder: Path) -> nn.Module:
    network = import_timm().create_model(f"local-dir:{folder}", pretrained=True)
    return _TimmNetwork(network, taken.network.head is not None).eval()


HUGGING_FACE: ExportFormat = ExportFormat(
    "huggingface",
    "folder for the Hugging Face Hub, which loads without this package",
    "all of timm, and those of modules and functions of PyTorch",
    _write,
)
