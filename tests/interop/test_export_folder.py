"""Tests of folders for the Hugging Face Hub, which load without this package."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fresh_environment import run_fresh
from small_runs import CLASSES, SMALL, config_of, inputs_and_logits, write_run
from torch import Tensor, nn

from eztorch_sce import registry
from eztorch_sce.augment.view import View, evaluation_view
from eztorch_sce.data.shaping import short_side_crops
from eztorch_sce.errors import ConfigError
from eztorch_sce.interop.export import export
from eztorch_sce.models.weights import load_backbone, load_weights

pytestmark = pytest.mark.xdist_group("exports")
_SAME = ("x3d_s", "x3d_m")  # as x3d_xs
_BACKBONES = [name for name in registry.choices("backbone") if name not in ("timm", *_SAME)]


def fields_of(folder: Path) -> dict[str, Any]:
    """Return the fields at the beginning of a page."""
    fields: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return fields


def code_of(folder: Path) -> tuple[str, list[str]]:
    """Return the code of a page, and the packages that it says it needs."""
    page = (folder / "README.md").read_text()
    code, packages = re.search(r"```python\n(.+?)```", page, re.DOTALL), re.search(r"`pip install (.+?)`", page)
    assert code
    assert packages
    return code[1], packages[1].split()


def check_the_page(run: str, folder: Path, environment: Path, call: str) -> None:
    """Run the code of a page without this package, and compare the logits of its network."""
    inputs, expected = inputs_and_logits(run)
    code, packages = code_of(folder)
    torch.save({"inputs": inputs, "expected": expected}, folder / "compared.pt")
    compare = f"""
compared = torch.load("compared.pt")
with torch.no_grad():
    torch.testing.assert_close({call}, compared["expected"], rtol=1e-4, atol=1e-5)
try:
    import eztorch_sce
except ImportError:
    print("compared")
"""
    environment.mkdir()
    assert run_fresh(code + compare, packages, folder, environment) == "compared\n"


def test_a_folder_loads_with_torch_and_safetensors_alone(tmp_path: Path) -> None:
    run, folder = write_run(tmp_path / "run", SMALL), tmp_path / "folder"
    exported = export(run, str(folder), "huggingface", license="MIT")
    assert [file.name for file in exported.files] == ["README.md", "config.json", "model.py", "model.safetensors"]
    fields = fields_of(folder)
    assert (fields["license"], fields["library_name"]) == ("mit", "pytorch")
    assert fields["pipeline_tag"] == "video-classification"
    check_the_page(run, folder, tmp_path / "environment", 'network(compared["inputs"])[1]')


@pytest.mark.long
@pytest.mark.parametrize(("name", "settings"), [("resnet18", {}), ("timm", {"model": "convnext_atto"})])
def test_a_folder_of_a_network_of_timm_loads_with_timm_alone(
    name: str, settings: dict[str, str], tmp_path: Path
) -> None:
    run, folder = write_run(tmp_path / "run", config_of(name, **settings), size=64, stats="image"), tmp_path / "folder"
    export(run, str(folder), "huggingface")
    config = json.loads((folder / "config.json").read_text())
    assert config["label_names"] == CLASSES
    assert config["pretrained_cfg"]["mean"] == [0.485, 0.456, 0.406]
    assert fields_of(folder)["library_name"] == "timm"
    check_the_page(run, folder, tmp_path / "environment", 'network(compared["inputs"])')


@pytest.mark.long
@pytest.mark.parametrize("name", _BACKBONES)
@pytest.mark.parametrize("has_classes", [False, True])
def test_every_backbone_has_a_folder(name: str, has_classes: bool, tmp_path: Path) -> None:
    run, folder = write_run(tmp_path / "run", config_of(name), 64, has_classes), tmp_path / "folder"
    assert export(run, str(folder), "huggingface").difference < 1e-4
    before, after = load_weights(run), load_weights(str(folder))
    assert (after.spec, after.classes, after.config()) == (before.spec, before.classes, before.config())
    assert all(torch.equal(tensor, after.state[key]) for key, tensor in before.state.items())


def test_a_folder_loads_again_with_its_input(tmp_path: Path) -> None:
    run, folder = write_run(tmp_path / "run", SMALL, clip_s=0.5, stats="image"), tmp_path / "folder"
    export(run, str(folder), "huggingface")
    backbone = load_backbone(folder)
    assert backbone.input_spec == load_weights(run).spec
    inputs, _ = inputs_and_logits(run)
    assert torch.equal(backbone(inputs), load_backbone(run)(inputs))
    export(run, str(folder), "huggingface")  # in the place of the earlier one
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize(
    ("input", "stats"), [("rgb", "video"), ("rgb", "clip"), ("difference", "difference")], ids=lambda value: str(value)
)
def test_model_py_prepares_the_input_as_the_evaluations_do(input: str, stats: str, tmp_path: Path) -> None:
    run, folder = write_run(tmp_path / "run", SMALL, input=input, stats=stats), tmp_path / "folder"
    export(run, str(folder), "huggingface")
    variables: dict[str, Any] = {}
    exec((folder / "model.py").read_text(), variables)
    spec = load_weights(run).spec
    frames = torch.randint(0, 256, (4, 3, 53, 80), dtype=torch.uint8)
    (crop,) = short_side_crops(frames.transpose(0, 1), spec.test_short_side, spec.size, 1)
    expected = View(evaluation_view(spec))(crop[None])[0]
    torch.testing.assert_close(variables["preprocess"](frames), expected, rtol=1e-5, atol=1e-5)


class ByTheMean(nn.Module):
    """A network whose path depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(3, 2, 1)

    def forward(self, clips: Tensor) -> Tensor:
        features: Tensor = self.layer(clips).mean(dim=(2, 3, 4))
        return features if clips.mean() > 0 else -features


class ByTheBatch(ByTheMean):
    """A network whose outputs depend on the size of the batch."""

    def forward(self, clips: Tensor) -> Tensor:
        features: Tensor = self.layer(clips).mean(dim=(2, 3, 4))
        return features * len(clips)


class Attention(ByTheMean):
    """A network with a module of PyTorch that has others inside."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1)

    def forward(self, clips: Tensor) -> Tensor:
        features = self.layer(clips).mean(dim=(2, 3, 4))
        attended: Tensor = self.attention(features, features, features)[0]
        return attended


class Scaled(nn.Module):
    """A network with a parameter of its own, and modules that are numbered with gaps."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((2,), 3.0))
        self.layers = nn.Sequential()
        self.layers.add_module("1", nn.Conv3d(3, 2, 1))
        self.layers.add_module("7", nn.ReLU())

    def forward(self, clips: Tensor) -> Tensor:
        features: Tensor = self.layers(clips).mean(dim=(2, 3, 4)) * self.scale
        return features


class Halved(ByTheMean):
    """A network that reads the shape of its input."""

    def forward(self, clips: Tensor) -> Tensor:
        maps = nn.functional.max_pool3d(self.layer(clips), [min(2, size) for size in clips.shape[2:]])
        features: Tensor = maps.reshape(maps.size(0), 2, -1).mean(dim=2)
        return features


def export_own(network: type[nn.Module], folder: Path) -> float:
    """Return the difference of the export of a network that a user registers."""

    @dataclass
    class Config:
        def build(self) -> nn.Module:
            return network()

    registry.register("backbone", "own")(Config)
    return export(write_run(folder / "run", Config()), str(folder / "folder"), "huggingface").difference


@pytest.mark.usefixtures("own_registrations")
@pytest.mark.parametrize(("network", "tensor"), [(Scaled, "network.scale"), (Halved, "network.layer.weight")])
def test_networks_of_users_have_folders(network: type[nn.Module], tensor: str, tmp_path: Path) -> None:
    assert export_own(network, tmp_path) == 0
    assert tensor in load_backbone(tmp_path / "folder").state_dict()


@pytest.mark.usefixtures("own_registrations")
@pytest.mark.parametrize("network", [ByTheMean, ByTheBatch, Attention])
def test_networks_that_cannot_be_written_out_are_refused(network: type[nn.Module], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written in plain PyTorch"):
        export_own(network, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
