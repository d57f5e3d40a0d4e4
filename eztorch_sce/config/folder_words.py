"""The folder of a command that takes it without the name of a setting: `study FOLDER`."""

import os
from collections.abc import Sequence

from eztorch_sce.errors import ConfigError


def with_folder(words: Sequence[str]) -> list[str]:
    """Return the words of a command, with a folder as the setting `data.root`.

    Args:
        words: Words after the name of the command.

    Raises:
        ConfigError: If there are several folders, also if one is given as `data.root`.

    >>> with_folder(["my videos", "minutes=5"])
    ['data.root="my videos"', 'minutes=5']
    """
    from eztorch_sce.config.overrides import quoted  # imports Hydra

    if any(word.startswith("-") for word in words):  # flags of Hydra may have values without "="
        return list(words)
    folders = [word for word in words if "=" not in word or os.path.isdir(os.path.expanduser(word))]
    roots = [word for word in words if word.startswith("data.root=") and word not in folders]
    if folders and roots:
        raise ConfigError([f"the folder is given twice, as {folders[0]} and as {roots[0]}: keep one of them"])
    if len(folders) > 1:
        raise ConfigError([f"one folder is expected, got {', '.join(folders)}; settings are written key=value"])
    return [f"data.root={quoted(word)}" if word in folders else word for word in words]
