"""What can be chosen by name: `@register(group, name)` on a config dataclass, found by importing its package once.

A choice is one module: a dataclass of settings with a `build` method, beside the class that it builds.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

C = TypeVar("C", bound=type)

_CHOICES: dict[str, dict[str, type]] = {}
_PACKAGES = ("augment", "data.decoders", "losses", "methods", "models.backbones", "optim")
_loaded = False


def register(group: str, name: str) -> Callable[[C], C]:
    """Offer a config dataclass as the choice `name` of `group`, as in `backbone=resnet18`.

    Raises:
        ValueError: If the name is taken by another class.
    """

    def keep(cls: C) -> C:
        taken = _CHOICES.setdefault(group, {}).setdefault(name, cls)
        if taken is not cls and taken.__qualname__ != cls.__qualname__:
            raise ValueError(f"{group}={name} is registered twice: {taken.__module__} and {cls.__module__}")
        return cls

    return keep


def choices(group: str) -> dict[str, type[Any]]:
    """Return the config classes of a group by name, in alphabetical order."""
    _load()
    return dict(sorted(_CHOICES.get(group, {}).items()))


def groups() -> list[str]:
    """Return the names of all groups."""
    _load()
    return sorted(_CHOICES)


def name_of(config: object) -> str:
    """Return the name under which the class of a config object is registered."""
    _load()
    for members in _CHOICES.values():
        for name, cls in members.items():
            if cls is type(config):
                return name
    raise ValueError(f"{type(config).__name__} is not registered")


def _load() -> None:
    global _loaded
    if _loaded:
        return
    _loaded = True  # before the imports: a module may look up a choice while it loads
    for package in _PACKAGES:
        parent = importlib.import_module(f"eztorch_sce.{package}")
        for module in pkgutil.iter_modules(parent.__path__):
            importlib.import_module(f"{parent.__name__}.{module.name}")
