"""Command lines with positional arguments: `eztorch-sce data ...` and `eztorch-sce report RUN`.

Importing this module loads neither torch nor Hydra, so that `--help` responds at once.
"""

import os
import re
import typing
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from eztorch_sce import registry
from eztorch_sce.errors import ConfigError, did_you_mean, nearest
from eztorch_sce.home_folders import with_home_folders
from eztorch_sce.settings import Setting, declaration, default_of, invalid_settings, problem_with, show

_SETTING = re.compile(r"[A-Za-z_][\w.]*=")  # a path that begins so must exist, or start with "/" or "."
_ITEM = re.compile(r"""\s*(?:"[^"]*"|'[^']*')\s*(?=,|$)|[^,]+""")  # of a list; quotes protect commas


class Argument(NamedTuple):
    """A positional argument.

    Attributes:
        name: Name in capitals, as shown in the usage line.
        help: One sentence.
        is_folder: Whether the value must be an existing folder.
        choices: Function that returns the allowed values; None if there is no fixed set.
        is_repeated: Whether several values may follow, for the last argument of a command.
        exists: Whether the value must be an existing file or folder.
    """

    name: str
    help: str
    is_folder: bool = False
    choices: Callable[[], Sequence[str]] | None = None
    is_repeated: bool = False
    exists: bool = False


class PositionalCommand(NamedTuple):
    """A command that takes positional arguments.

    Attributes:
        title: Words of the command, such as "data doctor".
        summary: One sentence.
        arguments: Positional arguments, all required.
        config: Dataclass of the settings; None if `settings_of` names a command instead.
        examples: Three command lines.
        run: Function of the positional arguments and the config. It returns False if files are unusable, missing or
            failed, which makes the exit code 1. None if `settings_of` is set; the command-line module then runs it.
        settings_of: The command whose settings this one accepts, such as "pretrain"; empty if `config` declares them.
        mistakes: Function of the same values as `run` that returns the messages `run` would raise, to be told together
            with those about the words. None if there are none.
        flags: Settings that may also be written as flags, such as "step" for `--step 100`.
        rehearse: Function of the same values as `run` that returns lines on what `run` would do, for `--dry-run`. It
            writes nothing and starts nothing. None if there is none.
        removed: What replaces each setting that only earlier versions had.
    """

    title: str
    summary: str
    arguments: tuple[Argument, ...]
    config: type[Any] | None
    examples: tuple[str, str, str]
    run: Callable[..., bool] | None
    settings_of: str = ""
    mistakes: Callable[..., list[str]] | None = None
    flags: tuple[str, ...] = ()
    removed: Mapping[str, str] = MappingProxyType({})
    rehearse: Callable[..., list[str]] | None = None

    def usage(self) -> str:
        """Return the usage line.

        >>> run = Argument("RUN", "Run directory.", is_repeated=True)
        >>> PositionalCommand("report", "Write a page.", (run,), None, ("", "", ""), None, "pretrain").usage()
        'eztorch-sce report RUN [RUN ...] [key=value ...]'
        """
        names = [f"{each.name} [{each.name} ...]" if each.is_repeated else each.name for each in self.arguments]
        settings = [] if self.config is not None and not typing.get_type_hints(self.config) else ["[key=value ...]"]
        return " ".join(["eztorch-sce", self.title, *names, *settings])


class CommandGroup(NamedTuple):
    """Commands of two words that share the first one, such as `data doctor` and `data check`.

    Attributes:
        name: The first word.
        summary: One sentence.
        commands: The commands by their second word.
        shared: Module whose imports all commands share; the command line loads it first, and says so if that takes
            long.
    """

    name: str
    summary: str
    commands: Mapping[str, PositionalCommand]
    shared: str


class CommandLine(NamedTuple):
    """A parsed command line.

    Attributes:
        arguments: Positional arguments, in order.
        config: The validated config; None for a command with `settings_of`.
        overrides: The key=value words, for a command with `settings_of`.
    """

    arguments: list[str]
    config: Any
    overrides: list[str]


def parse(command: PositionalCommand, words: Sequence[str]) -> CommandLine:
    """Parse and validate the words after the name of a command.

    A setting of `data` commands may be prefixed by "data.", as in the other commands.

    Raises:
        ConfigError: With all mistakes at once: missing arguments, folders that do not exist, unknown settings with the
            nearest known name, unknown choices, invalid values, and flags of earlier versions with their replacements.
    """
    hints = dict(_settings_of_all_choices(command.config)) if command.config else {}
    words, messages = _without_flags(command, words, hints)
    overrides = [word for word in words if _is_setting(word, hints)]
    arguments = [word for word in words if not _is_setting(word, hints)]
    for number, argument in enumerate(_one_for_each(command, arguments)):
        if argument.choices is None:  # a path
            arguments[number] = os.path.expanduser(arguments[number])
    messages += _invalid_arguments(command, arguments)
    if command.config is None:
        if messages:
            raise ConfigError(messages)
        return CommandLine(arguments, None, overrides)
    lacks_argument = len(arguments) < len(command.arguments)
    read = _Settings(command, overrides, lacks_argument)
    config = with_home_folders(read.config())
    if messages := messages + read.messages + invalid_settings(config):
        more = command.mistakes(*arguments, config) if command.mistakes and not lacks_argument else []
        raise ConfigError([*messages, *more])
    return CommandLine(arguments, config, [])


def _is_setting(word: str, hints: Mapping[str, Any]) -> bool:
    """Return whether a word is key=value, and not a file such as epoch=3.ckpt."""
    key = word.partition("=")[0]
    is_known = key in hints or key.removeprefix("data.") in hints
    return _SETTING.match(word) is not None and (is_known or not os.path.exists(word))


class _Settings:
    """The settings that are typed on a command line, in any order.

    Attributes:
        messages: One message per unknown setting, which may be a folder, and per unknown choice.
    """

    def __init__(self, command: PositionalCommand, overrides: Sequence[str], lacks_argument: bool) -> None:
        assert command.config is not None
        self.command, self.lacks_argument = command, lacks_argument
        self.messages: list[str] = []
        self.default: Any = command.config()
        self.groups = {path: declared for path, declared in _choices_of(command.config)}
        self.chosen: dict[str, Any] = {}  # configs by path
        self.unclear: list[str] = []  # paths of choices that are not known
        self.values: dict[str, Any] = {}
        typed = [override.split("=", 1) for override in overrides]
        for key, text in typed:
            if (path := self._name(key, self.groups)) is not None:
                self._set(path, _unquoted(text), key, text)
        for path, declared in self.groups.items():
            if path in self.values:
                self._choose(path, declared, self.values.pop(path))
        self.hints = dict(_settings_of(self._with_choices()))
        for key, text in typed:
            if self._name(key, self.groups) is not None or self._is_unclear(key):
                continue
            name = self._name(key, self.hints)
            if name is None:
                self._reject(key, text)
            else:
                self._set(name, parse_value(text, self.hints[name]), key, text)

    def config(self) -> Any:
        """Return the config with the typed settings."""
        return _with_values(self._with_choices(), self.values)

    def _name(self, key: str, known: Mapping[str, Any]) -> str | None:
        """Return the setting that a key means, or None if it is not known."""
        return next((name for name in (key, key.removeprefix("data.")) if name in known), None)

    def _is_unclear(self, key: str) -> bool:
        return any(key.removeprefix("data.").startswith(f"{path}.") for path in self.unclear)

    def _set(self, name: str, value: Any, key: str, text: str) -> None:
        if self.values.setdefault(name, value) != value:
            first = f"{name}={show(self.values[name])}"
            self.messages.append(f"{name} is set several times ({first}, {key}={text}): keep one of them")

    def _choose(self, path: str, declared: Setting, name: str) -> None:
        """Take a choice by name; in place of an unknown one the nearest, so that its settings are checked, too."""
        assert declared.group is not None
        if name == "null" and declared.optional:
            self.chosen[path] = None
            return
        known = registry.choices(declared.group)
        default = _at(self.default, path)
        if name not in known:
            self.messages.append(registry.unknown_choice(path, name, declared.group))
            guess = nearest(name, known)
            if guess is None:
                self.unclear.append(path)
                return
            name = guess
        self.chosen[path] = default if default is not None and name == registry.name_of(default) else known[name]()

    def _with_choices(self) -> Any:
        return _with_values(self.default, self.chosen)

    def _reject(self, key: str, text: str) -> None:
        """Add a message about a setting that there is not."""
        not_one = f"{key} is not a setting of {self.command.title}"
        name = key.removeprefix("data.")
        if name in self.command.removed:
            self.messages.append(f"{key}={text} is no longer a setting: {self.command.removed[name]}")
            return
        path = next((path for path in self.groups if name.startswith(f"{path}.")), None)
        if path is not None:
            self.messages.append(f"{not_one}; {self._choices_with(path, name.removeprefix(f'{path}.'))}")
            return
        known = [each for each in self.hints if not any(each.startswith(f"{path}.") for path in self.groups)]
        cure = f"its settings are {', '.join(known)}" if known else "it has no settings"
        cure += did_you_mean(name, known) or (
            f"; for a folder of that name, write ./{key}={text}" if self.lacks_argument else ""
        )
        self.messages.append(f"{not_one}; {cure}")

    def _choices_with(self, path: str, name: str) -> str:
        """Return in words which choices have a setting, or else the settings of the one that is chosen."""
        if others := registry.choices_with(path, self.groups[path].group or "", name):
            return f"{others} has it"
        own = [each.removeprefix(f"{path}.") for each in self.hints if each.startswith(f"{path}.")]
        if guess := nearest(name, own):
            return f"did you mean {path}.{guess}?"
        chosen = _at(self._with_choices(), path)
        title = path if chosen is None else f"{path}={registry.name_of(chosen)}"
        return f"the settings of {title} are {', '.join(own)}" if own else f"{title} has no settings"


def _choices_of(config_class: type[Any], prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """Yield the path and the declaration of each setting that takes a choice of a group, such as "runner"."""
    for item in fields(config_class):
        declared, default = declaration(item), default_of(item)
        if declared is not None and declared.group is not None:
            yield f"{prefix}{item.name}", declared
        elif is_dataclass(default) and not isinstance(default, type):
            yield from _choices_of(type(default), f"{prefix}{item.name}.")


def _settings_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the type of each setting of a config, such as "data.root", also of the configs inside it."""
    hints = typing.get_type_hints(type(config))
    for item in fields(config):
        path, value, declared = f"{prefix}{item.name}", getattr(config, item.name), declaration(item)
        is_choice = declared is not None and declared.group is not None
        if is_choice or not is_dataclass(value):
            yield path, hints[item.name]
        if is_dataclass(value):
            yield from _settings_of(value, f"{path}.")


def _settings_of_all_choices(config_class: type[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the path and the type of each setting of a config, and of each choice."""
    yield from _settings_of(config_class())
    for path, declared in _choices_of(config_class):
        for choice in registry.choices(declared.group or "").values():
            yield from _settings_of(choice(), f"{path}.")


def _with_values(config: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """Return a copy of a config with these values of its settings, by path."""
    changed: dict[str, Any] = {}
    for item in fields(config):
        path, value = f"{prefix}{item.name}", getattr(config, item.name)
        if path in values:
            changed[item.name] = values[path]
        elif is_dataclass(value) and not isinstance(value, type):
            changed[item.name] = _with_values(value, values, f"{path}.")
    return replace(config, **changed)


def _at(config: Any, path: str) -> Any:
    """Return the value of a setting by its path."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def _one_for_each(command: PositionalCommand, values: Sequence[str]) -> list[Argument]:
    """Return the argument that each of the values is for; fewer if there are more values than arguments."""
    arguments = list(command.arguments)
    if arguments and arguments[-1].is_repeated:
        arguments += [arguments[-1]] * (len(values) - len(arguments))
    return arguments[: len(values)]


def parse_value(text: str, hint: Any) -> Any:
    """Return the value that a text stands for, or the text itself if it is not of the annotated type.

    >>> parse_value("128", int), parse_value("null", int | None), parse_value("[a.csv,b.csv]", list[str])
    (128, None, ['a.csv', 'b.csv'])
    >>> parse_value("many", int)
    'many'
    """
    if _is_list(hint):
        if not (text.startswith("[") and text.endswith("]")):
            return text
        items = [item.strip() for item in _ITEM.findall(text[1:-1]) if item.strip()]
        return [_unquoted(item) for item in items]
    types = typing.get_args(hint) or (hint,)
    if text == "null" and type(None) in types:
        return None
    if bool in types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        if int in types:
            return int(text)
        if float in types:
            return float(text)
    except ValueError:
        return text
    return _unquoted(text)


def _is_list(hint: Any) -> bool:
    return typing.get_origin(hint) is list


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _without_flags(
    command: PositionalCommand, words: Sequence[str], hints: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Separate the flags that earlier versions accepted; return the other words, and one message per flag."""
    others: list[str] = []
    messages: list[str] = []
    queue = deque(words)
    while queue:
        word = queue.popleft()
        flag, has_value, value = word.partition("=")
        name = flag.lstrip("-").replace("-", "_")
        if not word.startswith("-"):
            others.append(word)
        elif name in command.removed:
            words = [word] if has_value else [word, *_take_values(queue, str)]
            messages.append(f"{' '.join(words)} is no longer a setting: {command.removed[name]}")
        elif name not in hints:
            nearest = did_you_mean(name, hints)
            messages.append(f"{word} is not a setting of {command.title}; settings are written key=value{nearest}")
        elif name in command.flags:
            others.append(f"{name}={value if has_value else ''.join(_take_values(queue, hints[name]))}")
        elif has_value:
            messages.append(f"{word} is now {name}={_new_value([value], hints[name])}")
        else:
            values = _take_values(queue, hints[name])
            messages.append(f"{' '.join([word, *values])} is now {name}={_new_value(values, hints[name])}")
    return others, messages


def _take_values(queue: deque[str], hint: Any) -> list[str]:
    """Remove from the queue the words that belong to a flag, and return them."""
    if hint is bool:
        return []
    most = len(queue) if _is_list(hint) else 1
    values: list[str] = []
    while queue and len(values) < most and not queue[0].startswith("-") and not _SETTING.match(queue[0]):
        values.append(queue.popleft())
    return values


def _new_value(values: Sequence[str], hint: Any) -> str:
    if _is_list(hint):
        return f"[{','.join(values)}]"
    if hint is bool:
        return "true"
    return values[0] if values else "VALUE"


def _invalid_arguments(command: PositionalCommand, arguments: Sequence[str]) -> list[str]:
    known = _one_for_each(command, arguments)
    messages = [
        f"{argument.name} is missing; usage: {command.usage()}" for argument in command.arguments[len(arguments) :]
    ]
    messages += [f"unexpected argument {word}; usage: {command.usage()}" for word in arguments[len(known) :]]
    for argument, value in zip(known, arguments, strict=False):
        if argument.is_folder or argument.exists:
            messages += _invalid_path(argument, value)
        if message := problem_with(argument.name, value, Setting(choices=argument.choices)):
            messages.append(message)
    return messages


def _invalid_path(argument: Argument, value: str) -> list[str]:
    if os.path.isdir(value) or (argument.exists and os.path.exists(value)):
        return []
    if os.path.exists(value):
        return [f"{argument.name}={value} must be a folder but is a file"]
    parent = Path(value).parent
    entries = [entry for entry in parent.iterdir() if argument.exists or entry.is_dir()] if parent.is_dir() else []
    siblings = [entry.name for entry in entries]
    return [f"{argument.name}={value} does not exist{did_you_mean(Path(value).name, siblings)}"]
