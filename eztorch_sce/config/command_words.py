"""The words of a command line as a validated config, or all of their mistakes at once."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eztorch_sce.config.compose import compose, say
from eztorch_sce.config.help import reference_with_plugins
from eztorch_sce.config.mistyped import HYDRA_FLAGS, corrected, set_twice
from eztorch_sce.config.set_where import names_origins
from eztorch_sce.errors import ConfigError, nearest

_NOT_CHECKED = ("run.dir", "out", "runner.folder", "config")  # written; the last is read while settings are composed
_READ_NO_DATA = ("plan", "demo")  # commands
_CURES = {
    "weights": "; give the run directory of `pretrain` or `finetune`, or its backbone.safetensors",
    "features": "; give the run directory of `extract`",
}
_OF_PATTERNS = set("*?{")  # characters of a pattern, such as one for the files of shards


def config_of(command: str, words: Sequence[str]) -> Any:
    """Return the validated config of a command line.

    Args:
        command: The command, such as "pretrain".
        words: The words after it.

    Raises:
        ConfigError: With one message per mistake: words that are not name=value, names and values of settings, and
            files and folders that do not exist.
    """
    meant, messages = corrected(command, words)
    try:
        config = compose(command, meant)
    except ConfigError as error:
        typed = dict(word.split("=", 1) for word in meant if "=" in word)
        messages += [*error.problems, *_absent({path: text.strip("'\"") for path, text in typed.items()}, command)]
        raise ConfigError(list(dict.fromkeys(messages))) from None
    try:
        _check_paths(config, command)
    except ConfigError as error:
        messages += error.problems
    if messages:
        raise ConfigError(messages)
    say(set_twice(meant))
    return config


def is_for_hydra(words: Sequence[str]) -> bool:
    """Return whether the words have a flag or a setting of Hydra, such as -m for a sweep."""
    return any(word in HYDRA_FLAGS or word.startswith("hydra") for word in words)


def refuse_mistyped(command: str, words: Sequence[str]) -> None:
    """Raise ConfigError if words for Hydra, such as those of a sweep, are not of the form name=value."""
    if messages := corrected(command, words)[1]:
        raise ConfigError(messages)


@names_origins
def _check_paths(config: Any, command: str) -> None:
    """Raise ConfigError with one message per path to read that does not exist."""
    values = {}
    for path in _paths_of(command):
        owner, _, name = path.rpartition(".")
        value = getattr(getattr(config, owner, None) if owner else config, name, None)
        if isinstance(value, str):
            values[path] = value
    if messages := list(_absent(values, command)):
        raise ConfigError(messages)


def _absent(values: Mapping[str, str], command: str) -> Iterator[str]:
    """Yield a message for each of the settings that is a path to read and does not exist."""
    for path in _paths_of(command):
        value = values.get(path, "")
        is_one = value not in ("", "null") and not _OF_PATTERNS & set(value) and "${" not in value
        is_one = is_one and "://" not in value  # opened by fsspec
        if is_one and not os.path.lexists(os.path.expanduser(value)):
            yield f"{path}={value} does not exist{_cure(path, value)}"


def _paths_of(command: str) -> Iterator[str]:
    """Yield the settings of a command that are paths to read."""
    reference = reference_with_plugins()
    for name, entry in reference.commands[command].settings.items() if command not in _READ_NO_DATA else ():
        nested = reference.configs[entry.config].settings if entry.config in reference.configs else {}
        paths = [f"{name}.{inner}" for inner, each in nested.items() if each.is_path] or [name] * entry.is_path
        yield from (path for path in paths if path not in _NOT_CHECKED)


def _cure(setting: str, value: str) -> str:
    """Return "; did you mean X?" with an existing path that differs in one name, or else what to give instead."""
    path = absent = Path(value).expanduser()
    while absent.parent != absent and not absent.parent.is_dir():
        absent = absent.parent
    try:
        name = nearest(absent.name, os.listdir(absent.parent))
    except OSError:
        return _CURES.get(setting, "")
    existing = absent.parent / (name or "") / path.relative_to(absent)
    if name and existing.exists():
        return f"; did you mean {existing}?"
    return _CURES.get(setting, f"; there is no folder {absent}" if absent != path else "")
