"""The parts of a data set, the settings that say where they lie, and the ways that any data set may be opened."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.data.sources.manifest import (
    Manifest,
    from_folder,
    from_list,
    keep_classes,
    shorten,
    source_of,
    unknown_classes,
)
from eztorch_sce.errors import ConfigError
from eztorch_sce.types import MediaRecord

_TEST_FOLDERS = ("val", "valid", "validation", "test")


class Splits(NamedTuple):
    """The training part and, where there is one, the test part; if both have labels, they have the same classes."""

    train: Manifest
    test: Manifest | None


class Entry(NamedTuple):
    """A line of a published list.

    Attributes:
        names: That the file may have, best first; of a video without its suffix.
        action: Its class.
    """

    names: tuple[str, ...]
    action: str | None


class Places(NamedTuple):
    """The settings that say where the data lie; `data.list` and so on.

    Attributes:
        missing_ok: Open what is there, and note what is missing, as `data check` does; else it is an error.
    """

    root: Path | None
    list: Path | None
    test_root: Path | None
    test_list: Path | None
    annotations: Path | None
    split: int
    missing_ok: bool = False


def open_auto(places: Places) -> Splits:
    """Open the list if there is one, else the parts below the root, else the root as training part."""
    if places.list:
        return open_list(places)
    if places.root is None:
        raise ConfigError(["data.root is not set; give data.root=<folder> or data.list=<file>"])
    return open_folder(places, *part_folders(places.root))


def open_folder(places: Places, train_root: Path | None = None, test_root: Path | None = None) -> Splits:
    """Open trees, by default that of `data.root`; `data.test_root` and `data.test_list` come before `test_root`."""
    root = train_root or places.root or Path()
    if not places.test_list:
        places = places._replace(test_root=places.test_root or test_root)
    return _with_test(lambda: from_folder(root), places)


def open_list(places: Places) -> Splits:
    """Open a list file."""
    file = places.list or Path()
    return _with_test(lambda: from_list(file, places.root, missing_ok=places.missing_ok), places)


def _with_test(train: Callable[[], Manifest], places: Places) -> Splits:
    has_test = places.test_root or places.test_list
    return collect(train, (lambda classes: _test_part(places, classes)) if has_test else None)


def _test_part(places: Places, classes: Sequence[str]) -> Manifest:
    if places.test_list:
        root = places.test_root or places.root
        return from_list(places.test_list, root, classes, "data.test_list", missing_ok=places.missing_ok)
    return from_folder(places.test_root or Path(), classes, setting="data.test_root")


def collect(train: Callable[[], Manifest], test: Callable[[Sequence[str]], Manifest] | None) -> Splits:
    """Open both parts, the test part with the classes of the training part, and raise what is wrong with either."""
    problems: list[str] = []
    opened = _attempt(train, problems)
    tested = _attempt(lambda: test(opened.classes if opened else ()), problems) if test else None
    if problems or opened is None:
        raise ConfigError(problems)
    return Splits(opened, tested)


def _attempt(part: Callable[[], Manifest], problems: list[str]) -> Manifest | None:
    try:
        return part()
    except ConfigError as error:
        problems += error.problems
        return None


def on_disk(
    found: dict[str, tuple[str, str]],
    entries: list[Entry],
    classes: Sequence[str],
    root: Path,
    source: str,
    least: int,
) -> Manifest:
    """Make the records of those entries that were found.

    Args:
        found: Path and kind, by name.
        entries: Of the published list.
        classes: All class names, in order.
        root: Where the files were looked for.
        source: What the manifest calls the list.
        least: How many of the files must be there.

    Raises:
        ConfigError: If fewer are, or a class is unknown.
    """
    index = {name: label for label, name in enumerate(classes)}
    if problems := unknown_classes((entry.action for entry in entries if entry.action), classes, source):
        raise ConfigError(problems)
    records: list[MediaRecord] = []
    missing: list[tuple[str, int | None]] = []
    for entry in entries:
        label = index[entry.action] if entry.action else None
        name = next((name for name in entry.names if name in found), None)
        if name is None:
            missing.append((entry.names[0], label))
        else:
            path, kind = found[name]
            records.append(MediaRecord(path, label, kind))
    if len(records) < least:
        names = shorten([name for name, _ in missing])
        gone = f"{len(missing)} of {len(entries)} files are not there (a video may have any suffix): {names}"
        raise ConfigError([f"data.root={root}: {gone} ({source}); set data.root to the folder that holds them"])
    known = list(classes) if any(entry.action for entry in entries) else []
    return Manifest(records, known, source_of(source, len(missing), len(entries)), missing)


def part_folders(root: Path) -> tuple[Path | None, Path | None]:
    """Return the folders of the parts, if `root` has `train` and a test folder, or nothing but `train`."""
    inside = sorted(root.iterdir()) if root.is_dir() else []
    folders = {path.name.lower(): path for path in inside if path.is_dir() and not path.name.startswith(".")}
    test = next((folders[name] for name in _TEST_FOLDERS if name in folders), None)
    is_split = "train" in folders and (test is not None or len(folders) == 1)
    return (folders["train"], test) if is_split else (None, None)


def keep_listed_classes(splits: Splits, places: Places) -> Splits:
    """Keep the classes of the list that `data.annotations` gives, in both parts alike."""
    file = _class_list(places.annotations or Path())
    where = f"data.annotations={file}"
    names = [line.strip('"') for line in lines_of(file)]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError([f"{where}: {len(doubles)} classes are named twice: {shorten(doubles)}; name each once"])
    if not names:
        raise ConfigError([f"{where}: the file names no class; write one a line"])
    train = keep_classes(splits.train, names, where, places.missing_ok)
    return Splits(train, splits.test and keep_classes(splits.test, names, where, places.missing_ok))


def _class_list(path: Path) -> Path:
    """Return the text file, which may be the only one in a folder."""
    files = [path] if path.is_file() else sorted(path.glob("*.txt"))
    if len(files) != 1:
        found = f"holds several: {shorten([file.name for file in files])}" if files else "there is none"
        cure = "give the text file that names the classes, one a line"
        raise ConfigError([f"data.annotations={path}: a text file or a folder with one is needed, {found}; {cure}"])
    return files[0]


def lines_of(file: Path) -> list[str]:
    """Return the lines of a text file that are not blank, without the blanks around them."""
    text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    return [line.strip() for line in text.split("\n") if line.strip()]


def matching_lines(file: Path, form: str) -> list[tuple[str, ...]]:
    """Return what each line of a published list says, by the groups of a regular expression."""
    matches = [(line, re.fullmatch(form, line)) for line in lines_of(file)]
    if odd := [line for line, match in matches if match is None]:
        raise ConfigError([f"{file}: {len(odd)} lines are not as published: {shorten(odd)}; fetch the list again"])
    return [match.groups() for _, match in matches if match]
