"""Tests of weights files over time: a stored file of every format loads, and one of a newer format is refused."""

from pathlib import Path

import pytest
import torch

from eztorch_sce import tensor_file
from eztorch_sce.errors import ConfigError
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.migrations import NEWEST
from eztorch_sce.models.weights import load_backbone, load_weights, write_weights
from eztorch_sce.types import InputSpec

STORED = {
    number: next((Path(__file__).parents[1] / "vectors").glob(f"weights_{number}.*")) for number in range(1, NEWEST + 1)
}


@pytest.mark.parametrize("number", STORED)
def test_a_stored_file_of_every_format_loads(number: int) -> None:
    weights = load_weights(str(STORED[number]))
    assert weights.spec == InputSpec()
    assert weights.classes == ["a", "b"]
    assert weights.head is not None
    backbone = load_backbone(STORED[number])
    assert weights.head["weight"].shape == (2, backbone.num_features)
    assert all(torch.equal(tensor, weights.state[name]) for name, tensor in backbone.state_dict().items())


def test_writing_a_file_of_an_earlier_format_again_keeps_what_it_held(tmp_path: Path) -> None:
    earlier = load_weights(str(STORED[1]))
    write_weights(tmp_path / "again.safetensors", earlier)
    again = load_weights(str(tmp_path / "again.safetensors"))
    assert tensor_file.read(tmp_path / "again.safetensors")["format"].endswith(f" {NEWEST}")
    assert again.network == earlier.network
    assert again.provenance == earlier.provenance
    assert all(torch.equal(tensor, again.state[name]) for name, tensor in earlier.state.items())


def test_the_newest_format_holds_what_a_pretraining_goes_on_from(tmp_path: Path) -> None:
    weights = load_weights(str(STORED[NEWEST]))
    assert weights.config() == SmallR2Plus1DConfig(width=1, num_blocks=1, norm=False)
    assert weights.method["queue"].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert weights.source == {"file": "released.pth", "format": "pytorchvideo"}
    assert weights.about == {"license": "CC-BY-4.0"}


def test_a_file_of_a_newer_format_is_refused_with_the_cure(tmp_path: Path) -> None:
    content = tensor_file.read(STORED[NEWEST]) | {"format": f"eztorch_sce weights {NEWEST + 1}"}
    tensor_file.write(tmp_path / "newer.safetensors", content, root="state")
    with pytest.raises(ConfigError) as caught:
        load_weights(str(tmp_path / "newer.safetensors"))
    (message,) = caught.value.problems
    assert "newer.safetensors is of format 4, of a newer version of eztorch_sce" in message
    assert "reads formats 1 to 3: install the newer version" in message
    assert "damaged" not in message


def test_statistics_that_a_file_names_without_numbers_must_be_registered(tmp_path: Path) -> None:
    content = torch.load(STORED[1], weights_only=True)
    del content["normalization"], content["data"]  # as the first files were
    content["input"]["stats"] = "microscope"
    torch.save(content, tmp_path / "first.pt")
    with pytest.raises(ConfigError, match="register_statistics"):
        load_weights(str(tmp_path / "first.pt"))
