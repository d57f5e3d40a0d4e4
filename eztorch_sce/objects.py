"""Python objects in the place of settings: networks, losses, methods and data that a caller passes to a function."""

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, TypeVar

from eztorch_sce import registry
from eztorch_sce.errors import ConfigError, did_you_mean

C = TypeVar("C")


@dataclass(init=False, eq=False)
class PassedObject:
    """The config of an object that was passed in Python: it builds that object.

    config.yaml names its class under the key `object`; a run cannot be repeated from such a file alone.

    Args:
        value: The object.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def build(self, *_: object) -> Any:
        """Return the object, whatever it is built for."""
        return self.value

    def __str__(self) -> str:
        return name_of_object(self.value)

    def __deepcopy__(self, memo: object) -> "PassedObject":
        return self  # a copied config trains the same network


def name_of_object(value: object) -> str:
    """Return where a function, a class or the class of an object is defined.

    >>> import fractions
    >>> name_of_object(fractions.Fraction(1, 2)), name_of_object(fractions.Fraction)
    ('fractions.Fraction', 'fractions.Fraction')
    """
    definition = value if hasattr(value, "__qualname__") else type(value)
    return f"{definition.__module__}.{definition.__qualname__}"


def title_of(config: object) -> str:
    """Return the name of a registered config, the place of a passed object, or else the name of the config's class."""
    place = registry.place_of(config)
    return place[1] if place else str(config) if isinstance(config, PassedObject) else type(config).__name__


def with_objects(config: C, objects: Mapping[str, Any]) -> C:
    """Return a config whose choices are replaced by names, configs or objects; those that are None are left as set.

    Args:
        config: The config of a command.
        objects: The replacements by the name of the setting, which is also the registry group.

    Raises:
        ConfigError: With one message per replacement that is neither.
    """
    passed = {group: value for group, value in objects.items() if value is not None}
    if messages := [message for group, value in passed.items() if (message := _problem(group, value))]:
        raise ConfigError(messages)
    configs = {group: as_config(group, value) for group, value in passed.items()}
    return replace(config, **configs) if configs else config  # type: ignore[type-var]


def as_config(group: str, value: Any) -> Any:
    """Return the config of a registered name, a config as it is, or the config of an object.

    Args:
        group: Registry group of the choice, such as "backbone".
        value: The name, the config or the object.
    """
    if isinstance(value, str):
        return registry.choices(group)[value]()
    return value if _is_config(value) else PassedObject(value)


def _problem(group: str, value: Any) -> str | None:
    """Return a message if a value cannot be a choice of a group, else None."""
    if isinstance(value, str):
        known = list(registry.choices(group))
        cure = did_you_mean(value, known)
        return None if value in known else f"{group}={value} must be one of {', '.join(known)}{cure}"
    if isinstance(value, type):
        return f"{group}={value.__qualname__} is a class: pass an object, such as {value.__name__}(...)"
    if not _is_config(value) and not callable(value):
        known = ", ".join(registry.choices(group))
        return f"{group}={value!r} must be a module, a config with a build method, or one of {known}"
    return None


def _is_config(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type) and callable(getattr(value, "build", None))
