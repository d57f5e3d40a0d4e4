"""Plugins on the command line: they are loaded before anything is composed or explained, since they add choices."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from eztorch_sce import plugins

_KEY = "plugins"


def with_plugins(words: Sequence[str]) -> list[str]:
    """Load all plugins that a command names, and return its words with these plugins as one list.

    They are named by `plugins=`, by the file of `config=` or `recipe=`, or by the environment variable. Those of
    installed packages are loaded too, but not listed.

    Args:
        words: Words after the name of a command.

    Raises:
        ConfigError: If a plugin cannot be loaded.
    """
    typed = [word for word in words if _is_key(word)]
    others = without_plugins(words)
    plugins.load_defaults()
    names = [name for word in typed for name in plugins.names_in(word.partition("=")[2])]
    plugins.load(names)
    for file in _files(others):
        in_file = _names_in_file(file)
        plugins.load(in_file, f"{file}: plugins")
        names += in_file
    names = list(dict.fromkeys([*names, *plugins.names_in(os.environ.get(plugins.VARIABLE, ""))]))
    if not names and not typed:
        return list(words)
    return [*others, f"{_KEY}=[{','.join(_quoted(name) for name in names)}]"]


def without_plugins(words: Sequence[str]) -> list[str]:
    """Return the words that do not name plugins."""
    return [word for word in words if not _is_key(word)]


def _is_key(word: str) -> bool:
    return word.lstrip("+").startswith(f"{_KEY}=")


def _files(words: Sequence[str]) -> Iterator[Path]:
    """Yield the existing YAML files that a command starts from."""
    values = dict(word.split("=", 1) for word in words if "=" in word)
    values = {key: value.strip("'\"") for key, value in values.items()}
    paths = [values.get("config", ""), values.get("recipe", "")]
    for path in filter(None, paths):
        file = Path(path).expanduser()
        file = file / "config.yaml" if file.is_dir() else file
        if file.suffix in (".yaml", ".yml") and file.is_file():
            yield file


def _names_in_file(file: Path) -> list[str]:
    """Return the plugins that a file of settings names; mistakes in the file are reported when it is composed."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []
    names = content.get(_KEY) if isinstance(content, dict) else None
    if isinstance(names, str):
        return plugins.names_in(names)
    return [str(name) for name in names] if isinstance(names, list) else []


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
