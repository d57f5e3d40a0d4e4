"""Tests of weights files whose checksums hold and whose content does not."""

from pathlib import Path
from typing import Any

import pytest
import torch

from eztorch_sce import tensor_file
from eztorch_sce.errors import ConfigError
from eztorch_sce.models.migrations import NEWEST
from eztorch_sce.models.weights import load_backbone

STORED = Path(__file__).parents[1] / "vectors" / f"weights_{NEWEST}.safetensors"
INPUT = {"num_frames": 8, "clip_s": 2.56, "size": 224, "stats": "video", "input": "rgb", "frame_stride": None}


@pytest.mark.parametrize("key", ["backbone", "input", "normalization", "state", "head", "classes", "data", "method"])
@pytest.mark.parametrize("value", [..., 7, "text", [1], {"unknown": 1}], ids=str)
def test_a_file_with_a_part_missing_or_of_another_type_is_refused_by_its_name(
    tmp_path: Path, key: str, value: Any
) -> None:
    content = tensor_file.read(STORED) | {key: value}
    if value is ...:
        del content[key]
    tensor_file.write(tmp_path / "forged.safetensors", content, root="state")
    with pytest.raises(ConfigError, match=f"{key}|the data"):
        load_backbone(tmp_path / "forged.safetensors")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_frames", 0), ("num_frames", "8"), ("num_frames", 10**30), ("size", -1), ("size", 224.5)),
        *(("clip_s", 0), ("clip_s", None), ("stats", 1), ("input", "bgr"), ("frame_stride", 0), ("frame_stride", True)),
    ],
)
def test_an_input_that_cannot_be_is_refused_by_the_name_of_the_setting(tmp_path: Path, name: str, value: Any) -> None:
    tensor_file.write(tmp_path / "forged", tensor_file.read(STORED) | {"input": INPUT | {name: value}}, root="state")
    with pytest.raises(ConfigError, match=f"input.{name}"):
        load_backbone(tmp_path / "forged")


def test_weights_that_are_not_numbers_are_refused_by_name(tmp_path: Path) -> None:
    content = tensor_file.read(STORED)
    name = next(name for name, tensor in content["state"].items() if tensor.is_floating_point())
    content["state"][name].view(-1)[0] = torch.nan
    tensor_file.write(tmp_path / "forged", content, root="state")
    with pytest.raises(ConfigError, match=f"state.{name} holds numbers that are NaN"):
        load_backbone(tmp_path / "forged")
