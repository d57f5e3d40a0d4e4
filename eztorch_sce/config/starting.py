"""Starting points of a command: a shipped recipe, a recipe of the user, or the config.yaml of a run.

All of them are YAML files with settings. A choice may be made in three ways: `backbone: resnet18`, the same with
settings, `backbone: {name: resnet18, small_input: true}`, or as Hydra does, `defaults: [override /backbone: resnet18]`.
"""

import os
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eztorch_sce.config.choices import OWN_VIEWS, VIEWS, ChoiceField
from eztorch_sce.config.recipes import header_of, recipe_text, recipes
from eztorch_sce.config.set_where import lines_of
from eztorch_sce.errors import ConfigError, did_you_mean, first_line, nearest, normalized, shorten, typed
from eztorch_sce.settings import show

KEYS = ("recipe", "config")
"""Settings that choose a starting point."""
OBJECT = "object"  # the key of a choice that was an object of Python, which a file can only name
_ALSO = {"plan": ("pretrain",)}  # commands whose files another command takes
_FIRST_LINE = re.compile(r"# eztorch-sce (?P<command>[\w-]+)\s*$", re.MULTILINE)


class StartError(ConfigError):
    """A starting point that cannot be used.

    Args:
        problems: One message per problem.
        guess: The name that may have been meant.
    """

    def __init__(self, problems: Sequence[str], guess: str | None = None) -> None:
        super().__init__(problems)
        self.guess = guess


@dataclass(frozen=True)
class StartingPoint:
    """Choices and settings that a command starts from.

    Attributes:
        label: What messages call it, such as "recipe=cifar10_resnet18"; empty for the defaults of the command.
        slug: Its name as an option of Hydra.
        choices: Names of the choices that are made, by path; None leaves one open.
        settings: Nested settings, in which those below a choice belong to that choice.
        recorded: The values of `KEYS` that the file holds, if it is the config of a run.
        origin: The one of `KEYS` that was typed, with its value.
        remarks: One sentence per choice that a file of the user replaces in the recipe that it starts from.
        places: File and line of each setting, by path, such as "recipe=./my.yaml, line 3".
    """

    label: str = ""
    slug: str = "none"
    choices: Mapping[str, str | None] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    recorded: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)

    def own(self, choice: ChoiceField) -> str | None:
        """Return the name of a choice, here or by default; None if it is open."""
        return self.choices.get(choice.path, choice.default_name)

    def below(self, path: str) -> Any:
        """Return the settings below a path: a dictionary, or a list of views."""
        node: Any = self.settings
        for name in path.split("."):
            node = node.get(name, {}) if isinstance(node, Mapping) else {}
        return node

    def without_objects(self, paths: Collection[str]) -> "StartingPoint":
        """Return a copy without the objects of Python that a file names at some paths, since others replace them."""
        is_object = {path: isinstance(self.below(path), Mapping) and OBJECT in self.below(path) for path in paths}
        return self.without_settings([path for path in paths if is_object[path]])

    def without_settings(self, paths: Collection[str]) -> "StartingPoint":
        """Return a copy without the settings at and below some paths."""
        settings = dict(self.settings)
        for path in paths:
            settings = without(settings, path)
        return replace(self, settings=settings)

    def left_out(self, choice: ChoiceField, name: str | None) -> str | None:
        """Return a sentence about the settings that are left out if `name` is chosen instead, or None if none are."""
        own, settings = self.own(choice), self.below(choice.path)
        if own in (None, name) or not settings:
            return None
        if isinstance(settings, list):
            lost = f"{len(settings)} views of its own" if len(settings) > 1 else "a view of its own"
            return f"{self.label}: {choice.path}={show(name)} replaces {lost}"
        lost = as_typed(choice.path, settings)
        return f"{self.label}: {choice.path}={show(name)} replaces {own}; left out: {lost}"

    def with_settings(self, settings: Mapping[str, Any], choices: Mapping[str, ChoiceField]) -> "StartingPoint":
        """Return a copy with further choices and settings; another choice drops the settings of the one before."""
        made, rest = separated(settings, choices)
        kept, remarks = dict(self.settings), list(self.remarks)
        for path, name in made.items():
            if name != self.own(choices[path]) or name == OWN_VIEWS:
                remarks.append(self.left_out(choices[path], "views of this file" if name == OWN_VIEWS else name) or "")
                kept = without(kept, path)
        made_choices, said = {**self.choices, **made}, tuple(filter(None, remarks))
        return replace(self, choices=made_choices, settings=_merged(kept, rest), remarks=said)


def load_start(command: str, choices: Mapping[str, ChoiceField], key: str, value: str | None) -> StartingPoint:
    """Read the starting point of a command.

    Args:
        command: The command, such as "pretrain".
        choices: Its choices.
        key: "recipe" or "config".
        value: Name of a recipe, or path of a file; `config` also takes the directory of a run.

    Raises:
        StartError: If there is no such recipe or file, if it belongs to another command, or if it is not valid YAML.
    """
    if value is None:
        return StartingPoint()
    label = f"{key}={value}"
    if key == "recipe" and not is_path(value):
        _check_name(value)
        text, folder, slug = recipe_text(value), None, value
    else:
        path = _find(key, value)
        text, folder = _read(label, path), path.parent
        slug = f"{re.sub(r'[^A-Za-z0-9]+', '_', path.stem)}_{zlib.crc32(os.fsencode(path)):08x}"
    start = _parsed(label, text, command, choices, folder)
    recorded = {name: str(start.settings[name]) for name in KEYS if start.settings.get(name)}
    settings = {name: item for name, item in start.settings.items() if name not in KEYS}
    typed_value = str(Path(value).expanduser()) if key == "config" else value
    return replace(start, slug=slug, settings=settings, recorded=recorded, origin={key: typed_value})


def command_of(value: str) -> str:
    """Return the command of a recipe, which a file says in its header, or by the recipe that it starts from.

    Raises:
        StartError: If there is no such recipe or file.
    """
    if not is_path(value):
        _check_name(value)
        return recipes()[value]["command"]
    label, path = f"recipe={value}", _find("recipe", value)
    text = _read(label, path)
    if command := _owner(text):
        return command
    bases = [item for item in _defaults(label, _yaml(label, text).get("defaults")) if isinstance(item, str)]
    if not bases:
        return "pretrain"
    return command_of(str(path.parent / Path(bases[0]).expanduser()) if is_path(bases[0]) else bases[0])


def is_path(value: str) -> bool:
    """Return whether the value of `recipe` is a file rather than a name."""
    return value.endswith((".yaml", ".yml")) or "/" in value or os.sep in value


def _check_name(name: str) -> None:
    known = list(recipes())
    if name in known:
        return
    if file := next((file for file in (name, f"{name}.yaml", f"{name}.yml") if Path(file).is_file()), None):
        raise StartError([f"recipe={name} is not the name of a recipe; to start from the file, write recipe=./{file}"])
    if "," in name:
        raise StartError([f"recipe={name} has several values: add -m to run each one"])
    message = f"recipe={name} is neither a recipe nor a file such as ./my.yaml{_recipes_near(name, known)}"
    raise StartError([message], nearest(name, known))


def _recipes_near(name: str, known: Sequence[str]) -> str:
    """Return the end of a message: the recipes with the word that was typed, or the nearest, and how to list all."""
    words = sorted({word for each in known for word in each.split("_")})
    word = name if any(name in each for each in known) else nearest(name, words)
    if word is None or "_" in name:
        return did_you_mean(name, known) or "; `eztorch-sce recipes` lists all"
    alike = [each for each in known if normalized(word) in normalized(each)]
    return f"; recipes with {word} are {shorten(alike, 5)}; `eztorch-sce recipes` lists all"


def _find(key: str, value: str) -> Path:
    path = Path(value).expanduser()
    if path.is_dir():
        if key == "recipe":
            raise StartError([f"recipe={value} is a folder; config={value} starts from the config.yaml of a run"])
        path /= "config.yaml"
        if not path.is_file():
            raise StartError([f"config={value} has no config.yaml: give the directory of a run, or a YAML file"])
    if not path.is_file():
        others = [*path.parent.glob("*.yaml"), *path.parent.glob("*.yml")] if path.parent.is_dir() else []
        cure = did_you_mean(str(path), [str(other) for other in others])
        raise StartError([f"{key}={value} does not exist{cure}"])
    return path


def _read(label: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError([f"{label} cannot be read: {first_line(error)}"]) from None


def _parsed(
    label: str,
    text: str,
    command: str,
    choices: Mapping[str, ChoiceField],
    folder: Path | None,
    opened: tuple[str, ...] = (),
) -> StartingPoint:
    """Return the starting point of a file and of those that it starts from itself."""
    is_run = _check_command(label, text, command)
    settings = _yaml(label, text)
    start = StartingPoint()
    for item in _defaults(label, settings.pop("defaults", None)):
        if isinstance(item, str):
            start = _base(label, item, command, choices, folder, (*opened, label))
        else:
            start = start.with_settings(_chosen(label, item, choices), choices)
    if is_run and isinstance(settings.get("run"), dict):
        settings["run"] = {name: value for name, value in settings["run"].items() if name not in ("dir", "resume")}
    start = start.with_settings(settings, choices)
    places = {**start.places, **{path: f"{label}, line {line}" for path, line in lines_of(text).items()}}
    return replace(start, label=label, remarks=() if folder is None else start.remarks, places=places)


def _check_command(label: str, text: str, command: str) -> bool:
    """Return whether a file is the config.yaml of a run; raise StartError if it belongs to another command."""
    is_run = _FIRST_LINE.match(text) is not None
    owner = _owner(text) or command
    if owner not in (command, *_ALSO.get(command, ())):
        kind = "holds the settings of a run" if is_run else "is a recipe"
        raise StartError([f"{label} {kind} of `eztorch-sce {owner}`, not of {command}"])
    return is_run


def _owner(text: str) -> str | None:
    """Return the command that a file is for, if it says so."""
    run = _FIRST_LINE.match(text)
    return run["command"] if run else header_of(text).get("command")


def _yaml(label: str, text: str) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(StringIO(text)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise StartError([f"{label}{line}: {error.problem or first_line(error)}"]) from None
    except (yaml.YAMLError, OSError, OmegaConfBaseException) as error:
        raise StartError([f"{label} is not a file of settings (YAML): {first_line(error)}"]) from None
    if not isinstance(content, dict):
        raise StartError([f"{label} holds a list: write settings by name, such as `data: {{batch_size: 64}}`"])
    return {str(name): value for name, value in content.items()}


def _defaults(label: str, items: Any) -> list[Any]:
    items = [] if items is None else items
    if not isinstance(items, list):
        raise StartError([f"{label}: defaults must be a list, such as [cifar10_resnet18, override /loss: infonce]"])
    return [item for item in items if item != "_self_"]


def _base(
    label: str,
    name: str,
    command: str,
    choices: Mapping[str, ChoiceField],
    folder: Path | None,
    opened: tuple[str, ...],
) -> StartingPoint:
    """Return the recipe or the file that a file starts from."""
    if not is_path(name):
        if name not in (known := list(recipes())):
            raise StartError([f"{label}: defaults: {name} is not a recipe{did_you_mean(name, known)}"])
        return _parsed(f"recipe={name}", recipe_text(name), command, choices, None, opened)
    path = (folder or Path()) / Path(name).expanduser()
    if not path.is_file():
        raise StartError([f"{label}: defaults: {path} does not exist"])
    base_label = f"recipe={path}"
    if base_label in opened or len(opened) > 20:
        raise StartError([f"{label}: defaults: {name} starts from this file itself"])
    return _parsed(base_label, _read(base_label, path), command, choices, path.parent, opened)


def _chosen(label: str, item: Any, choices: Mapping[str, ChoiceField]) -> dict[str, Any]:
    """Return the settings that a choice of a defaults list stands for, such as `override /backbone: resnet18`."""
    if not isinstance(item, dict) or len(item) != 1:
        raise StartError([f"{label}: defaults: {show(item)} must be a recipe, or as in `override /loss: infonce`"])
    ((key, name),) = item.items()
    path = str(key).removeprefix("override ").strip().lstrip("/").replace("/", ".")
    if path not in choices:
        cure = did_you_mean(path, choices) or f"; the choices are {', '.join(choices)}"
        raise StartError([f"{label}: defaults: {path} is not a choice{cure}"])
    nested: Any = name
    for part in reversed(path.split(".")):
        nested = {part: nested}
    return dict(nested)


def separated(
    settings: Mapping[str, Any], choices: Mapping[str, ChoiceField]
) -> tuple[dict[str, str | None], dict[str, Any]]:
    """Return the choices that settings make, and the settings without their names."""
    made, rest = dict[str, str | None](), dict(settings)
    for path, choice in choices.items():
        *parents, last = path.split(".")
        node: Any = rest
        for name in parents:
            if isinstance(node.get(name), dict):
                node[name] = dict(node[name])
            node = node.get(name) if isinstance(node.get(name), dict) else {}
        if last not in node:
            continue
        value = node[last]
        if value is None or isinstance(value, str):
            made[path] = node.pop(last)
        elif isinstance(value, list) and choice.group == VIEWS:
            made[path] = OWN_VIEWS if value else None
        elif isinstance(value, dict) and "name" in value:
            made[path] = value["name"]
            node[last] = {name: item for name, item in value.items() if name != "name"}
    return made, rest


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if nested else value
    return merged


def without(settings: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return nested settings without a path.

    >>> without({"data": {"root": ".", "layout": "folder"}, "seed": 1}, "data.layout")
    {'data': {'root': '.'}, 'seed': 1}
    """
    first, _, rest = path.partition(".")
    if first not in settings or (rest and not isinstance(settings[first], Mapping)):
        return dict(settings)
    kept = {name: value for name, value in settings.items() if name != first or rest}
    return kept | ({first: without(settings[first], rest)} if rest else {})


def as_typed(path: str, settings: Mapping[str, Any]) -> str:
    """Return the settings below a path as one types them.

    >>> as_typed("method", {"projector": {"hidden_dim": 512}, "predictor": None})
    'method.projector.hidden_dim=512 method.predictor=null'
    """
    return typed(*((key, show(value)) for key, value in flat(settings, f"{path}.")))


def flat(settings: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """Return the path and the value of each of some nested settings, with `prefix` before each path."""
    pairs: list[tuple[str, Any]] = []
    for name, value in settings.items():
        pairs += flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return pairs
