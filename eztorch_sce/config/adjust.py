"""Settings of a choice that is left open, such as `optimizer.lr=0.01` without `optimizer=NAME`.

They are kept in the setting `adjust` until the choice is made from the data, and then applied to it.
"""

import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from eztorch_sce import registry
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.errors import ConfigError, did_you_mean, nearest
from eztorch_sce.settings import Setting, declaration, problem_with

T = TypeVar("T")

PREFIXES = {"views": "views.*.", "backbone": "backbone.", "optimizer": "optimizer."}
"""Settings that may be left open, and how the settings below them are typed."""

ADJUST_HELP = (
    "Settings of the views, backbone or optimizer that the data will choose; filled in by views.*.flip=0 or "
    "optimizer.lr=0.01 without views=NAME or optimizer=NAME."
)


def redirected(overrides: Sequence[str], made: Collection[str]) -> list[str]:
    """Return overrides in which the settings of open choices are settings of `adjust`.

    Args:
        overrides: `key=value`.
        made: Paths of the choices that are made.

    >>> redirected(["views.*.flip=0", "backbone.small_input=true"], made=["backbone"])
    ['++adjust.views.flip=0', 'backbone.small_input=true']
    """
    return [_redirected(override, made) for override in overrides]


def _redirected(override: str, made: Collection[str]) -> str:
    for group, prefix in PREFIXES.items():
        if group not in made and override.startswith(prefix):
            return f"++adjust.{group}.{override.removeprefix(prefix)}"
    return override


def open_group(key: str, config: Any) -> str | None:
    """Return the open choice of a composed config that a setting belongs to, such as "optimizer" for "optimizer.lr"."""
    if "adjust" not in config:
        return None
    return next(
        (group for group, prefix in PREFIXES.items() if key.startswith(prefix) and _is_open(config, group)), None
    )


def _is_open(config: Any, group: str) -> bool:
    return not config.get(group) if group == "views" else config.get(group) is None  # a choice may have no settings


def adjust_conflicts(adjust: Mapping[str, Any], config: Any) -> list[str]:
    """Return one message per adjusted setting that no choice has, is invalid, or belongs to a choice made by hand."""
    messages = []
    for group, changes in adjust.items():
        if group not in PREFIXES or not isinstance(changes, Mapping):
            messages.append(f"adjust.{group} must be settings of one of {', '.join(PREFIXES)}")
        elif getattr(config, group, None):
            messages.append(f"adjust.{group} has no effect because {group} is set: set {PREFIXES[group]}... instead")
        else:
            messages += [_problem(group, str(name), value) for name, value in changes.items()]
    return [message for message in messages if message]


def _problem(group: str, name: str, value: Any) -> str:
    """Return a message if no choice of a group has this setting or accepts this value, else an empty string."""
    classes = [ViewConfig] if group == "views" else list(registry.choices(group).values())
    settings = [(cls, item) for cls in classes for item in fields(cls)]
    path = f"{PREFIXES[group]}{name}"
    messages = [
        problem_with(path, value, declaration(item) or Setting(), typing.get_type_hints(cls)[name])
        for cls, item in settings
        if item.name == name
    ]
    if not messages:
        known = [f"{PREFIXES[group]}{item.name}" for _, item in settings]
        return f"{path} is not a setting of any {group.removesuffix('s')}{did_you_mean(path, known)}"
    return "" if None in messages else str(messages[0])


def adjusted(group: str, choice: T, adjust: Mapping[str, Any]) -> T:
    """Return a choice made from the data with the settings that were made for it.

    Raises:
        ConfigError: If the choice does not have one of them.
    """
    changes: dict[str, Any] = adjust.get(group, {})
    names = {item.name for item in fields(choice)}  # type: ignore[arg-type]
    if unknown := [name for name in changes if name not in names]:
        chosen = "views" if group == "views" else registry.name_of(choice)
        raise ConfigError(
            [
                f"{PREFIXES[group]}{name} is not a setting of {chosen}, which fits these data: choose by hand, with "
                f"{group}=NAME"
                for name in unknown
            ]
        )
    return replace(choice, **changes)  # type: ignore[type-var]


def needs_names(key: str, config: Any) -> str | None:
    """Return a message if a key addresses one view although the views are left open, else None."""
    if not key.startswith("views.") or "adjust" not in config or config.get("views"):
        return None
    name = key.rpartition(".")[2]
    guess = nearest(name, [item.name for item in fields(ViewConfig)]) or name
    return f"{key} needs named views, such as views=image; views.*.{guess} applies to the views that fit the data"
