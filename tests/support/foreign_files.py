"""Checkpoints of other code bases, made of the state dicts of networks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from formula import hash_sym
from torch import Tensor

from eztorch_sce.interop.accounting import MISSING
from eztorch_sce.interop.containers import Container
from eztorch_sce.interop.import_weights import Imported
from eztorch_sce.models.backbones.base import as_backbone, build_network

VECTORS = Path(__file__).resolve().parents[1] / "vectors"  # see the README there


def container(tensors: Mapping[str, Tensor], **values: Any) -> Container:
    """Return what a file with these tensors and values holds."""
    return Container("test", dict(tensors), values, {})


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict as a module holds it under another one."""
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def cheap_state(shapes: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a state dict that takes no memory, from tensors or shapes by name."""
    shapes = {name: getattr(shape, "shape", shape) for name, shape in shapes.items()}
    return {name: torch.tensor(0 if not shape else 0.01).expand(shape) for name, shape in shapes.items()}


def recorded(case: str) -> tuple[Tensor, Tensor]:
    """Return the input and the output that the public code has for a recorded network."""
    entries = {entry["name"]: entry for entry in json.loads((VECTORS / "backbones.json").read_text())["backbones"]}
    key, _, shape = entries[case]["input"].removeprefix("hash_sym('").partition("',")
    inputs = hash_sym(key, tuple(json.loads(shape[: shape.index("]") + 1])))
    return inputs, torch.from_numpy(np.load(VECTORS / "backbones.npz")[case])


def outputs_of(imported: Imported, inputs: Tensor) -> Tensor:
    """Return what an imported network computes, with its classifier if it has one, in float64."""
    backbone = as_backbone(build_network(imported.config)).eval()
    backbone.load_state_dict(imported.state)
    with torch.no_grad():
        outputs = backbone.double()(inputs.double())
    if imported.head is None:
        return outputs
    return outputs @ imported.head["weight"].double().T + imported.head["bias"].double()


def assert_accounted_for(imported: Imported, tensors: Mapping[str, Tensor]) -> None:
    """Check that the account has each tensor of the file once, and each tensor of the network once."""
    assert sorted(row.theirs for row in imported.rows if row.theirs) == sorted(tensors)
    ours = [row.ours for row in imported.rows if row.ours and row.status != MISSING]
    assert len(ours) == len(set(ours))
    assert imported.state.keys() <= set(ours)
