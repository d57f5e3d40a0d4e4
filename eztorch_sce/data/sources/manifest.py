"""Which videos and images there are, and their labels: from a folder or from a list file, without opening any."""

import csv
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.data.media import IMAGE_SUFFIXES, MEDIA_SUFFIXES, VIDEO_SUFFIXES, suffix_of
from eztorch_sce.data.sources.media_table import find_table
from eztorch_sce.errors import ConfigError, did_you_mean
from eztorch_sce.types import MediaRecord

_FRAME_NAME = re.compile(r"((?:frame|image|img|im|f)?[-_]?)(\d+)", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?[\d.]+")


@dataclass
class Manifest:
    """The records of one part of a data set.

    Attributes:
        records: What is to be read, in a fixed order.
        classes: The name of each label; empty if unlabeled.
        source: Where the records come from, for people.
        missing: Name and label of what a list has and the disk has not; None where no list says what there should be.
    """

    records: list[MediaRecord]
    classes: list[str]
    source: str
    missing: list[tuple[str, int | None]] | None = None


def from_folder(root: Path, classes: Sequence[str] | None = None, setting: str = "data.root") -> Manifest:
    """Read a tree of videos, images or frame folders; hidden files are skipped, links are followed.

    The first-level folders are the classes, unless a file lies directly in `root` or there is but one such folder: then
    nothing has a label. Images are the frames of one video per folder if every folder that holds images lies at
    least two levels down (`<class>/<video>/`), has no sub-folder, and numbers its images without a gap
    (`00000001.jpg`, `frame_1.png`). A tree where only some folders are so is ambiguous, and an error.

    Args:
        root: The folder.
        classes: The class names of the training part; this part may have no others.
        setting: What an error calls `root`.

    Raises:
        ConfigError: If there is no such folder, nothing to read in it, or a class is unknown.
    """
    root = _absolute(root)
    if not root.is_dir():
        cure = "it is a file; a list file goes to data.list" if root.is_file() else "there is no such folder"
        raise ConfigError([f"{setting}={root}: {cure}"])
    media = find_media(root, setting)
    start = len(os.path.join(root, ""))
    parts = [path[start:].split(os.sep) for path, _ in media]
    names = sorted({first for first, *below in parts if below})
    sole_is_known = classes is not None and set(names) <= set(classes)
    if any(len(part) == 1 for part in parts) or (len(names) == 1 and not sole_is_known):
        return Manifest([MediaRecord(path, None, kind) for path, kind in media], [], str(root))
    if problems := unknown_classes(names, classes, f"{setting}={root}"):
        raise ConfigError(problems)
    index = {name: label for label, name in enumerate(classes or names)}
    records = [MediaRecord(path, index[part[0]], kind) for (path, kind), part in zip(media, parts, strict=True)]
    return Manifest(records, list(index), str(root))


def from_list(
    list_file: Path,
    root: Path | None = None,
    classes: Sequence[str] | None = None,
    setting: str = "data.list",
    missing_ok: bool = False,
) -> Manifest:
    """Read a list of paths, with or without labels.

    Either a CSV file whose header names `path` and, as it has them, `label` (number or name) and `class` (name); or
    lines `path label`, `path,label` or `path`. A path that is a folder holds the frames of a video. A video that is not
    there may be there with another suffix, or as a folder of frames.

    Args:
        list_file: The list.
        root: What the paths are relative to; the folder of the list if None.
        classes: The class names of the training part; this part may have no others.
        setting: What an error calls `list_file`.
        missing_ok: Leave out files that are not there, and count them in `source`, as long as there are any.

    Raises:
        ConfigError: If a file is missing, or a label is none or unknown: all such problems at once.
    """
    list_file = _absolute(list_file)
    where = f"{setting}={list_file}"
    if not list_file.is_file():
        raise ConfigError([f"{where}: there is no such file"])
    rows = _read_rows(list_file)
    labels, names, problems = _label(rows, classes, where)
    base = _absolute(root or list_file.parent)
    folders: dict[str, dict[str, bool]] = {}
    found = [_find(os.path.normpath(os.path.join(base, row.path)), folders) if row.path else None for row in rows]
    gone = [row.path or f"(line {row.line} names none)" for row, media in zip(rows, found, strict=True) if not media]
    if not rows:
        problems.append(f"{where}: the file lists nothing")
    elif gone and not (missing_ok and len(gone) < len(rows)):
        problems.append(
            f"{where}: {len(gone)} of {len(rows)} files are not there: {shorten(gone)}; paths are relative to"
            f" {base}; set {setting.replace('list', 'root')} to the folder that they start from"
        )
    if problems:
        raise ConfigError(problems)
    records = [MediaRecord(media[0], label, media[1]) for media, label in zip(found, labels, strict=True) if media]
    unlisted = [label for media, label in zip(found, labels, strict=True) if not media]
    missing = list(zip(gone, unlisted, strict=True))
    return Manifest(records, names, source_of(str(list_file), len(gone), len(rows)), missing)


def holdout(manifest: Manifest, fraction: float, seed: int) -> tuple[Manifest, Manifest]:
    """Split at random into train and test, class by class; what a class gives does not depend on the other classes.

    Every class of two records or more has at least one on each side; a sole record is for training.
    """
    if not 0 < fraction < 1:
        raise ConfigError([f"data.test_fraction={fraction}: a share lies between 0 and 1, for instance 0.2"])
    held: set[int] = set()
    for name, indices in _by_class(manifest).items():
        num_test = min(max(round(fraction * len(indices)), 1), len(indices) - 1)
        held.update(random.Random(f"{seed}/{name}").sample(indices, num_test))
    if not held:
        raise ConfigError([f"data.root={manifest.source}: no class has two files, one to train and one to test with"])
    train = [record for index, record in enumerate(manifest.records) if index not in held]
    test = [record for index, record in enumerate(manifest.records) if index in held]
    return (
        Manifest(train, manifest.classes, f"{manifest.source}, without the share {fraction} held out by seed {seed}"),
        Manifest(test, manifest.classes, f"{manifest.source}, the share {fraction} held out by seed {seed}"),
    )


def draw_share(manifest: Manifest, share: float, seed: int) -> Manifest:
    """Keep a share of each class, drawn at random, at least one record of it; the order stays.

    What a class gives does not depend on the other classes, and a larger share holds what a smaller one of the same
    seed holds.
    """
    drawn: set[int] = set()
    for name, indices in _by_class(manifest).items():
        shuffled = random.Random(f"share {seed}/{name}").sample(indices, len(indices))
        drawn.update(shuffled[: max(round(share * len(indices)), 1)])
    records = [record for index, record in enumerate(manifest.records) if index in drawn]
    source = f"{manifest.source}, the share {share} of each class drawn by seed {seed} ({len(records)} records)"
    return Manifest(records, manifest.classes, source)


def keep_listed(manifest: Manifest, list_file: Path, setting: str = "data.train_subset") -> Manifest:
    """Keep the records that a published subset names: a line is the name of a file, or the end of its path.

    Raises:
        ConfigError: If there is no such list, or a line names no record or several: all such problems at once.
    """
    list_file = _absolute(list_file)
    where = f"{setting}={list_file}"
    if not list_file.is_file():
        raise ConfigError([f"{where}: there is no such file"])
    text = list_file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    names = list(dict.fromkeys(line.strip() for line in text.split("\n") if line.strip()))
    by_name: dict[str, list[str]] = {}
    for record in manifest.records:
        by_name.setdefault(os.path.basename(record.path), []).append(record.path)
    found = [[path for path in by_name.get(os.path.basename(name), ()) if _ends_with(path, name)] for name in names]
    problems = [] if names else [f"{where}: the file lists nothing"]
    if gone := [name for name, paths in zip(names, found, strict=True) if not paths]:
        absent = f"{len(gone)} of {len(names)} names are not in the training part: {shorten(gone)}"
        problems.append(f"{where}: {absent}; it must name files of {manifest.source}")
    if unclear := [name for name, paths in zip(names, found, strict=True) if len(paths) > 1]:
        cure = "write as much of the path before them as tells which is meant"
        problems.append(f"{where}: {len(unclear)} names stand for several files: {shorten(unclear)}; {cure}")
    if problems:
        raise ConfigError(problems)
    kept = {path for paths in found for path in paths}
    records = [record for record in manifest.records if record.path in kept]
    source = f"{manifest.source}, only the {len(records)} records of {list_file}"
    return Manifest(records, manifest.classes, source)


def keep_classes(manifest: Manifest, names: Sequence[str], where: str, missing_ok: bool = False) -> Manifest:
    """Keep the classes that are named; in a name, a space and an underscore are the same.

    Args:
        manifest: With labels.
        names: Of the classes, in any order: the classes keep theirs.
        where: What an error calls the list of names.
        missing_ok: Take a class that the manifest has not for one without records.

    Raises:
        ConfigError: If the manifest has no labels, or not that class.
    """
    if not manifest.classes:
        raise ConfigError([f"{where}: {manifest.source} has no labels, so its classes cannot be chosen"])
    wanted = {name.replace("_", " "): name for name in names}
    there = {name.replace("_", " ") for name in manifest.classes}
    gone = sorted(name for plain, name in wanted.items() if plain not in there)
    if gone and not missing_ok:
        absent = f"{len(gone)} of {len(names)} classes are not in {manifest.source}: {shorten(gone)}"
        raise ConfigError([f"{where}: {absent}; it must name classes of the data set, one a line"])
    kept = [label for label, name in enumerate(manifest.classes) if name.replace("_", " ") in wanted]
    new: dict[int | None, int] = {label: place for place, label in enumerate(kept)}
    records = [record._replace(label=new[record.label]) for record in manifest.records if record.label in new]
    missing: list[tuple[str, int | None]] | None = None
    if manifest.missing is not None:
        missing = [(name, new[label]) for name, label in manifest.missing if label in new]
    source = f"{manifest.source}, only the {len(wanted)} classes of {where}"
    return Manifest(records, [*(manifest.classes[label] for label in kept), *gone], source, missing)


def without_unusable(manifest: Manifest, *folders: Path | None) -> Manifest:
    """Leave out what the doctor's table of any of the folders calls unusable, and count it in `source`."""
    tables = [table for folder in folders if folder and (table := find_table(folder))]
    unusable = {path for table in tables for path, usable in zip(table.paths, table.usable, strict=True) if not usable}
    records = [record for record in manifest.records if record.path not in unusable]
    if len(records) == len(manifest.records):
        return manifest
    left_out = f"{len(manifest.records) - len(records)} of {len(manifest.records)} left out as unusable"
    if not records:
        raise ConfigError([f"{manifest.source}: {left_out} by {tables[0].file}; run `eztorch-sce data doctor` again"])
    return Manifest(records, manifest.classes, f"{manifest.source} ({left_out} by {tables[0].file})")


def check_disjoint(train: Manifest, test: Manifest) -> None:
    """Raise ConfigError if a file is in both parts, under one name or through a linked folder."""
    folders: dict[str, str] = {}

    def real(path: str) -> str:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        return os.path.join(folders[folder], name)

    trained = {real(record.path) for record in train.records}
    if shared := [record.path for record in test.records if real(record.path) in trained]:
        both = f"{len(shared)} files are in train ({train.source}) and in test ({test.source}): {shorten(shared)}"
        raise ConfigError([f"{both}; take them out of one, or point data.test_root or data.test_list elsewhere"])


def walk(root: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (folder, sub-folder names, file names), sorted, parents first; the caller may shorten the sub-folders.

    Links to folders are followed, but not to a folder above (`above`: device and inode). A broken link counts as a
    file: it fails when it is read, and is reported then, rather than vanish here.
    """
    status = os.stat(root)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    subfolders, files = _listing(root)
    yield root, subfolders, files
    for name in subfolders:
        yield from walk(os.path.join(root, name), above | {here})


def _listing(folder: str) -> tuple[list[str], list[str]]:
    subfolders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                # os.path.isdir says no where a link leads round in a circle; DirEntry raises
                is_folder = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
                (subfolders if is_folder else files).append(entry.name)
    return sorted(subfolders), sorted(files)


def find_media(root: Path, setting: str, fresh: bool = False) -> list[tuple[str, str]]:
    """Return (path, kind) of all that can be read below `root`, sorted by path.

    Args:
        root: The folder.
        setting: What an error calls it.
        fresh: Look at the folders even if `data doctor` left a table of what is in them.

    Raises:
        ConfigError: If there is nothing to read, or it is ambiguous.
    """
    table = None if fresh else find_table(root)
    if table is not None and table.paths:
        return list(zip(table.paths, table.kinds, strict=True))
    media: list[tuple[str, str]] = []
    images: dict[str, list[str]] = {}
    numbered: set[str] = set()
    others: Counter[str] = Counter()
    for folder, subfolders, files in walk(str(root)):
        suffixes = [suffix_of(name) for name in files]
        named = list(zip(files, suffixes, strict=True))
        videos = [os.path.join(folder, name) for name, suffix in named if suffix in VIDEO_SUFFIXES]
        media += [(path, "video") for path in videos]
        others.update(suffix or "no suffix" for suffix in suffixes)
        if names := [name for name, suffix in named if suffix in IMAGE_SUFFIXES]:
            images[folder] = names
            depth = len(Path(folder).relative_to(root).parts)
            if depth >= 2 and not subfolders and not videos and _without_gap(names):
                numbered.add(folder)
    are_frames = any(len(images[folder]) > 1 for folder in numbered)
    if are_frames and (odd := sorted(images.keys() - numbered)):
        frames = f"{len(numbered)} folders hold the numbered frames of a video ({shorten(sorted(numbered))})"
        odd_ones = f"the images in {shorten(odd)} are not numbered so"
        raise ConfigError([f"{setting}={root}: {frames}, but {odd_ones}; list what is meant in a file: data.list=..."])
    if are_frames:
        media += [(folder, "frames") for folder in numbered]
    else:
        media += [(os.path.join(folder, name), "image") for folder, names in images.items() for name in names]
    if not media:
        inside = ", ".join(f"{count} x {suffix}" for suffix, count in others.most_common(5)) or "no file at all"
        known = " ".join(sorted(MEDIA_SUFFIXES))
        raise ConfigError([f"{setting}={root}: no video or image, but {inside}; set another folder; known are {known}"])
    return sorted(media)


def _without_gap(names: list[str]) -> bool:
    """Tell whether images are named by one word and the numbers n, n + 1, n + 2, ..."""
    matches = [_FRAME_NAME.fullmatch(os.path.splitext(name)[0]) for name in names]
    numbers = sorted(int(match[2]) for match in matches if match)
    prefixes = {match[1] for match in matches if match}
    return None not in matches and len(prefixes) == 1 and numbers == list(range(numbers[0], numbers[0] + len(names)))


class _Row(NamedTuple):
    line: int
    path: str
    label: str
    name: str


def _read_rows(list_file: Path) -> list[_Row]:
    # names of files may be bytes of any encoding, and surrogateescape is how Python's file functions spell those
    with open(list_file, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header = file.readline()
        delimiter = next((mark for mark in ",;\t" if mark in header), ",")
        columns = [cell.strip().strip('"').lower() for cell in header.split(delimiter)]
        if "path" in columns:
            reader = csv.reader(file, delimiter=delimiter)
            cells = (
                (reader.line_num + 1, dict(zip(columns, map(str.strip, row), strict=False))) for row in reader if row
            )
            return [_Row(n, row.get("path", ""), row.get("label", ""), row.get("class", "")) for n, row in cells]
        file.seek(0)
        lines = enumerate(file.read().lstrip("\ufeff").split("\n"), start=1)
        return [_Row(number, *_path_and_label(line.strip()), "") for number, line in lines if line.strip()]


def _path_and_label(line: str) -> tuple[str, str]:
    """Take a line without header apart: a number at the end is a label, a media suffix at the end is part of a path."""
    if suffix_of(line) in MEDIA_SUFFIXES:
        return line.strip('"'), ""
    match = re.fullmatch(r"(.*?)[\s,]+([-+]?[\d.]+)", line) or re.fullmatch(r"(.*),\s*([^,]*)", line)
    match = match or re.fullmatch(r"(.*)\s+(\S+)", line)
    return (match[1].strip().strip('"'), match[2].strip().strip('"')) if match else (line.strip('"'), "")


def _label(rows: list[_Row], given: Sequence[str] | None, where: str) -> tuple[list[int | None], list[str], list[str]]:
    """Return the label of each row, the class names (`given`, if there are any) and the problems."""
    if not any(row.label or row.name for row in rows):
        return [None] * len(rows), [], []
    names, classes, problems = _name_classes(rows, where)
    if given:
        classes = list(given)
        if not any(name.isdecimal() for name in classes):  # then a number is a place in the training part's classes
            by_place = {str(place): name for place, name in enumerate(classes)}
            names = [name if row.name else by_place.get(name, name) for row, name in zip(rows, names, strict=False)]
        problems += unknown_classes(names, classes, where)
    index = {name: label for label, name in enumerate(classes)}
    return ([] if problems else [index[name] for name in names]), classes, _cut(problems)


def _name_classes(rows: list[_Row], where: str) -> tuple[list[str], list[str], list[str]]:
    """Return the class name of each row, the classes in the order of their numbers or names, and the problems."""
    numeric = bool(_NUMBER.fullmatch(next((row.label for row in rows if row.label), "")))
    names: list[str] = []
    problems: list[str] = []
    name_of_number: dict[int, str] = {}
    for row in rows:
        label, at = row.label, f"{where}, line {row.line}"
        if not label and (numeric or not row.name):
            problems.append(f"{at}: {row.path} has no label, others have; label all lines or none")
        elif label and (not label.isdecimal() if numeric else bool(_NUMBER.fullmatch(label))):
            allowed = (
                "0, 1, 2, ..." if numeric else "a name, as before; for names that are numbers use a column `class`"
            )
            problems.append(f"{at}: label {label!r} must be {allowed}")
        elif label and numeric:
            name = name_of_number.setdefault(int(label), row.name or str(int(label)))
            if row.name and row.name != name:
                problems.append(f"{at}: label {label} is {row.name!r} here and {name!r} before")
            names.append(name)
        else:
            names.append(row.name or label)
    classes = [name for _, name in sorted(name_of_number.items())] if numeric else sorted(set(names))
    if len(set(classes)) < len(classes):
        problems.append(f"{where}: a name in column `class` stands for several numbers in column `label`")
    return names, classes, problems


def unknown_classes(names: Iterable[str], classes: Sequence[str] | None, where: str) -> list[str]:
    """Return a problem for each name that the training part does not have; `classes` None knows every name."""
    problems = []
    for name in sorted(set(names) - set(classes or ())) if classes else []:
        nearest = did_you_mean(name, classes or ())
        problems.append(
            f"{where}: class {name!r} is not in the training part; both parts need the same classes{nearest}"
        )
    return _cut(problems)


def shorten(names: Sequence[str], num: int = 3) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - num} more" if len(names) > num else ""
    return ", ".join(names[:num]) + more


def source_of(listed: str, num_missing: int, num_listed: int) -> str:
    """Return the text for `Manifest.source`, which counts what the list has and the disk has not."""
    return f"{listed} ({num_missing} of {num_listed} are not on disk)" if num_missing else listed


def _find(path: str, folders: dict[str, dict[str, bool]]) -> tuple[str, str] | None:
    """Return path and kind of a file, of its copy with another video suffix, or of the folder of its frames.

    `folders` keeps what was listed (name -> is a folder): asking file by file takes minutes on a network disk.
    """
    folder, name = os.path.split(path)
    if folder not in folders:
        subfolders, files = _listing(folder) if os.path.isdir(folder) else ([], [])
        folders[folder] = dict.fromkeys(files, False) | dict.fromkeys(subfolders, True)
    stem, suffix = os.path.splitext(name)
    others = [*(stem + other for other in sorted(VIDEO_SUFFIXES)), stem] if suffix.lower() in VIDEO_SUFFIXES else []
    for candidate in (name, *others):
        if candidate in folders[folder]:
            kind = "image" if suffix_of(candidate) in IMAGE_SUFFIXES else "video"
            return os.path.join(folder, candidate), "frames" if folders[folder][candidate] else kind
    return None


def _by_class(manifest: Manifest) -> dict[str, list[int]]:
    """Return the places of the records by the name of their class, "" where there is no label."""
    members: dict[str, list[int]] = {}
    for index, record in enumerate(manifest.records):
        members.setdefault("" if record.label is None else manifest.classes[record.label], []).append(index)
    return members


def _ends_with(path: str, end: str) -> bool:
    return os.path.join(os.sep, path).endswith(os.path.join(os.sep, os.path.normpath(end)))


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))


def _cut(problems: list[str], num: int = 10) -> list[str]:
    return problems[:num] + ([f"and {len(problems) - num} more of this kind"] if len(problems) > num else [])
