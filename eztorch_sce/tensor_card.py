"""Nested values as JSON, with the tensors taken out: the card of a tensor file."""

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_DEPTH = 100  # no content of ours is nested this deep; one that contains itself is
_EXACT_INT = 2**53  # larger integers lose digits in JSON readers that know only doubles

NO_TENSOR = object()
"""What `decode` gets from its `tensor_of` to leave a tensor out."""


class NamedTensor(NamedTuple):
    """A tensor of the content.

    Attributes:
        name: Its name in the file.
        tensor: The tensor.
    """

    name: str
    tensor: Tensor


def encode(
    content: Mapping[str, Any], root: str = "", name_of: Callable[[str], str] | None = None
) -> tuple[Any, list[NamedTensor]]:
    """Return the content in types of JSON, and its tensors by name.

    A dictionary with text keys, a list, None, a boolean, text and an ordinary number stand for themselves. Other values
    are an object with one key that begins with "$": `{"$tensor": name}`, `{"$tuple": [...]}`, `{"$dict": [[key,
    value], ...]}`, `{"$float": "nan"}`, `{"$int": "0x..."}`, `{"$bytes": base64}`. The name of a tensor is the path of
    keys to it, joined by dots.

    Args:
        content: Dictionaries with str or int keys, lists, tuples, tensors and plain values. Subclasses of these types,
            such as `OrderedDict`, are read back as the types themselves.
        root: Top-level key that the names of the tensors below it leave out.
        name_of: Returns the name of a tensor in the file from the one that it would have; None keeps it.

    Raises:
        TypeError: If a value or key has another type, or the values are nested too deep; the message gives its path.
    """
    encoder = _Encoder(root, name_of or str)
    return encoder.encode(content, ()), encoder.tensors


class _Encoder:
    def __init__(self, root: str, name_of: Callable[[str], str]) -> None:
        self.root, self.name_of, self.tensors = root, name_of, list[NamedTensor]()
        self._names = {"__metadata__"}  # which safetensors reserves

    def encode(self, value: Any, path: tuple[str, ...]) -> Any:
        if len(path) > _DEPTH:
            raise TypeError(f"{'.'.join(path[:5])}...: nested more than {_DEPTH} levels deep, or contains itself")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int(value) if abs(value) < _EXACT_INT else {"$int": hex(value)}
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
        if isinstance(value, bytes):
            return {"$bytes": base64.b64encode(value).decode()}
        if isinstance(value, Tensor):
            return {"$tensor": self._add(value, path)}
        if isinstance(value, (list, tuple)):
            items = [self.encode(item, (*path, str(position))) for position, item in enumerate(value)]
            return items if isinstance(value, list) else {"$tuple": items}
        if isinstance(value, Mapping):
            return self._encode_mapping(value, path)
        raise TypeError(f"{'.'.join(path)}: a {type(value).__name__} object, which a tensor file cannot hold")

    def _encode_mapping(self, value: Mapping[Any, Any], path: tuple[str, ...]) -> Any:
        pairs = []
        for key, item in value.items():
            if isinstance(key, bool) or not isinstance(key, (str, int)):
                kind = type(key).__name__
                raise TypeError(f"{'.'.join(path)}: the key {key!r} is of type {kind}; a tensor file holds str and int")
            plain = self.encode(key, path)
            pairs.append([plain, self.encode(item, (*path, str(key)))])
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
            return dict(pairs)
        return {"$dict": pairs}

    def _add(self, tensor: Tensor, path: tuple[str, ...]) -> str:
        if reason := _why_not(tensor):
            raise TypeError(f"{'.'.join(path)}: {reason}, which a tensor file cannot hold")
        shown = path[1:] if len(path) > 1 and path[0] == self.root else path
        wanted = (
            self.name_of(".".join(shown)).encode("utf-8", "backslashreplace").decode()
        )  # file names may hold lone surrogates
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}~{number}"
        self._names.add(name)
        self.tensors.append(NamedTensor(name, tensor.detach()))
        return name


def _why_not(tensor: Tensor) -> str:
    """Return what a tensor is that has no bytes of its own, or an empty string."""
    if type(tensor.detach()) not in (Tensor, nn.Parameter):
        return f"a {type(tensor).__name__}"  # a DTensor holds a part of its values only
    if tensor.is_meta:
        return "a tensor on the meta device"
    if tensor.layout is not torch.strided:
        return f"a tensor of layout {tensor.layout}"
    return "a quantized tensor" if tensor.is_quantized else ""


def decode(card: Any, tensor_of: Callable[[str], Any]) -> Any:
    """Return the content that `encode` made into JSON.

    Args:
        card: The JSON.
        tensor_of: Function that returns the tensor of a name, or `NO_TENSOR`: dictionaries then lack the key, and lists
            and tuples have None there.

    Raises:
        ValueError: If the card is not one of `encode`.
    """
    if isinstance(card, list):
        return [_placed(decode(item, tensor_of)) for item in card]
    if not isinstance(card, dict):
        return card
    kind = next(iter(card), "")
    if not kind.startswith("$"):
        return _without_gaps((key, decode(value, tensor_of)) for key, value in card.items())
    [value] = card.values()
    if kind == "$tensor":
        return tensor_of(value)
    if kind == "$tuple":
        return tuple(_placed(decode(item, tensor_of)) for item in value)
    if kind == "$dict":
        return _without_gaps((decode(key, tensor_of), decode(item, tensor_of)) for key, item in value)
    if kind == "$float":
        return float(value)
    if kind == "$int":
        return int(value, 16)
    if kind == "$bytes":
        return base64.b64decode(value, validate=True)
    raise ValueError(f"unknown kind {kind}")


def _placed(value: Any) -> Any:
    return None if value is NO_TENSOR else value


def _without_gaps(items: Any) -> dict[Any, Any]:
    return {key: value for key, value in items if value is not NO_TENSOR}
