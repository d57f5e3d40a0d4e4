"""Where the values of settings come from, so that an error can say it: a recipe, a file and its line, or a default.

The record is made while a config is composed, and stays with the config. What was typed on the command line or passed
in Python is not in it: whoever typed it knows. A value that was changed later no longer matches its record, so nothing
false is said of it.
"""

import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, ParamSpec, TypeVar

import yaml

from eztorch_sce.errors import ConfigError
from eztorch_sce.settings import show

P = ParamSpec("P")
R = TypeVar("R")

_ATTRIBUTE = "_origins"  # of a config; not a field, so it is neither compared nor saved


class Origin(NamedTuple):
    """Value of a setting as typed, and where it comes from, such as "set in recipe=demo, line 7"."""

    value: str
    text: str


Origins = Mapping[str, Origin]
"""Origins of settings, by path."""


def lines_of(text: str) -> dict[str, int]:
    """Return the line of each setting in a YAML file, by path; a choice of its defaults list counts as a setting.

    >>> lines_of("defaults: [override /loss: infonce]\\ndata:\\n  root: .\\n")
    {'loss': 1, 'data': 2, 'data.root': 3}
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return dict(_lines(root, "")) if isinstance(root, yaml.MappingNode) else {}


def _lines(node: yaml.Node, prefix: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _lines(item, f"{prefix}{number}.")
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        line = key.start_mark.line + 1
        if not prefix and key.value == "defaults":
            yield from _chosen_lines(value)
        else:
            yield f"{prefix}{key.value}", line
            yield from _lines(value, f"{prefix}{key.value}.")


def _chosen_lines(node: yaml.Node) -> Iterator[tuple[str, int]]:
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        for key, _ in item.value if isinstance(item, yaml.MappingNode) else ():
            path = key.value.removeprefix("override ").strip().lstrip("/").replace("/", ".")
            yield path, key.start_mark.line + 1


def origins_of(
    settings: Any, files: Mapping[str, str], typed: Collection[str], choices: Mapping[str, str | None]
) -> dict[str, Origin]:
    """Return the origins of the settings of a composed config that were not typed.

    Args:
        settings: The config as nested dictionaries and lists.
        files: Places of the settings that a recipe or a file sets, by path, such as "recipe=demo, line 7".
        typed: Paths of the settings that were typed.
        choices: Names of the choices that are made, by path.
    """
    origins = {}
    for path, value in _flat(settings, ""):
        owner = next((choice for choice in choices if path.startswith(f"{choice}.")), None)
        of_choice = "" if owner is None else f" of {owner}={choices[owner]}"
        place = None if owner in typed else files.get(path)
        if path not in typed:
            origins[path] = Origin(show(value), f"is the default{of_choice}" if place is None else f"is set in {place}")
    return origins


def _flat(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    items = node.items() if isinstance(node, Mapping) else enumerate(node)
    for name, value in items:
        if isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(item, Mapping) for item in value)):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def with_origins(problems: Sequence[str], origins: Origins) -> list[str]:
    """Return problems that also say where the values in them come from.

    >>> origins = {"data.batch_size": Origin("7", "is set in my.yaml, line 2")}
    >>> with_origins(["data.batch_size=7 is odd: use data.batch_size=8"], origins)
    ['data.batch_size=7 is odd: use data.batch_size=8 (data.batch_size=7 is set in my.yaml, line 2)']
    """
    return [_with_origins(problem, origins) for problem in problems]


def _with_origins(problem: str, origins: Origins) -> str:
    remarks = [
        f"{path}={origin.value} {origin.text}"
        for path, origin in origins.items()
        if path in problem and re.search(rf"(?<![\w.]){re.escape(f'{path}={origin.value}')}(?![\w.]\w|\w)", problem)
    ]
    return f"{problem} ({'; '.join(remarks)})" if remarks else problem


def remember(config: object, origins: Origins) -> None:
    """Keep the origins of the settings of a config with it."""
    vars(config)[_ATTRIBUTE] = origins


def names_origins(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function of a config, so that its ConfigErrors say where the settings that they name were set."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        config = args[0] if args else kwargs.get("config")
        with naming_origins(getattr(config, _ATTRIBUTE, {})):
            return function(*args, **kwargs)

    return wrapper


@contextmanager
def naming_origins(origins: Origins) -> Iterator[None]:
    """Let a ConfigError that is raised inside say where the settings that it names were set."""
    try:
        yield
    except ConfigError as error:
        error.problems[:] = with_origins(error.problems, origins)
        raise
