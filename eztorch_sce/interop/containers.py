"""Containers: files of tensors and plain values, however they are stored, read without running anything in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from eztorch_sce import torch_file


class Container(NamedTuple):
    """What a file or folder holds. Names are the paths of keys to a value, joined by dots.

    Attributes:
        kind: How it is stored, in words, such as "safetensors" or "torch.save (zip)".
        tensors: Its tensors by name, in order.
        values: Its other plain values by name: text, numbers, booleans and None.
        objects: Classes of the objects that were left out, by name; nothing of them was run.
    """

    kind: str
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    objects: Mapping[str, str]


def read_container(path: str | Path) -> Container:
    """Return what a file or folder holds.

    Raises:
        DamagedFileError: If it is damaged, is hostile, or is no container that we read; the message says which.
        OSError: If it is missing or cannot be read.
    """
    content = torch_file.read(path)
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    _flatten(content, (), tensors, values)
    return Container("torch.save (zip)", tensors, values, {})


def _flatten(value: Any, path: tuple[str, ...], tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    if isinstance(value, Tensor):
        tensors[".".join(path)] = value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _flatten(item, (*path, str(key)), tensors, values)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            _flatten(item, (*path, str(number)), tensors, values)
    else:
        values[".".join(path)] = value
