"""Tests of exports to ONNX and to programs of torch.export."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from fresh_environment import run_fresh
from small_runs import config_of, inputs_and_logits, write_run
from torch import Tensor, nn

from eztorch_sce import registry
from eztorch_sce.errors import ConfigError
from eztorch_sce.interop.export import export
from eztorch_sce.interop.exports import onnx_file
from eztorch_sce.models.weights import load_backbone

pytestmark = pytest.mark.xdist_group("exports")
_SAME = ("x3d_s", "x3d_m")  # as x3d_xs
_BACKBONES = [name for name in registry.choices("backbone") if name not in ("timm", *_SAME)]


class Mean(nn.Module):
    """A network of one convolution, which exporters convert in a second."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(3, 2, 1)

    def forward(self, clips: Tensor) -> Tensor:
        features: Tensor = self.layer(clips).mean(dim=(2, 3, 4))
        return features


class ByTheBatch(Mean):
    """A network whose outputs depend on the size of the batch, which exporters take for that of their example."""

    def forward(self, clips: Tensor) -> Tensor:
        return super().forward(clips) * (2 if len(clips) > 2 else 1)


@dataclass
class OwnConfig:
    network: str = "Mean"

    def build(self) -> nn.Module:
        return Mean() if self.network == "Mean" else ByTheBatch()


@pytest.fixture
def own(own_registrations: None) -> None:
    registry.register("backbone", "own")(OwnConfig)


def check_onnx(run: str, out: Path) -> None:
    """Check a file by onnxruntime: names, other batch sizes, card."""
    import onnxruntime

    session = onnxruntime.InferenceSession(out)
    assert [output.name for output in session.get_outputs()] == ["features", "logits"]
    (entry,) = session.get_inputs()
    inputs, expected = inputs_and_logits(run)
    assert entry.shape[1:] == list(inputs.shape[1:])
    features, logits = session.run(None, {entry.name: inputs.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)
    backbone = load_backbone(run)
    torch.testing.assert_close(torch.from_numpy(features), backbone(inputs).detach(), rtol=1e-4, atol=1e-4)
    five = torch.randn(5, *inputs.shape[1:])
    torch.testing.assert_close(
        torch.from_numpy(session.run(["features"], {entry.name: five.numpy()})[0]),
        backbone(five).detach(),
        rtol=1e-4,
        atol=1e-4,
    )
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["preprocessing"])["std"] == [0.225, 0.225, 0.225]


@pytest.mark.usefixtures("own")
def test_onnx_runs_any_batch_in_one_file(tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run", OwnConfig()), tmp_path / "own.onnx"
    exported = export(run, str(out), "onnx")
    assert exported.files == [out]
    assert exported.difference < 1e-4
    check_onnx(run, out)


@pytest.mark.long
@pytest.mark.parametrize("name", _BACKBONES)
def test_every_backbone_is_exported_to_onnx(name: str, tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run", config_of(name), size=64), tmp_path / "network.onnx"
    export(run, str(out), "onnx")
    check_onnx(run, out)


@pytest.mark.usefixtures("own")
def test_what_one_onnx_file_does_not_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "_LARGEST", 30)
    run = write_run(tmp_path / "run", OwnConfig())
    with pytest.raises(ConfigError, match="a single ONNX file holds less than 2 GB; use format=torch_export"):
        export(run, str(tmp_path / "own.onnx"), "onnx")


@pytest.mark.usefixtures("own")
def test_a_program_runs_without_this_package(tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run", OwnConfig()), tmp_path / "own.pt2"
    exported = export(run, str(out), "torch_export")
    assert exported.notes[0].startswith("tied to PyTorch: written by 2.")
    inputs, expected = inputs_and_logits(run)
    torch.save({"inputs": inputs, "expected": expected}, tmp_path / "compared.pt")
    code = """
import json, torch
extra, compared = {"card.json": ""}, torch.load("compared.pt")
network = torch.export.load("own.pt2", extra_files=extra).module()
features, logits = network(compared["inputs"])
torch.testing.assert_close(logits, compared["expected"], rtol=1e-4, atol=1e-5)
card = json.loads(extra["card.json"])
print(card["torch"] == torch.__version__, card["preprocessing"]["crop"])
"""
    (tmp_path / "environment").mkdir()
    assert run_fresh(code, ["torch", "numpy"], tmp_path, tmp_path / "environment") == "True 32\n"


@pytest.mark.long
@pytest.mark.parametrize("name", _BACKBONES)
def test_every_backbone_is_exported_to_a_program(name: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", config_of(name), size=64)
    assert export(run, str(tmp_path / "network.pt2"), "torch_export").difference < 1e-4


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=pytest.mark.long)])
def test_programs_that_compute_something_else_are_not_kept(suffix: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", OwnConfig("ByTheBatch"))
    format_name = "onnx" if suffix == ".onnx" else "torch_export"
    with pytest.raises(ConfigError, match=r"does not express this network|torch cannot"):
        export(run, str(tmp_path / f"own{suffix}"), format_name)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
