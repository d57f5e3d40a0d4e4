"""What the settings of a run would be without those that its user set: defaults, and what its recipe changes."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from hydra.core.singleton import Singleton

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.choices import VIEWS, choice_fields
from eztorch_sce.config.compose import INVALID, commands, compose_by_hydra, prepare, settings_of, to_dataclass
from eztorch_sce.config.overrides import quoted
from eztorch_sce.config.reference import Reference, load
from eztorch_sce.config.starting import StartError
from eztorch_sce.errors import ConfigError


class Origins(NamedTuple):
    """Settings as nested dictionaries.

    Attributes:
        defaults: Of the command, with the choices of the run.
        recipe: The same with the recipe; None if the run has none.
        view: Of each view.
    """

    defaults: dict[str, Any]
    recipe: dict[str, Any] | None
    view: dict[str, Any]


def origins_of(command: str, settings: Mapping[str, Any]) -> Origins | None:
    """Return what the settings of a run are compared with, or None if they cannot be composed any more.

    A recipe file may be gone, and a version of this package may have other settings.

    Args:
        command: The command of the run.
        settings: Content of its `config.yaml`, nested.
    """
    if command not in commands():
        return None
    recipe = settings.get("recipe")
    chosen = tuple(
        (path, name)
        for path, choice in choice_fields(commands()[command]).items()
        if choice.group != VIEWS and (name := _at(settings, f"{path}.name")) is not None
    )
    return _origins(command, None if recipe is None else str(recipe), chosen)


@lru_cache(maxsize=64)
def _origins(command: str, recipe: str | None, chosen: tuple[tuple[str, str], ...]) -> Origins | None:
    state = Singleton.get_state()  # the page may be written within a job of a sweep, which belongs to Hydra
    try:
        defaults = _composed(command, [], chosen)
        by_recipe = None if recipe is None else _composed(command, [f"recipe={quoted(recipe)}"], chosen)
        return Origins(defaults, by_recipe, settings_of(ViewConfig()))
    except (ConfigError, StartError, *INVALID):
        return None
    finally:
        Singleton.set_state(state)


def _composed(command: str, words: list[str], chosen: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Return the settings with these words: of each choice of the run, but with the names that the words choose."""
    made = _settings(command, words)
    others = {path: name for path, name in chosen if _at(made, f"{path}.name") != name}
    if not others:
        return made
    settings = _settings(command, [*words, *(f"{path}={name}" for path, name in others.items())])
    for path in others:
        _at(settings, path)["name"] = _at(made, f"{path}.name")
    return settings


def _settings(command: str, words: list[str]) -> dict[str, Any]:
    prepared = prepare(command, words)
    settings: dict[str, Any] = settings_of(to_dataclass(compose_by_hydra(command, prepared.words), prepared))
    return settings


def _at(settings: Any, path: str) -> Any:
    """Return the value at a path of nested dictionaries, or None."""
    for name in path.split("."):
        settings = settings.get(name) if isinstance(settings, Mapping) else None
    return settings


@lru_cache(maxsize=1)
def _reference() -> Reference:
    return load()


def setting_help(command: str, path: str, settings: Mapping[str, Any]) -> str:
    """Return the help of a setting; empty if this version has no such setting.

    Args:
        command: The command.
        path: Path of the setting, such as "optimizer.lr" or "views.0.size".
        settings: Settings of the run by path, which tell its choices.
    """
    reference = _reference()
    description, entry, walked = reference.commands.get(command), None, ""
    for part in path.split("."):
        if description is None:
            return ""
        if part != "name" and not part.isdigit():
            entry = description.settings.get(part)
        if entry is None:
            return ""
        walked = f"{walked}.{part}".lstrip(".")
        if entry.config:
            description = reference.configs[entry.config]
        elif entry.group:
            description = reference.choices.get(entry.group, {}).get(str(settings.get(f"{walked}.name")), description)
    return "" if entry is None else entry.help
