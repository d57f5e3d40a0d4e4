"""Choices by name: config dataclasses registered with `@register(group, name)`.

A choice is one module: a dataclass of settings with a `build` method, beside the class that it builds. The package of
a group is imported when the group is first looked up, so that a command loads only the groups it uses.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

C = TypeVar("C", bound=type)

_PACKAGES = {
    "backbone": "models.backbones",
    "decoder": "data.decoders",
    "evaluation": "evaluation",
    "loss": "losses",
    "method": "methods",
    "optimizer": "optim",
}
_CHOICES: dict[str, dict[str, type]] = {}
_loaded: set[str] = set()


def register(group: str, name: str) -> Callable[[C], C]:
    """Register a config dataclass as the choice `name` of `group`, as in `backbone=resnet18`.

    A class that is defined again, such as by a notebook cell that runs twice, replaces its earlier definition.

    Raises:
        ValueError: If another class is registered under this name.
    """

    def add(cls: C) -> C:
        registered = _CHOICES.setdefault(group, {}).get(name, cls)
        if registered.__qualname__ != cls.__qualname__:
            raise ValueError(f"{group}={name} is registered twice: {registered.__module__} and {cls.__module__}")
        _CHOICES[group][name] = cls
        return cls

    return add


def choices(group: str) -> dict[str, type[Any]]:
    """Return the config classes of a group by name, in alphabetical order."""
    _load(group)
    return dict(sorted(_CHOICES.get(group, {}).items()))


def place_of(config: object) -> tuple[str, str] | None:
    """Return the group and the name under which the class of a config object is registered, or None."""
    for group, members in _CHOICES.items():
        for name, cls in members.items():
            if cls is type(config):
                return group, name
    return None


def name_of(config: object) -> str:
    """Return the name under which the class of a config object is registered.

    Raises:
        ValueError: If it is not registered.
    """
    place = place_of(config)
    if place is None:
        raise ValueError(f"{type(config).__name__} is not registered")
    return place[1]


def _load(group: str) -> None:
    """Import every module of the package of a group, once."""
    if group in _loaded or group not in _PACKAGES:
        return
    _loaded.add(group)  # before the imports: a module may look up a choice while it loads
    parent = importlib.import_module(f"eztorch_sce.{_PACKAGES[group]}")
    for module in pkgutil.walk_packages(parent.__path__, f"{parent.__name__}."):
        importlib.import_module(module.name)
