"""The description of a network in weights files.

It holds the registered name, the settings and the module that registers it or, for an object that was passed in Python,
only its class.
"""

import typing
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from eztorch_sce import registry
from eztorch_sce.errors import ConfigError, did_you_mean, first_line
from eztorch_sce.models.backbones.base import BackboneConfig
from eztorch_sce.objects import PassedObject, name_of_object
from eztorch_sce.plugins import plugin_of
from eztorch_sce.progress import print_above
from eztorch_sce.settings import show


def describe_network(config: BackboneConfig) -> dict[str, Any]:
    """Return what rebuilds a registered config: its name, its settings, and its plugin if it is not of this package.

    What is not registered cannot be rebuilt: the description of an object, or of its config, names its class.
    """
    if isinstance(config, PassedObject):
        return {"object": str(config)}
    if registry.place_of(config) is None:
        return {"object": name_of_object(config)}
    description = {"name": registry.name_of(config), "settings": _plain(asdict(config))}
    return description if registry.is_own(type(config)) else description | {"module": plugin_of(type(config))}


def rebuild_network(description: dict[str, Any], file: str) -> BackboneConfig:
    """Return the config of a network from its description.

    Args:
        description: What `describe_network` returned, possibly in an earlier version.
        file: The weights file as typed, for messages.

    Raises:
        ConfigError: If it is of an object, its name is not registered, or its class no longer has the stored settings.
    """
    if "object" in description:
        cure = "pass such an object again (backbone=... in Python), or train with a registered backbone"
        raise ConfigError([f"weights={file} holds an object passed in Python, {description['object']}: {cure}"])
    name, settings = str(description["name"]), dict(description["settings"])
    networks = registry.choices("backbone")
    if name not in networks:
        raise ConfigError(
            [f"weights={file} holds the network {name}, {_whose_plugin(name, description.get('module'))}"]
        )
    cls = networks[name]
    known = [item.name for item in fields(cls)]
    if unknown := [f"{key}={show(value)}" for key, value in settings.items() if key not in known]:
        cure = f"its settings are {', '.join(known) or 'none'}{did_you_mean(unknown[0].split('=')[0], known)}"
        changed = f"which {cls.__name__} of {plugin_of(cls)} does not have"
        raise ConfigError([f"weights={file} holds the network {name} with {', '.join(unknown)}, {changed}; {cure}"])
    try:
        config: BackboneConfig = _restored(cls, settings)
    except Exception as error:  # whatever the user's __post_init__ raises
        reason = f"{cls.__name__} of {plugin_of(cls)} does not accept them: {type(error).__name__}: {first_line(error)}"
        raise ConfigError([f"weights={file} holds the network {name} with settings, but {reason}"]) from error
    new = [f"{key}={show(getattr(config, key))}" for key in known if key not in settings]
    if new and not registry.is_own(cls):
        print_above(f"weights={file}: {name} has gained settings, which take their defaults: {', '.join(new)}")
    return config


def name_of_network(description: dict[str, Any]) -> str:
    """Return the registered name of a network, or the class of an object, from its description."""
    return str(description["object"] if "object" in description else description["name"])


def _whose_plugin(name: str, module: str | None) -> str:
    """Return where a network that is not registered comes from, and what to do."""
    if module is None:  # of a version before plugins, or a network of this package that no longer exists
        cure = did_you_mean(name, registry.choices("backbone")) + registry.remarks()
        return f"which is not registered: add plugins=MODULE, naming the module that registers it{cure}"
    if module == "__main__":
        return "defined in an interactive session: run the code that registers it first, or move it into a plugin"
    return f"defined in {module}: add plugins={module}{registry.remarks()}"


def _plain(value: Any) -> Any:
    """Return settings in types that a tensor file holds."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value.name if isinstance(value, Enum) else str(value) if isinstance(value, Path) else value


def _restored(cls: Any, settings: dict[str, Any]) -> Any:
    """Return a config from plain settings, with the configs inside it."""
    hints = typing.get_type_hints(cls)
    return cls(**{key: _value(hints[key], value) for key, value in settings.items()})


def _value(hint: Any, value: Any) -> Any:
    """Return a plain value as its type annotation says."""
    if isinstance(value, list) and typing.get_origin(hint) is list:
        return [_value(typing.get_args(hint)[0], item) for item in value]
    for kind in (hint, *typing.get_args(hint)):
        if isinstance(value, dict) and is_dataclass(kind):
            return _restored(kind, value)
        if isinstance(value, str) and isinstance(kind, type) and issubclass(kind, (Enum, Path)):
            return kind[value] if issubclass(kind, Enum) else kind(value)
    return value
