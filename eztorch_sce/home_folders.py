"""Home folders in paths: a leading ~ of a setting."""

import operator
import os
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from eztorch_sce.settings import Setting, declaration

T = TypeVar("T")


def with_home_folders(config: T) -> T:
    """Return a copy of a config in which a leading ~ of every path is replaced by the home folder.

    >>> from dataclasses import dataclass
    >>> from eztorch_sce.settings import setting
    >>> @dataclass
    ... class Config:
    ...     root: str | None = setting(None, is_path=True, help="Folder.")
    >>> with_home_folders(Config("~/videos")).root == os.path.expanduser("~/videos")
    True
    """
    values: Any = config
    expanded = {item.name: _with_home_folder(getattr(config, item.name), declaration(item)) for item in fields(values)}
    changed = {name: value for name, value in expanded.items() if value is not getattr(config, name)}
    copied: T = replace(values, **changed) if changed else config
    return copied


def _with_home_folder(value: Any, declared: Setting | None) -> Any:
    """Return a value with its paths expanded; the same object if it has none."""
    if is_dataclass(value) and not isinstance(value, type):
        return with_home_folders(value)
    if isinstance(value, list):
        items = [_with_home_folder(item, declared) for item in value]
        return value if all(map(operator.is_, items, value)) else items
    is_path = declared is not None and declared.is_path and isinstance(value, str) and value.startswith("~")
    return os.path.expanduser(value) if is_path else value
