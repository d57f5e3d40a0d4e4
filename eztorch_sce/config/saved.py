"""Settings that a run has saved in its `config.yaml`."""

from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf


def saved_settings(file: Path) -> dict[str, Any]:
    """Return the settings in a file as nested dictionaries, in the order of the file."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(file)))


def as_saved(text: str) -> dict[str, Any]:
    """Return the settings in the text of a `config.yaml`, as `saved_settings` does."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(text)))
