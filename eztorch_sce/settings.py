"""Settings: dataclass fields that carry their bounds, their choices and their help.

Validation, `--help` and the reference page of the documentation are all derived from these declarations.
"""

import copy
import math
import os
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, overload

from eztorch_sce import registry
from eztorch_sce.errors import ConfigError, did_you_mean, nearest

T = TypeVar("T")
Read = TypeVar("Read", covariant=True)
Write = TypeVar("Write", contravariant=True)
Choices = Sequence[str] | Callable[[], Sequence[str]]

_KEY = "setting"
_OBJECTS = ("backbone", "loss", "method")  # groups of which functions take objects, not only configs
_MISSING = "???"  # how OmegaConf writes a value that is still to be set
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Setting:
    """The declaration of one setting.

    Attributes:
        above, at_least, below, at_most: Bounds of a number, or of each number of a list; None for no bound.
        choices: Allowed words, or a function that returns them.
        group: Registry group whose config dataclasses are the allowed values, such as "optimizer".
        optional: Whether a choice of a group may be None; without a group, the annotation decides.
        named: Registry group whose names stand for values of this setting, such as "views".
        is_path: Whether the value is a path, or a list of paths, in which a leading ~ stands for the home folder.
        resumable: Whether a run that goes on may take another value, because it is still the same run.
        help: One sentence: what the setting means, and its unit.
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    choices: Choices | None = None
    group: str | None = None
    optional: bool = False
    named: str | None = None
    is_path: bool = False
    resumable: bool = False
    help: str = ""

    def allowed(self) -> list[str]:
        """Return the allowed words, or an empty list if the words are not restricted."""
        if self.group is not None:
            return list(registry.choices(self.group))
        if self.choices is None:
            return []
        return list(self.choices() if callable(self.choices) else self.choices)

    def range(self) -> str:
        """Return the bounds in words, or an empty string.

        >>> Setting(above=0).range()
        'greater than 0'
        >>> Setting(at_least=0, at_most=1).range()
        'between 0 and 1'
        """
        if self.at_least is not None and self.at_most is not None:
            return f"between {show(self.at_least)} and {show(self.at_most)}"
        bounds = {
            "greater than": self.above,
            "at least": self.at_least,
            "less than": self.below,
            "at most": self.at_most,
        }
        return " and ".join(f"{words} {show(bound)}" for words, bound in bounds.items() if bound is not None)

    def admits(self, number: float) -> bool:
        """Return whether a number is finite and within the bounds."""
        return (
            math.isfinite(number)
            and (self.above is None or number > self.above)
            and (self.at_least is None or number >= self.at_least)
            and (self.below is None or number < self.below)
            and (self.at_most is None or number <= self.at_most)
        )


@overload
def setting(default: str | None, *, is_path: Literal[True], resumable: bool = False, help: str) -> Any: ...


@overload
def setting(default: list[str], *, is_path: Literal[True], help: str) -> list[str]: ...


@overload
def setting(
    default: T,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    choices: Choices | None = None,
    resumable: bool = False,
    help: str,
) -> T: ...


def setting(
    default: T,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    choices: Choices | None = None,
    is_path: bool = False,
    resumable: bool = False,
    help: str,
) -> Any:
    """Declare a field of a config dataclass.

    None is allowed if the annotation allows it. A default that is a list or a dataclass is copied for each instance.

    Args:
        default: Default value.
        above, below: Bounds that a number, or each number of a list, must exceed or stay below.
        at_least, at_most: Smallest and largest allowed number.
        choices: Allowed words, or a function that returns them (for registered choices, looked up late).
        is_path: Whether the value is a path or a list of paths; see `home_folders`.
        resumable: Whether a run that goes on may take another value; see `Settings.RESUMABLE`.
        help: One sentence: what the setting means, and its unit.

    Examples:
        >>> @dataclass
        ... class Config:
        ...     lr: float = setting(0.1, above=0, help="Learning rate.")
        >>> invalid_settings(Config(lr=-1), "optimizer")
        ['optimizer.lr=-1 must be greater than 0']
    """
    declared = Setting(above, at_least, below, at_most, choices, is_path=is_path, resumable=resumable, help=help)
    return _declared_field(default, declared)


def choice(group: str, default: Any, *, resumable: bool = False, help: str) -> Any:
    """Declare a field whose value is a config dataclass of a registry group, such as `optimizer=lars`.

    Any other dataclass with a `build` method is allowed too. If the config class inherits `Settings`, the name of a
    choice may be assigned: it becomes the config object.

    Args:
        group: The registry group.
        default: Config object; a list of configs if the choices of the group are lists, as the views are; or None if
            the choice is optional.
        resumable, help: As for `setting`.
    """
    of_one = None if isinstance(default, list) else group
    declared = Setting(group=of_one, optional=default is None, named=group, resumable=resumable, help=help)
    return _declared_field(default, declared)


def _declared_field(default: T, declared: Setting) -> T:
    item: Any
    if isinstance(default, (list, dict)) or is_dataclass(default):
        item = field(default_factory=lambda: copy.deepcopy(default), metadata={_KEY: declared})
    else:
        item = field(default=default, metadata={_KEY: declared})
    return typing.cast(T, item)


class Choice(Generic[Read, Write]):
    """Type of a setting that takes names, for type checkers only: reading it gives `Read`, assigning takes `Write`.

    At run time such a setting is annotated as Any, because OmegaConf accepts neither protocols nor Literals.
    """

    if TYPE_CHECKING:

        def __get__(self, instance: object, owner: object) -> Read: ...
        def __set__(self, instance: object, value: Write) -> None: ...


if TYPE_CHECKING:
    PathSetting: TypeAlias = Choice[str | None, str | os.PathLike[str] | None]
else:
    PathSetting = str | None
"""Type of a setting that is a path: objects of pathlib may be assigned."""


class Settings:
    """Base class of config dataclasses, which catches misspelled settings and takes choices by name.

    Paths of pathlib and numbers of NumPy become text and plain numbers, which config.yaml can hold.

    Examples:
        >>> @dataclass
        ... class Config(Settings):
        ...     queue_size: int = setting(4096, at_least=0, help="Number of keys.")
        ...     loss: Any = choice("loss", None, help="Loss.")
        >>> Config().queue_sise = 3
        Traceback (most recent call last):
        AttributeError: Config has no setting queue_sise; did you mean queue_size?
        >>> Config(loss="ntxent").loss
        NTXentConfig(temperature=0.1)
    """

    RESUMABLE = False  # whether a run that goes on may take other values of all settings of the class

    if not TYPE_CHECKING:  # a type checker would accept every name

        def __new__(cls, *values: object, **settings: object) -> "Settings":
            """Create the object that `__init__` fills.

            Raises:
                TypeError: If a keyword is not a setting; names the nearest.
            """
            generated = vars(cls).get("__dataclass_params__")
            unknown = [name for name in settings if name not in cls.__dataclass_fields__]
            if unknown and generated is not None and generated.init:  # not an __init__ of the user
                raise TypeError("; ".join(_no_setting(cls, name) for name in unknown))
            return super().__new__(cls)

        def __setattr__(self, name: str, value: object) -> None:
            """Set a setting. The name of a choice is replaced by its config.

            Raises:
                AttributeError: If there is no such setting; names the nearest.
                ConfigError: If a name is not one of the choices; names them.
            """
            item = self.__dataclass_fields__.get(name)
            if item is None and not name.startswith("_") and not hasattr(type(self), name):
                raise AttributeError(_no_setting(type(self), name))
            super().__setattr__(name, value if item is None else _stored(item, value))


def _no_setting(cls: type, name: str) -> str:
    """Return the message for an unknown setting, with the nearest one of the config or of the configs inside it."""
    own, inner = [item.name for item in fields(cls)], dict(_settings_inside(cls))
    guess = inner.get(name) or nearest(name, own) or inner.get(nearest(name, inner) or "")
    return f"{cls.__name__} has no setting {name}" + (f"; did you mean {guess}?" if guess else "")


def _settings_inside(cls: type) -> Iterator[tuple[str, str]]:
    """Yield name and path of each setting of the configs inside a config; the last of a name counts."""
    for item in reversed(fields(cls)):
        default = default_of(item)
        if is_dataclass(default):
            yield from ((name, f"{item.name}.{path}") for name, path in _settings_inside(type(default)))
            yield from ((inner.name, f"{item.name}.{inner.name}") for inner in reversed(fields(default)))


def _stored(item: "Field[Any]", value: object) -> object:
    """Return what is stored for an assigned value: the config of a named choice, or a value that YAML can hold."""
    declared = declaration(item) or Setting()
    if isinstance(value, str) and declared.named is not None and value != _MISSING:
        return _choice_named(item.name, declared.named, value)
    if declared.is_path:
        return [_text(path) for path in value] if isinstance(value, (list, tuple)) else _text(value)
    is_numpy_scalar = type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0
    return value.item() if is_numpy_scalar else value  # type: ignore[attr-defined]


def _text(path: object) -> object:
    return os.fspath(path) if isinstance(path, os.PathLike) else path


def _choice_named(setting: str, group: str, value: str) -> object:
    """Return a new config of the choice of a name, or the list of views of that name."""
    known = registry.choices(group)
    if value not in known:
        raise ConfigError([registry.unknown_choice(setting, value, group)])
    return known[value]()


def declaration(item: "Field[Any]") -> Setting | None:
    """Return the declaration of a dataclass field, or None if it is not a setting."""
    declared: Setting | None = item.metadata.get(_KEY)
    return declared


def default_of(item: "Field[Any]") -> Any:
    """Return the default value of a dataclass field."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def chosen(value: T | None) -> T:
    """Return a value that the data have chosen, if the user has not, by the time a run starts."""
    assert value is not None
    return value


def invalid_settings(config: Any, prefix: str = "") -> list[str]:
    """Return one message per invalid setting of a config and of the configs inside it.

    Values are checked against their declarations. A config may also define two methods:

    - `conflicts(prefix) -> list[str]`: messages for rules across settings. It is called even if values are out of
      range, so that all messages come at once, but only if every value has its annotated type.
    - `unused_settings() -> Collection[str]`: names of fields that the other settings make irrelevant, so that they are
      not checked.

    Args:
        config: A config dataclass.
        prefix: Path of the config, such as "optimizer"; empty at the top.
    """
    checks = list(_value_checks(config, prefix))
    messages = [check.message for check in checks if check.message is not None]
    if not any(check.wrong_type for check in checks):
        messages += _conflicts(config, prefix)
    return messages


@dataclass(frozen=True)
class _Check:
    """Result of checking one value."""

    message: str | None
    wrong_type: bool = False


def _value_checks(config: Any, prefix: str) -> Iterator[_Check]:
    """Check each value of a config and of the configs inside it."""
    hints = typing.get_type_hints(type(config))
    for item in _used_fields(config):
        value, path, hint = getattr(config, item.name), _join(prefix, item.name), hints[item.name]
        declared = declaration(item) or Setting()
        message = problem_with(path, value, declared, hint)
        yield _Check(message, wrong_type=not _has_type(value, declared, hint))
        for child, child_path in _children(value, path):
            yield from _value_checks(child, child_path)


def _conflicts(config: Any, prefix: str) -> list[str]:
    """Collect the messages of the rules across settings, from the outer config to the inner ones."""
    messages = list(config.conflicts(prefix)) if hasattr(config, "conflicts") else []
    for item in _used_fields(config):
        for child, child_path in _children(getattr(config, item.name), _join(prefix, item.name)):
            messages += _conflicts(child, child_path)
    return messages


def _used_fields(config: Any) -> "list[Field[Any]]":
    unused = config.unused_settings() if hasattr(config, "unused_settings") else ()
    return [item for item in fields(config) if item.name not in unused]


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _children(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Yield each config inside a value, with its path."""
    if is_dataclass(value) and not isinstance(value, type):
        yield value, path
    elif isinstance(value, (list, tuple)):
        for number, child in enumerate(value):
            yield from _children(child, f"{path}.{number}")


def problem_with(path: str, value: Any, declared: Setting, hint: Any = Any) -> str | None:
    """Return a message if a value is invalid, else None.

    Args:
        path: Path of the setting, such as "optimizer.lr".
        value: Its value.
        declared: Its bounds and choices.
        hint: Its type annotation; Any is not checked.

    >>> problem_with("data.batch_size", "many", Setting(at_least=1), int)
    'data.batch_size=many must be a whole number, at least 1'
    """
    if not _has_type(value, declared, hint):
        return f"{path}={_shown(value)} must be {allowed_values(declared, hint)}{_cure(path, value, declared)}"
    if value is None or declared.group is not None:
        return None
    is_list = isinstance(value, (list, tuple))
    items = list(value) if is_list else [value]
    if (words := declared.allowed()) and (wrong := [item for item in items if item not in words]):
        return f"{path}={show(value)} must be one of {', '.join(words)}{_nearest(wrong[0], declared)}"
    numbers = [item for item in items if isinstance(item, (int, float)) and not isinstance(item, bool)]
    if all(declared.admits(number) for number in numbers):
        return None
    return f"{path}={show(value)} must be {'numbers ' if is_list else ''}{declared.range() or 'finite'}"


def allowed_values(declared: Setting, hint: Any) -> str:
    """Return the type of a setting with its range or choices, in words.

    >>> allowed_values(Setting(above=0), float | None)
    'a number, greater than 0, or null'
    """
    if declared.group is not None:
        names = ", ".join(declared.allowed())
        return f"{f'the config of one of {names}, or ' if names else ''}a dataclass with a build method"
    or_null = ", or null" if type(None) in typing.get_args(hint) else ""
    if words := declared.allowed():
        return f"one of {', '.join(words)}{or_null}"
    bounds = f", {declared.range()}" if declared.range() else ""
    return f"{kind_of(hint)}{bounds}{or_null}"


def kind_of(hint: Any) -> str:
    """Return an annotated type in words; None is left out.

    >>> kind_of(list[float]), kind_of(int | None)
    ('a list of numbers', 'a whole number')
    """
    arguments = [argument for argument in typing.get_args(hint) if argument is not type(None)]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(kind_of(argument) for argument in arguments)
    if typing.get_origin(hint) in (list, tuple):
        plurals = {int: "whole numbers", float: "numbers", str: "words"}
        return f"a list of {plurals.get(arguments[0], getattr(arguments[0], '__name__', 'values'))}"
    if typing.get_origin(hint) is dict:
        return "settings by name"
    if is_dataclass(hint):
        return f"a {getattr(hint, '__name__', hint)}"
    return _KINDS.get(hint, getattr(hint, "__name__", str(hint)))


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


def _shown(value: Any) -> str:
    """Return a value of the wrong type so that its type shows, such as "3" for text, or the class of an object."""
    if isinstance(value, type):
        return f"{value.__name__} (a class)"
    if isinstance(value, str) and value.removeprefix("-").replace(".", "", 1).isdigit():
        return f'"{value}" (text)'
    return show(value) if value is None or isinstance(value, (str, int, float, list, tuple)) else type(value).__name__


def _cure(path: str, value: Any, declared: Setting) -> str:
    """Return how to use a value of the wrong type, as far as that is known."""
    if isinstance(value, type) and is_dataclass(value):
        return f": use {value.__name__}()"
    if declared.group in _OBJECTS and callable(value) and not isinstance(value, type):
        return f"; pass an object to the function instead, as in pretrain(config, {path.split('.')[-1]}=...)"
    if declared.group == "source" and not isinstance(value, (str, type)):
        return "; pass an object to the function instead, as in pretrain(config, data=...)"
    return _nearest(value, declared)


def _nearest(value: Any, declared: Setting) -> str:
    return "" if value is None else did_you_mean(str(value), declared.allowed())


def _has_type(value: Any, declared: Setting, hint: Any) -> bool:
    """Return whether a value has its annotated type or, for a choice of a group, is a config of that group."""
    if declared.group is None:
        return _fits(value, hint)
    if value is None:
        return declared.optional
    if not is_dataclass(value) or isinstance(value, type):
        return False
    place = registry.place_of(value)
    return callable(getattr(value, "build", None)) if place is None else place[0] == declared.group


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value fits a type annotation. Integers count as numbers, and tuples as lists."""
    if hint is Any:
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, argument) for argument in arguments)
    if origin in (list, tuple):
        item_hint = arguments[0] if arguments else Any
        return isinstance(value, (list, tuple)) and all(_fits(item, item_hint) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if origin is not None or not isinstance(hint, type):
        return True
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
