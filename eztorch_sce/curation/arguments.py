"""Command lines of `eztorch-sce data`: positional arguments and key=value settings."""

import os
import re
import typing
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eztorch_sce.curation.command import Argument, DataCommand
from eztorch_sce.errors import ConfigError, did_you_mean
from eztorch_sce.settings import invalid_settings

_SETTING = re.compile(r"[A-Za-z_][\w.]*=")  # a path may contain "=" too, but starts with "/" or "." then


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


def parse(command: DataCommand, words: Sequence[str]) -> CommandLine:
    """Parse and validate the words after the name of a command.

    A setting may be prefixed by "data.", as in the other commands.

    Raises:
        ConfigError: With all mistakes at once: missing arguments, folders that do not exist, unknown settings with the
            nearest known name, invalid values, and flags of earlier versions with the new form.
    """
    hints = typing.get_type_hints(command.config) if command.config else {}
    words, messages = _without_flags(command, words, hints)
    overrides = [word for word in words if _SETTING.match(word)]
    arguments = [word for word in words if not _SETTING.match(word)]
    messages += _invalid_arguments(command, arguments)
    if command.config is None:
        if messages:
            raise ConfigError(messages)
        return CommandLine(arguments, None, overrides)
    values = {}
    for override in overrides:
        key, text = override.split("=", 1)
        key = key.removeprefix("data.")
        if key in hints:
            values[key] = parse_value(text, hints[key])
        else:
            known = f"its settings are {', '.join(hints)}" if hints else "it has no settings"
            messages.append(f"{key} is not a setting of data {command.name}; {known}{did_you_mean(key, hints)}")
    config = command.config(**values)
    if messages := messages + invalid_settings(config):
        raise ConfigError(messages)
    return CommandLine(arguments, config, [])


def parse_value(text: str, hint: Any) -> Any:
    """Return the value that a text stands for, or the text itself if it is not of the annotated type.

    >>> parse_value("128", int), parse_value("null", int | None), parse_value("[a.csv,b.csv]", list[str])
    (128, None, ['a.csv', 'b.csv'])
    >>> parse_value("many", int)
    'many'
    """
    if _is_list(hint):
        items = text[1:-1].split(",") if text.startswith("[") and text.endswith("]") else None
        return text if items is None else [_unquoted(item.strip()) for item in items if item.strip()]
    types = typing.get_args(hint) or (hint,)
    if text == "null" and type(None) in types:
        return None
    if bool in types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text) if int in types else float(text) if float in types else _unquoted(text)
    except ValueError:
        return text


def _is_list(hint: Any) -> bool:
    return typing.get_origin(hint) is list


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _without_flags(command: DataCommand, words: Sequence[str], hints: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Separate flags, which earlier versions took; return the other words, and one message per flag."""
    others: list[str] = []
    messages: list[str] = []
    queue = deque(words)
    while queue:
        word = queue.popleft()
        if not word.startswith("-"):
            others.append(word)
            continue
        flag, has_value, value = word.partition("=")
        key = flag.lstrip("-").replace("-", "_")
        if key not in hints:
            nearest = did_you_mean(key, hints)
            messages.append(f"{word} is not a setting of data {command.name}; settings are written key=value{nearest}")
            continue
        is_list = _is_list(hints[key])
        if has_value:
            values, old = [value], word
        else:
            most = 0 if hints[key] is bool else len(queue) if is_list else 1
            values = []
            while queue and len(values) < most and not queue[0].startswith("-") and not _SETTING.match(queue[0]):
                values.append(queue.popleft())
            old = " ".join([word, *values])
        new = f"[{','.join(values)}]" if is_list else "true" if hints[key] is bool else "".join(values) or "VALUE"
        messages.append(f"{old} is now {key}={new}")
    return others, messages


def _invalid_arguments(command: DataCommand, arguments: Sequence[str]) -> list[str]:
    messages = [
        f"{argument.name} is missing; usage: {command.usage()}" for argument in command.arguments[len(arguments) :]
    ]
    messages += [
        f"unexpected argument {word}; usage: {command.usage()}" for word in arguments[len(command.arguments) :]
    ]
    for argument, value in zip(command.arguments, arguments, strict=False):
        messages += _invalid_folder(argument, value) if argument.is_folder else []
    return messages


def _invalid_folder(argument: Argument, value: str) -> list[str]:
    if os.path.isdir(value):
        return []
    if os.path.exists(value):
        return [f"{argument.name}={value} must be a folder, and is a file"]
    parent = Path(value).parent
    siblings = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
    return [f"{argument.name}={value} does not exist{did_you_mean(Path(value).name, siblings)}"]
