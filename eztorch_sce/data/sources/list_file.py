"""List files: the paths, and possibly labels, of one split. No media file is opened."""

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.data.media import IMAGE_SUFFIXES, MEDIA_SUFFIXES, VIDEO_SUFFIXES, suffix_of
from eztorch_sce.data.sources.folder import list_folder
from eztorch_sce.data.sources.manifest import Manifest, source_with_missing, unknown_classes
from eztorch_sce.data.sources.records import Records
from eztorch_sce.errors import ConfigError, first_messages, shorten
from eztorch_sce.types import MediaRecord

_NUMBER = re.compile(r"[-+]?[\d.]+")


def from_list(
    list_file: Path,
    root: Path | None = None,
    train: Manifest | None = None,
    setting: str = "data.list",
    missing_ok: bool = False,
) -> Manifest:
    """Return the records of a list of paths, with or without labels.

    The list is either a CSV file whose header has `path` and possibly `label` (a number or a name) and `class` (a
    name), or lines of the form `path label`, `path,label` or `path`. A path to a folder is a video stored as frames. If
    a video does not exist, its name is tried with other video suffixes, and as a folder of frames.

    Args:
        list_file: The list.
        root: Folder that the paths are relative to; the folder of the list if None.
        train: The train split, if this is another split: no other classes are allowed.
        setting: The setting that error messages name.
        missing_ok: Leave out files that do not exist, and count them in `source`, as long as any file exists.

    Raises:
        ConfigError: With every missing file and every missing or unknown label.
    """
    list_file = Path(os.path.abspath(os.path.expanduser(list_file)))
    where = f"{setting}={list_file}"
    if not list_file.is_file():
        raise ConfigError([f"{where} does not exist"])
    rows = _read_rows(list_file)
    labels, classes, messages = _label(rows, train.classes if train else None, where)
    base = Path(os.path.abspath(os.path.expanduser(root or list_file.parent)))
    contents: dict[str, dict[str, bool]] = {}
    media = [_find_file(os.path.join(base, row.path), contents) if row.path else None for row in rows]
    absent = [row.path or f"(line {row.line} has no path)" for row, file in zip(rows, media, strict=True) if not file]
    if not rows:
        messages.append(f"{where} lists no files")
    elif absent and not (missing_ok and len(absent) < len(rows)):
        cure = f"paths are relative to {base}; set {setting.replace('list', 'root')} to the folder they start from"
        messages.append(f"{where}: {len(absent)} of {len(rows)} files do not exist: {shorten(absent)}; {cure}")
    if messages:
        raise ConfigError(messages)
    records = [MediaRecord(file[0], label, file[1]) for file, label in zip(media, labels, strict=True) if file]
    absent_labels = [label for file, label in zip(media, labels, strict=True) if not file]
    source = source_with_missing(str(list_file), len(absent), len(rows))
    return Manifest(Records.of(records), classes, source, list(zip(absent, absent_labels, strict=True)))


def text_lines(file: Path) -> list[str]:
    """Return the lines of a text file that are not blank, stripped."""
    text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    return [line.strip() for line in text.split("\n") if line.strip()]


class _Row(NamedTuple):
    """A line of a list. Missing columns are "".

    Attributes:
        line: Line number, from 1.
        path: Text of the column `path`.
        label: Text of the column `label`, a number or a name.
        name: Text of the column `class`.
    """

    line: int
    path: str
    label: str
    name: str


def _read_rows(list_file: Path) -> list[_Row]:
    # File names may be bytes of any encoding; surrogateescape is how Python's file functions represent those.
    with open(list_file, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header = file.readline()
        delimiter = next((mark for mark in ",;\t" if mark in header), ",")
        columns = [cell.strip().strip('"').lower() for cell in header.split(delimiter)]
        rows = []
        if "path" in columns:
            reader = csv.reader(file, delimiter=delimiter)
            for cells in reader:
                if cells:
                    values = dict(zip(columns, map(str.strip, cells), strict=False))
                    label, name = values.get("label", ""), values.get("class", "")
                    rows.append(_Row(reader.line_num + 1, values.get("path", ""), label, name))
            return rows
        file.seek(0)
        for number, line in enumerate(file.read().lstrip("\ufeff").split("\n"), start=1):
            if line.strip():
                path, label = _path_and_label(line.strip())
                rows.append(_Row(number, path, label, ""))
        return rows


def _path_and_label(line: str) -> tuple[str, str]:
    """Split a line of a list without a header: a line that ends in a media suffix is a path without a label."""
    if suffix_of(line) in MEDIA_SUFFIXES:
        return line.strip('"'), ""
    match = re.fullmatch(r"(.*?)[\s,]+([-+]?[\d.]+)", line) or re.fullmatch(r"(.*),\s*([^,]*)", line)
    match = match or re.fullmatch(r"(.*)\s+(\S+)", line)
    return (match[1].strip().strip('"'), match[2].strip().strip('"')) if match else (line.strip('"'), "")


def _label(
    rows: list[_Row], train_classes: Sequence[str] | None, where: str
) -> tuple[list[int | None], list[str], list[str]]:
    """Return the label of each row, the class names (`train_classes` if set) and the error messages."""
    if not any(row.label or row.name for row in rows):
        return [None] * len(rows), [], []
    names, classes, messages = _name_classes(rows, where)
    if train_classes:
        classes = list(train_classes)
        if not any(name.isdecimal() for name in classes):  # a number is then an index into the train classes
            by_index = {str(index): name for index, name in enumerate(classes)}
            names = [name if row.name else by_index.get(name, name) for row, name in zip(rows, names, strict=False)]
        messages += unknown_classes(names, classes, where)
    if messages:
        return [], classes, first_messages(messages)
    label_of = {name: label for label, name in enumerate(classes)}
    return [label_of[name] for name in names], classes, []


def _name_classes(rows: list[_Row], where: str) -> tuple[list[str], list[str], list[str]]:
    """Return the class name of each row, the classes in the order of their numbers or names, and error messages."""
    is_numeric = bool(_NUMBER.fullmatch(next((row.label for row in rows if row.label), "")))
    names: list[str] = []
    messages: list[str] = []
    name_of_number: dict[int, str] = {}
    for row in rows:
        label, line = row.label, f"{where}, line {row.line}"
        if not label and (is_numeric or not row.name):
            messages.append(f"{line}: {row.path} has no label, but other lines do; label all lines or none")
        elif label and is_numeric and not label.isdecimal():
            messages.append(f"{line}: label {label!r} must be a whole number (0, 1, 2, ...), as on the first lines")
        elif label and not is_numeric and _NUMBER.fullmatch(label):
            cure = "put names that are numbers into a column `class`"
            messages.append(f"{line}: label {label!r} must be a name, as on the first lines; {cure}")
        elif label and is_numeric:
            name = name_of_number.setdefault(int(label), row.name or str(int(label)))
            if row.name and row.name != name:
                messages.append(f"{line}: label {label} is {row.name!r} here but {name!r} on an earlier line")
            names.append(name)
        else:
            names.append(row.name or label)
    classes = [name for _, name in sorted(name_of_number.items())] if is_numeric else sorted(set(names))
    if len(set(classes)) < len(classes):
        messages.append(f"{where}: a name in column `class` has several numbers in column `label`")
    return names, classes, messages


def _find_file(path: str, contents: dict[str, dict[str, bool]]) -> tuple[str, str] | None:
    """Return the path and kind of a file, or of the same video with another suffix or as a folder of frames.

    Args:
        path: The listed path.
        contents: Cache of folder listings (name -> whether it is a folder). Querying files one by one takes minutes on
            a network disk.
    """
    folder, name = os.path.split(os.path.normpath(path))
    if folder not in contents:
        subfolders, files = list_folder(folder) if os.path.isdir(folder) else ([], [])
        contents[folder] = dict.fromkeys(files, False) | dict.fromkeys(subfolders, True)
    candidates = [name]
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in VIDEO_SUFFIXES:
        candidates += [stem + other for other in sorted(VIDEO_SUFFIXES)] + [stem]
    for candidate in candidates:
        if candidate in contents[folder]:
            is_folder = contents[folder][candidate]
            kind = "image" if suffix_of(candidate) in IMAGE_SUFFIXES else "video"
            return os.path.join(folder, candidate), "frames" if is_folder else kind
    return None
