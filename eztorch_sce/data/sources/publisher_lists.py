"""Publishers' lists of the files of a split and their classes."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.data.sources.manifest import Manifest, class_name, source_with_missing, unknown_classes
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.splits import Location, Splits
from eztorch_sce.data.sources.subsets import keep_classes
from eztorch_sce.data.sources.text import text_lines
from eztorch_sce.errors import ConfigError, shorten
from eztorch_sce.types import MediaRecord


class Entry(NamedTuple):
    """A line of a published list.

    Attributes:
        names: Possible names of the file, preferred first; without a suffix for a video.
        class_name: Its class, or None if the list has no classes.
    """

    names: tuple[str, ...]
    class_name: str | None


class ListedFiles(NamedTuple):
    """The entries of a published list, and the folder searched for its files.

    Attributes:
        entries: Lines of the list.
        classes: All class names, in order.
        root: Folder that was searched.
        source: Name of the list for `Manifest.source` and messages.
        min_files: Number of files that must exist.
    """

    entries: list[Entry]
    classes: Sequence[str]
    root: Path
    source: str
    min_files: int

    def manifest(self, files: dict[str, tuple[str, str]]) -> Manifest:
        """Return the records of the entries whose files exist.

        Args:
            files: Path and kind of each file by name.

        Raises:
            ConfigError: If fewer than `min_files` exist, or a class is unknown.
        """
        listed_classes = {entry.class_name for entry in self.entries if entry.class_name}
        if messages := unknown_classes(listed_classes, self.classes, self.source):
            raise ConfigError(messages)
        label_of = {name: label for label, name in enumerate(self.classes)}
        records: list[MediaRecord] = []
        missing: list[tuple[str, int | None]] = []
        for entry in self.entries:
            label = label_of[entry.class_name] if entry.class_name else None
            name = next((name for name in entry.names if name in files), None)
            if name is None:
                missing.append((entry.names[0], label))
            else:
                path, kind = files[name]
                records.append(MediaRecord(path, label, kind))
        if len(records) < self.min_files:
            names = shorten([name for name, _ in missing])
            absent = f"{len(missing)} of {len(self.entries)} files do not exist (a video may have any suffix): {names}"
            cure = "set data.root to the folder that contains them"
            raise ConfigError([f"data.root={self.root}: {absent} ({self.source}); {cure}"])
        source = source_with_missing(self.source, len(missing), len(self.entries))
        return Manifest(Records.of(records), list(self.classes) if listed_classes else [], source, missing)


def matching_lines(file: Path, pattern: str) -> list[tuple[str, ...]]:
    """Return the groups of a regular expression in each line of a published list.

    Raises:
        ConfigError: If a line does not match.
    """
    matches = [(line, re.fullmatch(pattern, line)) for line in text_lines(file)]
    if malformed := [line for line, match in matches if match is None]:
        lines = shorten(malformed)
        raise ConfigError([f"{file}: lines not in the publisher's format: {lines}; download the list again"])
    return [match.groups() for _, match in matches if match]


def keep_listed_classes(splits: Splits, location: Location) -> Splits:
    """Keep the classes in the text file `data.annotations`, in both splits.

    Raises:
        ConfigError: If there is no such file, or it names no class, a class twice, or an unknown class.
    """
    file = _class_list(location.annotations_path or Path())
    where = f"data.annotations={file}"
    names = [class_name(line.strip('"')) for line in text_lines(file)]
    if not names:
        raise ConfigError([f"{where} names no class; write one per line"])
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError([f"{where}: classes named twice: {shorten(duplicates)}; name each class once"])
    train = keep_classes(splits.train, names, where, location.missing_ok)
    test = keep_classes(splits.test, names, where, location.missing_ok) if splits.test else None
    return Splits(train, test)


def _class_list(path: Path) -> Path:
    """Return the text file, or the only text file in the folder."""
    files = [path] if path.is_file() else sorted(path.glob("*.txt"))
    if len(files) == 1:
        return files[0]
    problem = f"contains several: {shorten([file.name for file in files])}" if files else "contains none"
    cure = "set data.annotations to a text file of class names, one per line"
    raise ConfigError([f"data.annotations={path} must be a text file or a folder with one, but {problem}; {cure}"])
