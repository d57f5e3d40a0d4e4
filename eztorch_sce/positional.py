"""Command lines with positional arguments: `eztorch-sce data ...` and `eztorch-sce report RUN`.

Importing this module loads neither torch nor Hydra, so that `--help` responds at once.
"""

import os
import re
import typing
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from eztorch_sce.errors import ConfigError, did_you_mean
from eztorch_sce.home_folders import with_home_folders
from eztorch_sce.settings import Setting, invalid_settings, problem_with, show

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
            nearest known name, invalid values, and flags of earlier versions with their replacements.
    """
    hints = dict(_settings_of(command.config)) if command.config else {}
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
    values, unknown = _read_settings(command, overrides, hints, lacks_argument)
    config = with_home_folders(_nested(command.config, values))
    if messages := messages + unknown + invalid_settings(config):
        more = command.mistakes(*arguments, config) if command.mistakes and not lacks_argument else []
        raise ConfigError([*messages, *more])
    return CommandLine(arguments, config, [])


def _is_setting(word: str, hints: Mapping[str, Any]) -> bool:
    """Return whether a word is key=value, and not a file such as epoch=3.ckpt."""
    key = word.partition("=")[0]
    is_known = key in hints or key.removeprefix("data.") in hints
    return _SETTING.match(word) is not None and (is_known or not os.path.exists(word))


def _read_settings(
    command: PositionalCommand, overrides: Sequence[str], hints: Mapping[str, Any], lacks_argument: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return the values of the settings by name, and one message per unknown setting, which may be a folder."""
    values: dict[str, Any] = {}
    messages: list[str] = []
    for override in overrides:
        key, text = override.split("=", 1)
        name = key if key in hints else key.removeprefix("data.")
        if name in hints:
            value = parse_value(text, hints[name])
            if values.setdefault(name, value) != value:
                messages.append(
                    f"{name} is set several times ({name}={show(values[name])}, {override}): keep one of them"
                )
        else:
            known = f"its settings are {', '.join(hints)}" if hints else "it has no settings"
            known += did_you_mean(name, hints) or (
                f"; for a folder of that name, write ./{override}" if lacks_argument else ""
            )
            messages.append(f"{key} is not a setting of {command.title}; {known}")
    return values, messages


def _settings_of(config: type[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the type of each setting of a config, such as "data.root", also of nested ones."""
    for name, hint in typing.get_type_hints(config).items():
        if isinstance(hint, type) and is_dataclass(hint):
            yield from _settings_of(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


def _nested(config: type[Any], values: Mapping[str, Any]) -> Any:
    """Return a config with these values of its settings, by path."""
    made: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(config).items():
        if isinstance(hint, type) and is_dataclass(hint):
            inside = {path.removeprefix(f"{name}."): value for path, value in values.items()}
            made[name] = _nested(hint, {path: value for path, value in inside.items() if path not in values})
        elif name in values:
            made[name] = values[name]
    return config(**made)


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
