"""Nodes of Hydra's ConfigStore, of which it composes a command.

They are the defaults of the command, one option for each choice, and one for each recipe or file that it starts from.
What a recipe sets below a choice belongs to its own option, so that another choice starts from its own defaults.
"""

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from eztorch_sce.config.adjust import PREFIXES
from eztorch_sce.config.choices import OWN_VIEWS, VIEWS, ChoiceField, choice_fields
from eztorch_sce.config.starting import StartingPoint, without

Chosen = Mapping[str, Collection[str | None]]

UNSET = "unset"  # the option for null, which Hydra does not accept as a choice
DEFAULT = "default"  # the option for what the command starts from


def store_command(command: str, config_class: type) -> None:
    """Register the defaults of a command with Hydra: its dataclass, then its choices, then where it starts from."""
    store, choices = ConfigStore.instance(), choice_fields(config_class)
    # Mark the choices of the command as missing, so that the options of its groups decide.
    missing = {path: "???" for path, choice in choices.items() if choice.default_name and "." not in path}
    store.store(group="schema", name=command, node=config_class(**missing), package="_global_")
    defaults = [{f"/{group_of(path)}": choice.default_name} for path, choice in choices.items()]
    node = {"defaults": [f"/schema/{command}", "_self_", *defaults, {"recipe": None}]}
    store.store(name=command, node=node)


def store_start(config_class: type, start: StartingPoint, typed: Chosen, folder: str = "") -> None:
    """Register a starting point with Hydra as the option `recipe=SLUG`, and the options that can be chosen with it.

    Args:
        config_class: The config of the command.
        start: The recipe or file; an empty one for the defaults of the command.
        typed: Names of the choices that the user makes, by path; choices that are not used are not registered.
        folder: Folder of the options, if a sweep has several starting points.
    """
    settings, overridden = dict(start.settings), list[Any]()
    adjust: dict[str, Any] = dict(settings.pop("adjust", None) or {})
    for path, choice in choice_fields(config_class).items():
        own, below = start.own(choice), start.below(path)
        settings = without(settings, path)
        wanted = {own, choice.default_name, *typed.get(path, ())}
        for name in [name for name in choice.names() if name in wanted]:
            _store_option(choice, folder, name, _option(choice.value(name), below if own in (None, name) else {}))
        _store_option(choice, folder, UNSET, [] if choice.group == VIEWS else None)
        if folder:
            _store_option(choice, folder, DEFAULT, choice.default)
        if isinstance(below, list):
            _store_option(choice, folder, OWN_VIEWS, below)
        elif own is None and below and path in PREFIXES and path not in typed:
            adjust[path] = below
        if path in start.choices:
            overridden.append({f"override /{group_of(path)}": f"{folder}{own or UNSET}"})
        elif folder:
            overridden.append({f"override /{group_of(path)}": f"{folder}{own or DEFAULT}"})
    if adjust:
        settings["adjust"] = adjust
    node = {"defaults": [*overridden, "_self_"], **settings, **start.recorded, **start.origin}
    ConfigStore.instance().store(group="recipe", name=start.slug, node=node, package="_global_")


def _option(value: Any, changes: Any) -> Any:
    """Return a choice with those settings of a starting point that it has."""
    if not changes or isinstance(changes, list):
        return value
    if isinstance(value, list):
        return [OmegaConf.merge(OmegaConf.structured(view), changes) for view in value]
    known = {item.name for item in fields(value)}
    return OmegaConf.merge(OmegaConf.structured(value), {k: v for k, v in changes.items() if k in known})


def _store_option(choice: ChoiceField, folder: str, name: str, value: Any) -> None:
    *parents, last = choice.path.split(".")
    group = f"{group_of(choice.path)}/{folder}".rstrip("/")
    ConfigStore.instance().store(group=group, name=name, node={last: value}, package=".".join(parents) or "_global_")


def group_of(path: str) -> str:
    """Return Hydra's name of a choice."""
    return path.replace(".", "/")
