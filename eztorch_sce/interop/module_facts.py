"""What the layers of a pickled module compute, which such a file says beside their tensors, compared with ours."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from eztorch_sce.interop.recognition import Found
from eztorch_sce.models.backbones.base import BackboneConfig, built_on_meta

_ATTRIBUTES = ("stride", "padding", "dilation", "groups", "padding_mode", "eps")


def contradictions(found: Found, config: BackboneConfig) -> list[str]:
    """Return the attributes of stored layers that differ from ours, such as "conv1.padding=2 instead of 3".

    Args:
        found: The network in the file.
        config: The config of ours.
    """
    values = found.container.values
    if not any(name.startswith(found.prefix) and name.endswith((".eps", ".stride.0")) for name in values):
        return []  # a state dict, which says nothing of its layers
    modules = built_on_meta(config).named_modules()
    return [text for name, module in modules for text in _differences(found, name, module, values)]


def _differences(found: Found, name: str, module: nn.Module, values: Mapping[str, Any]) -> Iterator[str]:
    theirs = found.layout.theirs(f"{name}.weight").removesuffix(".weight")
    for attribute in _ATTRIBUTES:
        ours = getattr(module, attribute, None)
        stored = _stored(values, f"{found.prefix}{theirs}.{attribute}")
        if ours is not None and stored is not None and _plain(stored) != _plain(ours):
            yield f"{theirs}.{attribute}={_plain(stored)} instead of {_plain(ours)}"


def _stored(values: Mapping[str, Any], name: str) -> Any:
    """Return a stored attribute, which may be a tuple; None if there is none."""
    if name in values:
        return values[name]
    items: list[Any] = []
    while f"{name}.{len(items)}" in values:
        items.append(values[f"{name}.{len(items)}"])
    return tuple(items) or None


def _plain(value: Any) -> Any:
    """Return equal numbers of all dimensions as one."""
    return value[0] if isinstance(value, (tuple, list)) and len(set(value)) == 1 else value
