"""Folders of the Hugging Face Hub: weights, in one file or several, and the JSON files beside them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from eztorch_sce.interop.tensor_bytes import Refused

_WEIGHTS = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
_INDEX = ".index.json"
_CONFIGS = ("config.json", "preprocessor_config.json")
_LONGEST_JSON = 1 << 24  # bytes
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".pkl", ".tar", ".pyth", ".npz")


class NoWeights(Refused):
    """A folder in which there are no weights."""


class Folder(NamedTuple):
    """The files of a folder that are read.

    Attributes:
        files: Those of the weights, in order.
        names: Names of the tensors of each file, or None if no index says them.
        configs: Content of the JSON files beside them, by name without suffix.
    """

    files: list[Path]
    names: dict[str, set[str]] | None
    configs: dict[str, Any]


def read_folder(folder: Path, refuse: Callable[[Path, list[str]], None]) -> Folder:
    """Return which files of a folder are read.

    Args:
        folder: The folder.
        refuse: Function that raises an error if its names are those of another kind of folder.

    Raises:
        NoWeights: If it has no weights.
        Refused: If it has several that exclude each other, or its index is damaged.
    """
    names = sorted(entry.name for entry in folder.iterdir())
    refuse(folder, names)
    configs = {name.removesuffix(".json"): read_json(folder / name) for name in _CONFIGS if name in names}
    for name in _WEIGHTS:
        if name in names:
            return Folder([folder / name], None, configs)
        if f"{name}{_INDEX}" in names:
            return _sharded(folder, f"{name}{_INDEX}", names, configs)
    files = [name for name in names if name.endswith(WEIGHTS_SUFFIXES)]
    if len(files) == 1:
        return Folder([folder / files[0]], None, configs)
    if files:
        raise Refused(f"a folder with several files of weights ({', '.join(files[:5])}); give one of them")
    raise NoWeights(f"a folder without weights, such as {' or '.join(_WEIGHTS)}; give the file")


def _sharded(folder: Path, index: str, present: list[str], configs: dict[str, Any]) -> Folder:
    content = read_json(folder / index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise Refused(f"its {index} names no files of tensors")
    names: dict[str, set[str]] = {}
    for tensor, file in places.items():
        if file in (".", "..") or "/" in file or "\\" in file:
            raise Refused(f"its {index} names {file!r}, which is not a file of this folder")
        names.setdefault(file, set()).add(tensor)
    if missing := [file for file in names if file not in present]:
        raise Refused(f"{', '.join(missing[:3])} is missing, which its {index} names; download it too")
    return Folder([folder / file for file in names], names, configs)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        Refused: If it is none, or very long.
    """
    if not path.is_file() or path.stat().st_size > _LONGEST_JSON:
        raise Refused(f"its {path.name} is no file of at most {_LONGEST_JSON} bytes")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise Refused(f"its {path.name} is no JSON") from None
