"""Choices of a command: the settings that take one of several configs, such as `backbone=resnet18`."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from eztorch_sce import registry
from eztorch_sce.augment.policies import policy
from eztorch_sce.settings import declaration, default_of

VIEWS = "views"
OWN_VIEWS = "own"  # the name of a list of views that a file spells out


@dataclass(frozen=True)
class ChoiceField:
    """A setting of a command whose value is one of several configs, or the list of its views.

    Attributes:
        path: Path of the setting, such as "backbone" or "data.source".
        group: Registry group of the choices, or "views".
        default: Default value; None or an empty list leaves the choice open.
    """

    path: str
    group: str
    default: Any

    @property
    def default_name(self) -> str | None:
        """The name of the default, or None if it is open or is not chosen by name."""
        return None if self.group == VIEWS or self.default is None else registry.name_of(self.default)

    def names(self) -> list[str]:
        """Return the names that can be chosen."""
        return list(registry.choices(self.group))

    def value(self, name: str) -> Any:
        """Return what a name stands for: a config object, a config class, or a list of views."""
        if self.group == VIEWS:
            return policy(name)
        return self.default if name == self.default_name else registry.choices(self.group)[name]


def choice_fields(config_class: type) -> dict[str, ChoiceField]:
    """Return the choices of a command by path."""
    return {choice.path: choice for choice in _walk(config_class, "")}


def _walk(config_class: type, prefix: str) -> Iterator[ChoiceField]:
    for item in fields(config_class):
        declared, default = declaration(item), default_of(item)
        group = VIEWS if item.name == VIEWS else declared.group if declared else None
        if group is not None:
            yield ChoiceField(f"{prefix}{item.name}", group, default)
        elif is_dataclass(default):
            yield from _walk(type(default), f"{prefix}{item.name}.")


def named_parts(config_class: type, prefix: str = "") -> Iterator[str]:
    """Yield the paths of nested configs that are registered but fixed, such as the optimizer of `linear`."""
    for item in fields(config_class):
        declared, default = declaration(item), default_of(item)
        if is_dataclass(default) and (declared is None or declared.group is None):
            if registry.place_of(default) is not None:
                yield f"{prefix}{item.name}"
            yield from named_parts(type(default), f"{prefix}{item.name}.")
