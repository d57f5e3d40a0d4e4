"""Settings: dataclass fields that carry their bounds, their choices and their help.

Validation, `--help` and the reference page of the documentation are all derived from these declarations.
"""

import copy
import math
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from eztorch_sce.errors import did_you_mean

T = TypeVar("T")
Choices = Sequence[str] | Callable[[], Sequence[str]]

_KEY = "setting"
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Setting:
    """The declaration of one setting.

    Attributes:
        above, at_least, below, at_most: Bounds of a number, or of each number of a list; None for no bound.
        choices: Allowed words, or a function that returns them.
        help: One sentence: what the setting means, and its unit.
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    choices: Choices | None = None
    help: str = ""

    def allowed(self) -> list[str]:
        """Return the allowed words, or an empty list if any value will do."""
        if self.choices is None:
            return []
        return list(self.choices() if callable(self.choices) else self.choices)

    def range(self) -> str:
        """Return the bounds in words, or an empty string.

        >>> setting_of(above=0).range()
        'greater than 0'
        >>> setting_of(at_least=0, at_most=1).range()
        'between 0 and 1'
        """
        if self.at_least is not None and self.at_most is not None:
            return f"between {self.at_least:g} and {self.at_most:g}"
        words = {
            "greater than": self.above,
            "at least": self.at_least,
            "less than": self.below,
            "at most": self.at_most,
        }
        return " and ".join(f"{word} {bound:g}" for word, bound in words.items() if bound is not None)

    def admits(self, number: float) -> bool:
        """Return whether a number is finite and within the bounds."""
        return (
            math.isfinite(number)
            and (self.above is None or number > self.above)
            and (self.at_least is None or number >= self.at_least)
            and (self.below is None or number < self.below)
            and (self.at_most is None or number <= self.at_most)
        )


def setting_of(
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    choices: Choices | None = None,
    help: str = "",
) -> Setting:
    """Return a declaration without a field, for a value that is checked by `problem_with`."""
    return Setting(above, at_least, below, at_most, choices, help)


def setting(
    default: T,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    choices: Choices | None = None,
    help: str,
) -> T:
    """Declare a field of a config dataclass.

    None is allowed if the annotation allows it. A default that is a list or a dataclass is copied for each instance.

    Args:
        default: The value if the user gives none.
        above, at_least, below, at_most: Bounds of a number, or of each number of a list.
        choices: Allowed words, or a function that returns them (for registered choices, looked up late).
        help: One sentence: what the setting means, and its unit.

    >>> @dataclass
    ... class Config:
    ...     lr: float = setting(0.1, above=0, help="Learning rate.")
    >>> invalid_settings(Config(lr=-1), "optimizer")
    ['optimizer.lr=-1 must be greater than 0']
    """
    metadata = {_KEY: Setting(above, at_least, below, at_most, choices, help)}
    made: Any
    if isinstance(default, (list, dict)) or is_dataclass(default):
        made = field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    else:
        made = field(default=default, metadata=metadata)
    return typing.cast(T, made)


def declaration(item: "Field[Any]") -> Setting | None:
    """Return the declaration of a dataclass field, or None if it is not a setting."""
    found: Setting | None = item.metadata.get(_KEY)
    return found


def default_of(item: "Field[Any]") -> Any:
    """Return the default value of a dataclass field."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def invalid_settings(config: Any, prefix: str = "") -> list[str]:
    """Return one message per invalid setting of a config, however deep.

    Values are held against their declarations. A config may also define two methods:

    - `conflicts(prefix) -> list[str]`: messages for rules across settings. It is called even if values are out of
      range, so that all messages come at once, but only if every value is of its annotated type.
    - `unused_settings() -> Collection[str]`: names of fields that are ignored, and so not checked, as things stand.

    Args:
        config: A config dataclass.
        prefix: The path of the config, such as "optimizer"; empty at the top.
    """
    messages = list(_invalid_values(config, prefix))
    if not _wrong_types(config):
        messages += _conflicts(config, prefix)
    return messages


def _invalid_values(config: Any, prefix: str) -> Iterator[str]:
    hints = typing.get_type_hints(type(config))
    for item in _used_fields(config):
        value, path = getattr(config, item.name), _join(prefix, item.name)
        if message := problem_with(path, value, declaration(item) or Setting(), hints[item.name]):
            yield message
        for child, child_path in _children(value, path):
            yield from _invalid_values(child, child_path)


def _wrong_types(config: Any) -> bool:
    """Return whether any value of a config is not of its annotated type, so that its rules could not compare it."""
    hints = typing.get_type_hints(type(config))
    return any(
        not _fits(getattr(config, item.name), hints[item.name])
        or any(_wrong_types(child) for child, _ in _children(getattr(config, item.name), ""))
        for item in _used_fields(config)
    )


def _conflicts(config: Any, prefix: str) -> list[str]:
    messages = list(config.conflicts(prefix)) if hasattr(config, "conflicts") else []
    messages += list(config.problems(prefix)) if hasattr(config, "problems") else []
    for item in _used_fields(config):
        for child, child_path in _children(getattr(config, item.name), _join(prefix, item.name)):
            messages += _conflicts(child, child_path)
    return messages


def _used_fields(config: Any) -> "list[Field[Any]]":
    unused = config.unused_settings() if hasattr(config, "unused_settings") else ()
    return [item for item in fields(config) if item.name not in unused]


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def problem_with(path: str, value: Any, declared: Setting, hint: Any = Any) -> str | None:
    """Return what is wrong with a value, or None.

    Args:
        path: The path of the setting, such as "optimizer.lr".
        value: Its value.
        declared: Its bounds and choices.
        hint: Its type annotation; Any is not checked.
    """
    if not _fits(value, hint):
        return f"{path}={show(value)} must be {_kind(hint)}"
    if value is None:
        return None
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    allowed = declared.allowed()
    if allowed and (wrong := [item for item in items if item not in allowed]):
        hint_words = did_you_mean(str(wrong[0]), allowed)
        return f"{path}={show(value)} must be one of {', '.join(allowed)}{hint_words}"
    numbers = [item for item in items if isinstance(item, (int, float)) and not isinstance(item, bool)]
    if all(declared.admits(number) for number in numbers):
        return None
    if not declared.range():
        return f"{path}={show(value)} must be finite"
    return f"{path}={show(value)} must be {declared.range()}"


def show(value: Any) -> str:
    """Return a value as one would type it on the command line.

    >>> show(None), show([1.0, True])
    ('null', '[1,true]')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(show(item) for item in value)}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _children(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Yield each config below a value, with its path."""
    if is_dataclass(value) and not isinstance(value, type):
        yield value, path
    elif isinstance(value, (list, tuple)):
        for number, child in enumerate(value):
            yield from _children(child, f"{path}.{number}")


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of an annotated type; an integer is also a number, and a tuple is also a list."""
    if hint is Any:
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, choice) for choice in arguments)
    if origin in (list, tuple):
        item_hint = arguments[0] if arguments else Any
        return isinstance(value, (list, tuple)) and all(_fits(item, item_hint) for item in value)
    if origin is not None or not isinstance(hint, type):
        return True
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _kind(hint: Any) -> str:
    """Return an annotated type in words."""
    arguments = [argument for argument in typing.get_args(hint) if argument is not type(None)]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(_kind(argument) for argument in arguments)
    if typing.get_origin(hint) in (list, tuple):
        return f"a list, each item {_kind(arguments[0])}" if arguments else "a list"
    return _KINDS.get(hint, f"a {getattr(hint, '__name__', hint)}")
