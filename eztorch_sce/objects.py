"""Python objects in the place of settings: networks, losses, methods and data that a caller passes to a function."""

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

from eztorch_sce import registry
from eztorch_sce.errors import ConfigError


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

    @property
    def has_own_loss(self) -> bool:
        """Whether the object is a method, which holds its loss."""
        return hasattr(self.value, "after_step")

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


def is_ours(config: object) -> bool:
    """Return whether a config is of this package, so that what it builds can be estimated without a device."""
    return config is None or (not isinstance(config, PassedObject) and registry.is_own(type(config)))


def as_configs(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configs of several choices by registry group, without those that are None; see `as_config`.

    Raises:
        ConfigError: With one message per choice that is invalid.
    """
    configs: dict[str, Any] = {}
    messages: list[str] = []
    for group, value in choices.items():
        try:
            configs |= {} if value is None else {group: as_config(group, value)}
        except ConfigError as error:
            messages += error.problems
    if messages:
        raise ConfigError(messages)
    return configs


def as_config(group: str, value: Any) -> Any:
    """Return the config of a registered name, a config as it is, or the config of an object.

    Args:
        group: Registry group of the choice, such as "backbone".
        value: The name, the config or the object.

    Raises:
        ConfigError: If the value is none of them.
    """
    known = list(registry.choices(group))
    if isinstance(value, str):
        if value not in known:
            raise ConfigError([registry.unknown_choice(group, value, group)])
        return registry.choices(group)[value]()
    if isinstance(value, type):
        cure = f"pass an object, such as {value.__name__}(...)"
        raise ConfigError([f"{group}={value.__qualname__} is a class; {cure}"])
    if _is_config(value):
        return value
    if not callable(value):
        kinds = f"a module, a config with a build method, or one of {', '.join(known)}"
        raise ConfigError([f"{group}={value!r} must be {kinds}"])
    return PassedObject(value)


def _is_config(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type) and callable(getattr(value, "build", None))
