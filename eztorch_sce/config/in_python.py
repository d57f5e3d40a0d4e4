"""Recipes and saved settings in Python: `recipe("cifar10_resnet18", seed=1)` and `PretrainConfig.load(path)`."""

import os
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, overload

from eztorch_sce.config.choices import VIEWS, choice_fields
from eztorch_sce.config.compose import INVALID, Changes, commands, compose_by_hydra, prepare, say, to_dataclass
from eztorch_sce.config.explain import explain
from eztorch_sce.config.names import FinetuneRecipe, LinearRecipe, PretrainRecipe, RetrieveRecipe
from eztorch_sce.config.overrides import escape_interpolations, quoted, take_literally
from eztorch_sce.config.parts import CommandConfig, Recorded
from eztorch_sce.config.plugin_words import with_plugins
from eztorch_sce.config.schema import FinetuneConfig, PretrainConfig
from eztorch_sce.config.starting import StartError, StartingPoint, as_typed, command_of
from eztorch_sce.errors import ConfigError, did_you_mean
from eztorch_sce.evaluation.linear import LinearConfig
from eztorch_sce.evaluation.retrieval import RetrieveConfig
from eztorch_sce.methods.base import has_own_loss
from eztorch_sce.objects import as_config
from eztorch_sce.settings import Setting, declaration, problem_with

C = TypeVar("C", bound=CommandConfig)


@overload
def recipe(name: PretrainRecipe, *overrides: str, **settings: object) -> PretrainConfig: ...
@overload
def recipe(name: FinetuneRecipe, *overrides: str, **settings: object) -> FinetuneConfig: ...
@overload
def recipe(name: LinearRecipe, *overrides: str, **settings: object) -> LinearConfig: ...
@overload
def recipe(name: RetrieveRecipe, *overrides: str, **settings: object) -> RetrieveConfig: ...
@overload
def recipe(name: str | os.PathLike[str], *overrides: str, **settings: object) -> Any: ...


def recipe(name: str | os.PathLike[str], *overrides: str, **settings: object) -> Any:
    """Return the config of a published result, with changes.

    Another backbone, method, loss, optimizer or views than those of the recipe start from their own defaults; a line on
    stderr says what is left out.

    Args:
        name: Name of a recipe, or path of a YAML file such as "./my.yaml". A file says its command in a comment,
            `# command: finetune`; without, it is one of `pretrain`.
        overrides: `key=value`, as on the command line.
        settings: Values of Python. A dictionary changes some settings of a group, as in `trainer={"max_epochs": 3}`;
            a config object replaces the group; a choice may be made by name, as in `backbone="r3d18"`.

    Returns:
        The config of the recipe's command. It is checked as a whole when it is used.

    Raises:
        ConfigError: If there is no such recipe, or with one message per setting that is unknown or invalid.
    """
    try:
        command = command_of(os.fspath(name))
    except StartError as error:
        raise ConfigError(error.problems) from None
    config_class = commands()[command]
    plain, objects = _split(_nested(settings))
    label = f'recipe("{os.fspath(name)}")'
    changes = Changes(plain, objects, label)
    words = take_literally(config_class, with_plugins([f"recipe={quoted(os.fspath(name))}", *overrides]))
    try:
        prepared = prepare(command, words, changes)
        config = to_dataclass(compose_by_hydra(command, prepared.words), prepared)
    except (StartError, *INVALID) as error:
        raise ConfigError(explain(command, words, error, changes, is_complete=False)) from None
    remarks = [*prepared.remarks, *_set(config, objects, prepared.starts[0], label)]
    if "method" in objects and "loss" not in (*plain, *objects) and has_own_loss(config.method):
        config.loss = None  # that of the recipe
    say(remarks)
    return config


def load_config(config_class: type[C], path: str | os.PathLike[str]) -> C:
    """Return the settings of a run; see `CommandConfig.load`."""
    command = next(name for name, cls in commands().items() if cls is config_class)
    words = take_literally(config_class, with_plugins([f"config={quoted(os.fspath(path))}"]))
    try:
        prepared = prepare(command, words)
        config: C = to_dataclass(compose_by_hydra(command, prepared.words), prepared)
    except (StartError, *INVALID) as error:
        raise ConfigError(explain(command, words, error, is_complete=False)) from None
    earlier = prepared.starts[0].recorded.get("config")
    config.config = None if earlier is None else Recorded(earlier)
    return config


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by name, where `{"data.root": x}` stands for `{"data": {"root": x}}`."""
    nested: dict[str, Any] = {}
    for path, value in settings.items():
        *parents, last = path.split(".")
        node = nested
        for name in parents:
            node = node.setdefault(name, {})
        if isinstance(value, Mapping) and isinstance(node.get(last), dict):
            node[last] |= _nested(value)
        else:
            node[last] = _nested(value) if isinstance(value, Mapping) else value
    return nested


def _split(settings: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings that a file could hold, nested, and the objects among them by path."""
    plain, objects = dict[str, Any](), dict[str, Any]()
    for name, value in settings.items():
        if isinstance(value, Mapping):
            plain[name], below = _split(value, f"{prefix}{name}.")
            objects |= below
        elif _is_plain(value):
            plain[name] = _as_text(value)
        else:
            objects[f"{prefix}{name}"] = value
    return plain, objects


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    if isinstance(value, Mapping):
        return all(_is_plain(item) for item in value.values())
    return value is None or isinstance(value, (bool, int, float, str, os.PathLike))


def _as_text(value: Any) -> Any:
    """Return a value as a file would hold it: texts without interpolations, and lists."""
    if isinstance(value, (list, tuple)):
        return [_as_text(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _as_text(item) for name, item in value.items()}
    return escape_interpolations(os.fspath(value)) if isinstance(value, (str, os.PathLike)) else value


def _set(config: Any, objects: Mapping[str, Any], start: StartingPoint, label: str) -> list[str]:
    """Set objects in a config, and return one sentence per object that replaces settings of the recipe."""
    choices = choice_fields(type(config))
    remarks, messages = list[str](), list[str]()
    for path, value in objects.items():
        *parents, last = path.split(".")
        node = config
        for name in parents:
            node = getattr(node, name)
        items = {item.name: item for item in fields(node)}
        if last not in items:
            messages.append(f"{label}: {path} is not a setting{did_you_mean(last, items)}")
            continue
        declared = declaration(items[last]) or Setting()
        try:
            value = as_config(path, value) if path in choices and path != VIEWS else value
            if message := problem_with(path, value, declared, typing.get_type_hints(type(node))[last]):
                messages.append(f"{label}: {message}")
            setattr(node, last, value)
        except ConfigError as error:
            messages += [f"{label}: {message}" for message in error.problems]
        remarks += _lost(start, path, value)
    if messages:
        raise ConfigError(messages)
    return remarks


def _lost(start: StartingPoint, path: str, value: Any) -> list[str]:
    """Return a sentence about the settings of a recipe that an object replaces by others, if there are any."""
    below = start.below(path)
    if not isinstance(below, Mapping) or not is_dataclass(value):
        return []
    lost = {name: item for name, item in below.items() if getattr(value, name, None) != item}
    text = as_typed(path, lost)
    return (
        [f"{start.label}: {path}={type(value).__name__}(...) replaces its settings; left out: {text}"] if lost else []
    )
