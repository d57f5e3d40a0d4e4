"""Folders of the splits of a data set, told by their names."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from eztorch_sce.data.media import MEDIA_SUFFIXES, ignored_as, suffix_of
from eztorch_sce.data.sources.walk import OWN_FILES, is_run_directory, list_if_readable, list_root, walk
from eztorch_sce.errors import ConfigError, shorten, typed

_PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "eval", "evaluation", "dev"),
    "test": ("test", "testing"),
}
_PART_OF = {name: part for part, names in _PARTS.items() for name in names}
_WORDS = re.compile(r"[^a-z]+")

_AS_CLASSES = "data.layout=folder to take every first-level folder as a class"


class SplitFolders(NamedTuple):
    """The folders of the splits in a root.

    Attributes:
        train: Folder of the train split, or None if the root is not divided into splits.
        test: Folder of the test split, or None.
        notes: Sentences about folders that are not used.
        ignored: Number of files beside the folders, as in `Manifest`.
    """

    train: Path | None = None
    test: Path | None = None
    notes: tuple[str, ...] = ()
    ignored: Mapping[str, int] = MappingProxyType({})


def part_of(name: str) -> str | None:
    """Return the part of a data set that a folder name means, "train", "val" or "test", or None.

    >>> part_of("Training"), part_of("valid"), part_of("trainset")
    ('train', 'val', None)
    """
    return _PART_OF.get(name.lower())


def split_folders(root: Path, has_test: bool = False, published: bool = False) -> SplitFolders:
    """Return the folders of the splits if `root` has any.

    Args:
        root: The folder.
        has_test: Whether the test split is set, so that none is needed here.
        published: Whether the root has a known layout: val is then the test split, and other folders are ignored.

    Raises:
        ConfigError: If `root` cannot be listed, or it is ambiguous which folders are the splits.
    """
    if not os.path.isdir(root):
        return SplitFolders()
    subfolders, files = list_root(root, "data.root")
    where = f"data.root={root}"
    parts: dict[str, list[str]] = {}
    for name in subfolders:
        part = part_of(name)
        if part and (part == "train" or _has_media(root / name)):
            parts.setdefault(part, []).append(name)
    if not parts:
        if not published:
            _check_no_similar(subfolders, where)
        return SplitFolders()
    others = [name for name in subfolders if not part_of(name) and _has_media(root / name)]
    messages = _duplicate_parts(parts, root, has_test)
    if "train" not in parts:
        if published:
            return SplitFolders()
        messages.append(_no_train(parts, others, where))
    elif others and not published:
        messages.append(_unknown_parts(parts, others, where))
    if messages:
        raise ConfigError(messages)
    train, (test, notes) = root / parts["train"][0], _test_folder(root, parts, has_test, published)
    beside = Counter(_beside_as(name) for name in files if name not in OWN_FILES)
    return SplitFolders(train, test, tuple(notes), dict(beside))


def check_not_divided(root: str, folders: Sequence[str], setting: str, classes: Sequence[str]) -> None:
    """Raise ConfigError if the first-level folders, or those inside of one, are the splits of a data set.

    Args:
        root: Absolute path of the folder.
        folders: Absolute paths of the folders below it that hold media.
        setting: The setting that messages name.
        classes: Names of first-level folders that are known to be classes.
    """
    start = len(os.path.join(root, ""))
    inside: dict[str, set[str]] = {}
    for folder in folders:
        levels = folder[start:].split(os.sep)
        for parent, name in zip(("", *levels[:1]), levels[:2], strict=False):
            inside.setdefault(parent, set()).add(name)
    num_folders = len(inside.get("", ()))
    if setting == "data.root":
        inside.pop("", None)  # `split_folders` has looked at the first level
    for parent, names in sorted(inside.items()):
        parts = {part for name in names if (part := part_of(name)) and name not in classes}
        if len(parts) < 2 or "train" not in parts:
            continue
        found = shorten(sorted(name for name in names if part_of(name)))
        place = os.path.join(root, parent) if parent else root
        if parent and num_folders > 1:
            cure = f"name the files of each split in lists, or set {_AS_CLASSES}, all splits together"
        elif setting == "data.root":
            cure = f"set {typed(('data.root', place))} to open them"
        else:
            cure = f"set {setting} to one of them"
        raise ConfigError([f"{setting}={root}: {place} holds the splits {found}; {cure}"])


def _check_no_similar(names: list[str], where: str) -> None:
    """Raise ConfigError if names such as train2017 and val2017 look like splits without being split names."""
    similar = {name: part for name in names if (part := _similar_part(name))}
    are_many = 2 * len(similar) >= len(names)  # among many classes, there may be train_station and test_tube
    if are_many and "train" in similar.values() and len(set(similar.values())) > 1:
        first = {part: name for name, part in reversed(similar.items())}
        test = first.get("val") or first.get("test")
        folder = where.partition("=")[2]
        paths = ("data.root", f"{folder}/{first['train']}"), ("data.test_root", f"{folder}/{test}")
        cure = f"set {typed(*paths)}, or {_AS_CLASSES}"
        if lists := sorted(Path(folder).glob("*train*.csv")):
            cure += f"; if {lists[0].name} has labels, set {typed(('data.list', lists[0]), paths[0])}"
        raise ConfigError([f"{where}: the folders {shorten(list(similar))} look like splits; {cure}"])


def _similar_part(name: str) -> str | None:
    words = _WORDS.split(name.lower())
    return next((part for word in words if (part := part_of(word))), None)


def _duplicate_parts(parts: dict[str, list[str]], root: Path, has_test: bool) -> list[str]:
    messages = []
    for part, names in parts.items():
        if len(names) > 1 and (part == "train" or not has_test):
            setting = "data.root" if part == "train" else "data.test_root"
            choices = " or ".join(typed((setting, root / name)) for name in names)
            messages.append(f"data.root={root} has two names for one split: {', '.join(names)}; set {choices}")
    return messages


def _no_train(parts: dict[str, list[str]], others: list[str], where: str) -> str:
    names = [name for alike in parts.values() for name in alike]
    folder = where.partition("=")[2]
    beside = f", beside {shorten(others)}" if others else ""
    problem = f"{where} has {' and '.join(names)} but no folder train{beside}"
    return f"{problem}; set {typed(('data.root', f'{folder}/{names[0]}'))} to train on it, or {_AS_CLASSES}"


def _unknown_parts(parts: dict[str, list[str]], others: list[str], where: str) -> str:
    names = [name for alike in parts.values() for name in alike]
    folder = where.partition("=")[2]
    problem = f"{where} has {' and '.join(names)}, but also {shorten(others, num=5)}, which is no known split"
    test = next((parts[part][0] for part in ("val", "test") if part in parts), None)
    paths = [("data.root", f"{folder}/{parts['train'][0]}")]
    paths += [("data.test_root", f"{folder}/{test}")] if test else []
    return f"{problem}; set {typed(*paths)} to leave it out, or {_AS_CLASSES}"


def _test_folder(
    root: Path, parts: dict[str, list[str]], has_test: bool, published: bool
) -> tuple[Path | None, list[str]]:
    """Return the folder of the test split, and a note if another one is not used."""
    names = [parts[part][0] for part in ("val", "test") if part in parts]
    if has_test:
        return None, []
    if len(names) < 2:
        return (root / names[0] if names else None), []
    val, test = names
    if published:
        return root / val, [f"test split: {val}; {test} is not used"]
    with_classes = [name for name in names if _has_class_folders(root / name)]
    if len(with_classes) == 1:
        chosen, other = (val, test) if with_classes == [val] else (test, val)
        return root / chosen, [f"test split: {chosen}; {other} is not used, as it has no class folders"]
    cure = f"set {' or '.join(typed(('data.test_root', root / name)) for name in names)}"
    raise ConfigError([f"data.root={root} has two test splits, {val} and {test}; {cure}"])


def _has_class_folders(folder: Path) -> bool:
    return bool(list_if_readable(str(folder))[0])


def _has_media(folder: Path) -> bool:
    if is_run_directory(list_if_readable(str(folder))[1]):
        return False
    return any(suffix_of(name) in MEDIA_SUFFIXES for _, _, files in walk(str(folder)) for name in files)


def _beside_as(name: str) -> str:
    suffix = suffix_of(name)
    return f"{suffix} beside the splits" if suffix in MEDIA_SUFFIXES else ignored_as(suffix)
