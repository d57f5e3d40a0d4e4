"""Settings that code bases store beside their weights as text: YAML of SlowFast, Python of OpenMMLab."""

import ast
import re
from collections.abc import Mapping
from typing import Any

from eztorch_sce.interop.containers import Container

_LONGEST = 1_000_000  # characters; real ones have some ten thousand
_WORDS = {"true": True, "false": False, "null": None}


def slowfast_settings(container: Container) -> dict[str, Any]:
    """Return the settings of SlowFast in a file by name, such as "DATA.NUM_FRAMES"; lists are flat.

    They are the text `cfg` that SlowFast writes, or the same as nested values.
    """
    texts = [value for name, value in container.values.items() if name.split(".")[-1] == "cfg" and _is_text(value)]
    settings = _from_yaml(texts[0]) if texts else {}
    for name, value in container.values.items():
        if found := re.search(r"(?:^|\.)cfg\.([A-Z][A-Z0-9_.]*?)((?:\.\d+)+)?$", name):
            if found[2]:
                settings.setdefault(found[1], []).append(value)
            else:
                settings[found[1]] = value
    return settings


def option(config: str, name: str) -> Any:
    """Return the first value of an option in the text of an OpenMMLab config, or None.

    >>> option("model = dict(backbone=dict(depth=50, dilations=(1, 1, 1, 2)))", "dilations")
    (1, 1, 1, 2)
    """
    found = re.search(rf"\b{name}['\"]?\s*[=:]\s*(\([^()]*\)|\[[^\[\]]*\]|'[^']*'|\"[^\"]*\"|[^\s,()\[\]]+)", config)
    return None if found is None else _plain(found[1])


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and "\n" in value


def _from_yaml(text: str) -> dict[str, Any]:
    """Return the values of two levels of YAML as `CfgNode.dump` writes it; deeper levels are skipped."""
    settings: dict[str, Any] = {}
    section = key = ""
    for line in text.splitlines():
        if found := re.fullmatch(r"(\w+):\s*(.*)", line):
            section = found[1]
            key = section
        elif found := re.fullmatch(r" {2,4}(\w+):\s*(.*)", line):
            key = f"{section}.{found[1]}"
        elif key and (found := re.fullmatch(r"\s*(?:- )+(.*)", line)):
            settings[key] = [*_as_list(settings.get(key)), *_as_list(_plain(found[1]))]
            continue
        else:
            continue
        if found[2].strip():
            settings[key] = _flat(_plain(found[2]))
        else:
            settings.pop(key, None)
    return settings


def _plain(text: str) -> Any:
    """Return a plain value from text; what is none stays text."""
    text = text.strip()
    if text in _WORDS:
        return _WORDS[text]
    try:
        return ast.literal_eval(text) if len(text) < 1000 else text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _flat(value: Any) -> Any:
    """Return nested lists as one."""
    if not isinstance(value, (list, tuple)):
        return value
    return [item for each in value for item in _as_list(_flat(each))]


def differing(settings: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return the settings that are stored with other values than these, as NAME=VALUE."""
    found = {name: settings[name] for name in expected if name in settings}
    return [f"{name}={value}" for name, value in found.items() if value != expected[name]]
