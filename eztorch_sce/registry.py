"""Choices by name: config dataclasses registered with `@register(group, name)`.

A choice is one module: a dataclass of settings with a `build` method, beside the class that it builds. The package of
a group is imported when the group is first looked up, so that a command loads only the groups it uses. Choices of
other packages come from plugins (see `plugins`), or from whatever the user's program imports.
"""

import ast
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from eztorch_sce.choice_checks import check_choice
from eztorch_sce.errors import ConfigError, did_you_mean
from eztorch_sce.other_names import known_elsewhere

C = TypeVar("C", bound=Callable[..., Any])

_PACKAGES = {
    "backbone": "models.backbones",
    "decoder": "data.decoders",
    "evaluation": "evaluation",
    "loss": "losses",
    "method": "methods",
    "optimizer": "optim",
    "runner": "jobs.runners",
    "source": "data.sources",
    "views": "augment",
}
GROUPS = tuple(_PACKAGES)
Group: TypeAlias = Literal[
    "backbone", "decoder", "evaluation", "loss", "method", "optimizer", "runner", "source", "views"
]
_CHOICES: dict[str, dict[str, Any]] = {}
_PLACES: dict[Any, tuple[str, str]] = {}  # of replaced classes too, whose objects may still be in use
_remarks: list[str] = []
_loaded: set[str] = set()


def register(group: Group, name: str) -> Callable[[C], C]:
    """Register a choice of a group, as in `backbone=resnet18`.

    A choice is a config dataclass with a `build` method (an evaluation has `evaluate` instead), or in the group
    "views" a function that returns a list of `ViewConfig`. One that is defined again replaces its earlier definition,
    such as when a notebook cell runs twice or a module is reloaded.

    Raises:
        ConfigError: If what is registered cannot work, with one message per reason, or if the name is taken.
    """
    if group not in _PACKAGES:
        cure = did_you_mean(group, _PACKAGES) or f"; the groups are {', '.join(_PACKAGES)}"
        raise ConfigError([f'@register("{group}", "{name}"): there is no group {group}{cure}'])

    def add(choice: C) -> C:
        if not is_own(choice):
            _load(group)  # so that a name of this package is seen as taken
            check_choice(group, name, choice)
        earlier = _CHOICES.setdefault(group, {}).get(name)
        if earlier is not None and not _replaces(choice, earlier):
            raise ConfigError([_taken(group, name, choice, earlier)])
        _CHOICES[group][name] = choice
        _PLACES[choice] = group, name
        return choice

    return add


def choices(group: str) -> dict[str, Any]:
    """Return the choices of a group by name, in alphabetical order: config classes, or functions that return views.

    Raises:
        ConfigError: If a plugin that is named in the environment cannot be loaded.
    """
    from eztorch_sce import plugins

    _load(group)
    plugins.load_defaults()
    return dict(sorted(_CHOICES.get(group, {}).items()))


def own_choices(group: str) -> dict[str, Any]:
    """Return the choices of a group that are part of this package."""
    _load(group)
    return {name: choice for name, choice in sorted(_CHOICES.get(group, {}).items()) if is_own(choice)}


def added_choices() -> dict[str, dict[str, Any]]:
    """Return the choices of each group that other packages and the user's program have registered."""
    added = {
        group: {name: choice for name, choice in sorted(members.items()) if not is_own(choice)}
        for group, members in sorted(_CHOICES.items())
    }
    return {group: members for group, members in added.items() if members}


def is_own(choice: Any) -> bool:
    """Return whether a choice is defined in this package, not in a plugin or in the user's program."""
    module = f"{choice.__module__}."
    return module.startswith("eztorch_sce.") and not module.startswith("eztorch_sce.plugins.")


def unknown_choice(path: str, name: str, group: str) -> str:
    """Return the message for a name that is not a choice: the choices, the nearest, and plugins that may lack it.

    Args:
        path: Path of the setting, such as "backbone".
        name: The name.
        group: The group of the setting.
    """
    known, elsewhere = choices(group), known_elsewhere(group, name)
    cure = f"; here, {name} is {elsewhere[1]}" if elsewhere else did_you_mean(name, known)
    message = f"{path}={name} must be one of {', '.join(known)}{cure}"
    if not known:
        message = f"{path}={name}: no {group} is registered; name the plugin that registers it with plugins=..."
    elif not cure and not _remarks:
        message += f"; if a plugin registers {name}, name it with plugins=..."
    return message + remarks()


def choices_with(path: str, group: str, name: str) -> str:
    """Return the choices that have a setting, such as "optimizer=adamw" for the setting `betas`, or an empty string.

    Args:
        path: Path of the choice, such as "optimizer".
        group: The group of its choices.
        name: The setting.
    """
    owners = [other for other, cls in choices(group).items() if name in {item.name for item in fields(cls)}]
    return " or ".join(f"{path}={other}" for other in owners)


def remark(sentence: str) -> None:
    """Keep a sentence about a plugin that registered nothing, for whoever misses a choice."""
    if sentence not in _remarks:
        _remarks.append(sentence)


def remarks() -> str:
    """Return the sentences about plugins that registered nothing, as the end of a message."""
    return "".join(f"; {sentence}" for sentence in _remarks)


def place_of(config: object) -> tuple[str, str] | None:
    """Return the group and the name under which the class of a config object is or was registered, or None."""
    return _PLACES.get(type(config))


def name_of(config: object) -> str:
    """Return the name under which the class of a config object is or was registered.

    Raises:
        ValueError: If it is not registered.
    """
    place = place_of(config)
    if place is None:
        raise ValueError(f"{type(config).__name__} is not registered")
    return place[1]


def wrong_result(config: object, call: str, result: object, expected: str) -> ConfigError:
    """Return the error for a method of a config that returned what it must not.

    Args:
        config: The config.
        call: Name of the method, such as "build".
        result: What it returned.
        expected: What it must return.
    """
    found = repr(result) if result is None else f"an object of the class {type(result).__name__}"
    cure = f"; return an object, {result.__name__}(...)" if isinstance(result, type) else ""
    found = f"the class {result.__name__}" if isinstance(result, type) else found
    place = place_of(config)
    choice = "" if place is None else f"{place[1] if place[0] == 'evaluation' else '='.join(place)}: "
    return ConfigError([f"{choice}{type(config).__name__}.{call} returned {found}, and must return {expected}{cure}"])


@contextmanager
def all_or_nothing() -> Iterator[None]:
    """Undo what was registered within the context if it ends with an exception, so that no half a plugin remains."""
    before = {group: dict(members) for group, members in _CHOICES.items()}
    try:
        yield
        _check_views(_CHOICES.get("views", {}).keys() - before.get("views", {}).keys())
    except BaseException:
        for group, members in _CHOICES.items():
            for name, choice in list(members.items()):
                earlier = before.get(group, {}).get(name)
                if is_own(choice) or choice is earlier:
                    continue
                sys.modules.pop(choice.__module__, None)  # or importing it again would register nothing
                if earlier is None:
                    del members[name]
                else:
                    members[name] = earlier
        raise


def _check_views(names: Set[str]) -> None:
    """Raise ConfigError if a function that was registered does not return views; every command looks at all of them."""
    added = {name: _CHOICES["views"][name] for name in sorted(names) if not is_own(_CHOICES["views"][name])}
    for name, function in added.items():
        importlib.import_module("eztorch_sce.augment.policies").checked_views(name, function)


def _load(group: str) -> None:
    """Import every module of the package of a group, once."""
    if group in _loaded:
        return
    _loaded.add(group)  # before the imports: a module may look up a choice while it loads
    parent = importlib.import_module(f"eztorch_sce.{_PACKAGES[group]}")
    for module in pkgutil.walk_packages(parent.__path__, f"{parent.__name__}."):
        importlib.import_module(module.name)


def _replaces(choice: Any, earlier: Any) -> bool:
    """Return whether a choice is a new definition of an earlier one, which may have had another name in its file."""
    same_file = choice.__module__ == earlier.__module__ or (
        (file := _file_of(choice)) is not None and file == _file_of(earlier)
    )
    return same_file and (choice.__qualname__ == earlier.__qualname__ or not _is_still_in_file(earlier))


def _file_of(choice: Any) -> Path | None:
    file = getattr(sys.modules.get(choice.__module__), "__file__", None)
    return None if file is None else Path(file).resolve()


def _is_still_in_file(choice: Any) -> bool:
    """Return whether the file of a choice defines it at this moment: a notebook has no file."""
    file = _file_of(choice)
    if file is None or not file.is_file():
        return False
    definitions = ast.walk(ast.parse(file.read_bytes()))
    kinds = (ast.ClassDef, ast.FunctionDef)
    return any(isinstance(node, kinds) and node.name == choice.__name__ for node in definitions)


def _taken(group: str, name: str, choice: Any, earlier: Any) -> str:
    """Return the message for a name that two choices claim."""
    from eztorch_sce.plugins import plugin_of

    if is_own(earlier):
        return (
            f"{group}={name} is taken by {earlier.__name__} of this package: register {choice.__name__} as another name"
        )
    places = [f"{each.__name__} of {plugin_of(each)}" for each in (earlier, choice)]
    return f"{group}={name} is registered twice: {places[0]} and {places[1]}; rename one of them"
