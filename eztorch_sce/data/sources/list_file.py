"""List files: the paths, and possibly labels and segments, of one split. No media file is opened."""

import os
from collections import Counter
from itertools import compress, repeat
from pathlib import Path

from eztorch_sce.data.media import UNREADABLE_SUFFIXES, suffix_of
from eztorch_sce.data.sources.list_columns import ListColumns, Segment, assign_columns
from eztorch_sce.data.sources.list_labels import ListLabels, read_labels
from eztorch_sce.data.sources.list_table import read_table
from eztorch_sce.data.sources.listed_files import FoundFiles, ListedFiles
from eztorch_sce.data.sources.manifest import Manifest, source_with_missing
from eztorch_sce.data.sources.records import Records
from eztorch_sce.errors import ConfigError, first_messages, shorten, typed


def from_list(
    list_file: Path,
    root: Path | None = None,
    train: Manifest | None = None,
    setting: str = "data.list",
    missing_ok: bool = False,
    group: str | None = None,
) -> Manifest:
    """Return the records of a list of paths, with or without labels.

    The list is text with any common separator, or a Parquet or Arrow file. Columns are recognized by their names:
    `path` (or file, video, image, ...), `label` (a number or a name), `class` (the name of a number), `start` and `end`
    (the seconds of the video to use). Without a header, lines have the form `path label`, `path,label` or `path`. A
    path to a folder is a video stored as frames. `ListedFiles` tells when a file of another name is taken.

    Args:
        list_file: The list.
        root: Folder that the paths are relative to; the folder of the list if None.
        train: The train split, if this is another split: no other classes are allowed.
        setting: The setting that error messages name.
        missing_ok: Leave out files that do not exist, and count them in `source`, as long as any file exists.
        group: Name of the column of groups, if there is one: records of the same group are held out together.

    Raises:
        ConfigError: With every missing or repeated file, every missing or unknown label, and every invalid segment.
    """
    list_file = Path(os.path.abspath(os.path.expanduser(list_file)))
    where = f"{setting}={list_file}"
    _check_is_file(list_file, setting)
    disk = ListedFiles(os.path.abspath(os.path.expanduser(root or list_file.parent)))
    columns = assign_columns(read_table(list_file, where, disk.exists), where, disk.locate, group)
    if not columns.paths:
        raise ConfigError([f"{where} lists no files"])
    files = disk.find_all(columns.paths)
    labels = read_labels(columns, train)
    messages = [
        *labels.messages,
        *_unreadable(columns, files),
        *_segments_of_images(columns, files),
        *_repetitions(columns, files, labels),
    ]
    num_listed = len(columns.paths)
    absent = [row for row, code in enumerate(files.folder_of) if code < 0]
    if absent and not (missing_ok and len(absent) < num_listed):
        messages.append(_missing(columns, absent, disk, setting))
    if messages:
        raise ConfigError(messages)
    names = [columns.paths[row] for row in absent]
    numbers = labels.labels
    missing = [(name, None if numbers is None else numbers[row]) for name, row in zip(names, absent, strict=True)]
    return Manifest(
        _records(columns, files, numbers),
        labels.classes,
        source_with_missing(str(list_file), len(absent), num_listed),
        missing,
        notes=[*columns.notes, *files.notes(columns.paths, where), *labels.notes],
        ignored=columns.ignored,
        numbers=labels.numbers,
    )


def _records(columns: ListColumns, files: FoundFiles, labels: list[int] | None) -> Records:
    """Return the records of the files that exist."""
    present = [code >= 0 for code in files.folder_of]
    return Records.from_names(
        files.folders,
        list(compress(files.folder_of, present)),
        list(compress(files.names, present)),
        list(compress(files.kinds, present)),
        None if labels is None else list(compress(labels, present)),
        None if columns.segments is None else list(compress(columns.segments, present)),
        None if columns.groups is None else list(compress(columns.groups, present)),
    )


def _check_is_file(list_file: Path, setting: str) -> None:
    if not list_file.is_file():
        problem = f"is a folder; pass it as {_root_of(setting)}" if list_file.is_dir() else "does not exist"
        raise ConfigError([f"{setting}={list_file} {problem}"])


def _root_of(setting: str) -> str:
    """Return the setting of the folder that listed paths are relative to."""
    return setting.replace("list", "root") if setting.startswith("data.") else "FOLDER"


def _missing(columns: ListColumns, absent: list[int], disk: ListedFiles, setting: str) -> str:
    """Return the message about files that do not exist, with what is near the first ones."""
    names: list[str] = []
    for row in absent:
        path = columns.paths[row]
        near = disk.hint(path) if path and len(names) < 3 else ""
        names.append(path + near if path else f"({columns.unit} {columns.lines[row]} has no path)")
    root = _root_of(setting)
    cure = f"paths are relative to {disk.base}; set {root} to the folder they start from"
    if any("://" in columns.paths[row] for row in absent):
        cure = "lists name local files: download them, or read remote tar shards with data.layout=shards"
        names = [columns.paths[row] for row in absent]
    if all(os.path.isabs(columns.paths[row]) for row in absent):
        cure = f"the paths are absolute: correct them, or make them relative and set {root}"
    elif folder := disk.folder_below(columns.paths[absent[0]]):
        cure = f"{columns.paths[absent[0]]} is in {folder}: set {typed((root, folder))}"
    return f"{columns.where}: {len(absent)} of {len(columns.paths)} files do not exist: {shorten(names)}; {cure}"


def _unreadable(columns: ListColumns, files: FoundFiles) -> list[str]:
    """Return a message for each suffix of images that needs a package which is not installed."""
    suffixes = Counter(map(suffix_of, files.names)) if UNREADABLE_SUFFIXES else {}
    return [
        f"{columns.where} names {suffixes[suffix]} {suffix} files, which cannot be read here: run {cure}"
        for suffix, cure in UNREADABLE_SUFFIXES.items()
        if suffix in suffixes
    ]


def _segments_of_images(columns: ListColumns, files: FoundFiles) -> list[str]:
    """Return a message for each image or folder of frames with a start or an end, which only videos have."""
    if columns.segments is None:
        return []
    nouns = {"image": "an image", "frames": "a folder of frames"}
    cure = "leave start and end empty"
    return first_messages(
        [
            f"{columns.line(row)}: {columns.paths[row]} is {nouns[kind]}, which has no time in seconds; {cure}"
            for row, (kind, segment) in enumerate(zip(files.kinds, columns.segments, strict=True))
            if kind in nouns and segment != (None, None)
        ]
    )


def _repetitions(columns: ListColumns, files: FoundFiles, labels: ListLabels) -> list[str]:
    """Return a message for each file that is listed again with the same segment."""
    keys = list(zip(files.folder_of, files.names, columns.segments or repeat(None), strict=False))
    if len(set(keys)) == len(keys):
        return []
    first: dict[tuple[int, str, Segment | None], int] = {}
    messages = []
    for row, key in enumerate(keys):
        if (earlier := first.setdefault(key, row)) == row or files.folder_of[row] < 0:
            continue
        names = ""
        if labels.labels is not None and labels.labels[earlier] != labels.labels[row]:
            pair = [labels.classes[labels.labels[index]] for index in (earlier, row)]
            names = f", with the labels {pair[0]!r} and {pair[1]!r}"
        lines = f"{columns.unit}s {columns.lines[earlier]} and {columns.lines[row]}"
        messages.append(f"{columns.where}, {lines} are the same file: {files.path(row)}{names}; keep one of them")
    return first_messages(messages)
