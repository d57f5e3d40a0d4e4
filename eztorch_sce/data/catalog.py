"""How data sets lie on disk: one row per layout, opened as a train and a test part."""

import csv
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.data.manifest import (
    VIDEO_SUFFIXES,
    Manifest,
    check_disjoint,
    from_folder,
    from_list,
    nearest_to,
    shorten,
    source_of,
    unknown_classes,
    walk,
)
from eztorch_sce.data.media_table import find_table
from eztorch_sce.data.shards import from_shards
from eztorch_sce.errors import ConfigError
from eztorch_sce.types import MediaRecord

_TEST = ("test_root", "test_list")
_TEST_FOLDERS = ("val", "valid", "validation", "test")


class Splits(NamedTuple):
    """The training part and, where there is one, the test part; if both have labels, they have the same classes."""

    train: Manifest
    test: Manifest | None


class Places(NamedTuple):
    """The settings that say where the data lie; `data.list` and so on."""

    root: Path | None
    list: Path | None
    test_root: Path | None
    test_list: Path | None
    annotations: Path | None
    split: int


class Layout(NamedTuple):
    """A row of the table: how to open it, the settings it must have, those it may have, and a line for people."""

    open: Callable[[Places], Splits]
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    text: str


def open_splits(
    root: str | None,
    list: str | None,
    test_root: str | None,
    test_list: str | None,
    layout: str,
    annotations: str | None,
    split: int,
) -> Splits:
    """Open a data set.

    Args:
        root: Folder of the data, or what the paths of `list` are relative to.
        list: List file of the training part.
        test_root: Folder of the test part, or what the paths of `test_list` are relative to.
        test_list: List file of the test part.
        layout: A key of `LAYOUTS`.
        annotations: Folder of the publisher's lists, where they do not lie with the data.
        split: Which of the publisher's splits, from 1.

    Raises:
        ConfigError: With all that is wrong: settings, files, classes, files in both parts.
    """
    if layout not in LAYOUTS:
        choices = "; ".join(f"{name}: {row.text}" for name, row in LAYOUTS.items())
        raise ConfigError(
            [f"data.layout={layout}: no such layout{nearest_to(layout, LAYOUTS)}; the layouts are {choices}"]
        )
    row = LAYOUTS[layout]
    given = {"root": root, "list": list, "test_root": test_root, "test_list": test_list, "annotations": annotations}
    paths = {name: Path(os.path.expanduser(path)) if path else None for name, path in given.items()}
    problems = [f"data.{name} is not set; data.layout={layout} needs it" for name in row.needs if not given[name]]
    problems += [
        f"data.{name}={path} means nothing to data.layout={layout}, which reads data.{', data.'.join(row.takes)};"
        f" take it out or choose another layout"
        for name, path in paths.items()
        if path and name not in row.takes
    ]
    if problems:
        raise ConfigError(problems)
    splits = row.open(Places(**paths, split=split))
    if splits.test:
        check_disjoint(splits.train, splits.test)
    return splits


def _auto(places: Places) -> Splits:
    if places.list:
        return _list(places)
    if places.root is None:
        raise ConfigError(["data.root is not set; give data.root=<folder> or data.list=<file>"])
    return _folder(places, *_part_folders(places.root))


def _folder(places: Places, train_root: Path | None = None, test_root: Path | None = None) -> Splits:
    root = train_root or places.root or Path()
    if not places.test_list:
        places = places._replace(test_root=places.test_root or test_root)
    return _both(lambda: from_folder(root), places)


def _list(places: Places) -> Splits:
    file = places.list or Path()
    return _both(lambda: from_list(file, places.root), places)


def _shards(places: Places) -> Splits:
    # Of the two slashes of a URL a Path has kept one.
    root, test_root = (
        re.sub(r"^(\w\w+):/+", r"\1://", str(path)) if path else "" for path in (places.root, places.test_root)
    )
    has_test = bool(test_root)
    return _collect(
        lambda: from_shards(root),
        (lambda classes: from_shards(test_root, classes, setting="data.test_root")) if has_test else None,
    )


def _both(train: Callable[[], Manifest], places: Places) -> Splits:
    has_test = places.test_root or places.test_list
    return _collect(train, (lambda classes: _test_part(places, classes)) if has_test else None)


def _test_part(places: Places, classes: Sequence[str]) -> Manifest:
    if places.test_list:
        return from_list(places.test_list, places.test_root or places.root, classes, setting="data.test_list")
    return from_folder(places.test_root or Path(), classes, setting="data.test_root")


def _ucf101(places: Places) -> Splits:
    lists = [f"{part}list{places.split:02d}.txt" for part in ("train", "test")]
    folder = _annotations(places, ["classInd.txt", *lists], "ucfTrainTestlist")
    classes = [name for (name,) in _matches(folder / "classInd.txt", r"\d+\s+(.+)")]  # 1 ApplyEyeMakeup

    def entries(name: str) -> list[_Entry]:  # ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1
        matches = _matches(folder / name, r"(?:.*/)?([^/]+)/([^/\s]+)(?:\s+\d+)?")
        return [_Entry((_stem(file),), action) for action, file in matches]

    return _published(places, folder, entries(lists[0]), entries(lists[1]), classes)


def _hmdb51(places: Places) -> Splits:
    ending = f"_test_split{places.split}.txt"
    folder = _annotations(places, [f"*{ending}"], "testTrainMulti_7030_splits")
    files = {file.name.removesuffix(ending): file for file in folder.glob(f"*{ending}")}
    parts: dict[str, list[_Entry]] = {"1": [], "2": [], "0": []}  # train, test, not used
    for action in sorted(files):
        for file, part in _matches(files[action], r"(.+?)\s+([012])"):
            parts[part].append(_Entry((_stem(file),), action))
    return _published(places, folder, parts["1"], parts["2"], sorted(files))


def _kinetics(places: Places) -> Splits:
    """Open Kinetics, which is never complete: what is listed but not on disk is counted in `Manifest.source`.

    Only a part without a single file is an error.
    """
    root, folder = places.root or Path(), places.annotations or places.root or Path()
    train_list = places.list or _sole_list(folder, "train")
    test_list = places.test_list or _sole_list(folder, "val")
    if train_list:
        train, test = _part_folders(root)
        return _collect(
            lambda: _kinetics_part(places, train_list, train or root, None, "data.list"),
            (lambda classes: _kinetics_part(places, test_list, test or root, classes, "data.test_list"))
            if test_list
            else None,
        )
    if places.annotations:
        raise ConfigError([f"data.annotations={folder}: no .csv or .txt with `train` in its name; set data.list"])
    return _auto(places)


def _kinetics_part(places: Places, file: Path, folder: Path, classes: Sequence[str] | None, setting: str) -> Manifest:
    if not file.is_file() or "youtube_id,time_start,time_end" not in "".join(_lines(file)[:1]):
        return from_list(file, places.root, classes, setting, missing_ok=True)
    entries = []
    for row in csv.DictReader(_lines(file)):
        try:
            stem = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}"
        except (TypeError, ValueError):
            raise ConfigError([f"{setting}={file}: time_start and time_end must be whole seconds: {row}"]) from None
        entries.append(_Entry((stem, row["youtube_id"]), row.get("label")))
    names = sorted({entry.action for entry in entries if entry.action})
    if problems := unknown_classes(names, classes, f"{setting}={file}"):
        raise ConfigError(problems)
    return _on_disk(_locate(folder, entries), entries, classes or names, folder, str(file), missing_ok=True)


LAYOUTS: dict[str, Layout] = {
    "auto": Layout(_auto, (), ("root", "list", *_TEST), "data.list if set, else root/train and root/val, else root"),
    "folder": Layout(_folder, ("root",), ("root", *_TEST), "any tree, first-level folders are classes"),
    "shards": Layout(_shards, ("root",), ("root", "test_root"), "WebDataset tar files: a folder, glob, range or URL"),
    "list": Layout(_list, ("list",), ("root", "list", *_TEST), "a file of paths and labels"),
    "ucf101": Layout(_ucf101, ("root",), ("root", "annotations"), "UCF101 with classInd.txt, trainlist0N, testlist0N"),
    "hmdb51": Layout(_hmdb51, ("root",), ("root", "annotations"), "HMDB51 with <action>_test_splitN.txt"),
    "kinetics": Layout(
        _kinetics, ("root",), ("root", "list", "test_list", "annotations"), "root/train and root/val, or published csv"
    ),
}


class _Entry(NamedTuple):
    """A line of a published list: names that the file may have without its suffix, best first; and its class."""

    stems: tuple[str, ...]
    action: str | None


def _collect(train: Callable[[], Manifest], test: Callable[[Sequence[str]], Manifest] | None) -> Splits:
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


def _published(places: Places, folder: Path, train: list[_Entry], test: list[_Entry], classes: Sequence[str]) -> Splits:
    """Find the files of a published split anywhere below the root: their names are unique in the data set."""
    root = places.root or Path()
    found = _locate(root, [*train, *test])
    return _collect(
        lambda: _on_disk(found, train, classes, root, f"train part of split {places.split} in {folder}"),
        lambda _: _on_disk(found, test, classes, root, f"test part of split {places.split} in {folder}"),
    )


def _locate(root: Path, entries: Iterable[_Entry]) -> dict[str, tuple[str, str]]:
    """Return (path, kind) by name without suffix; of several the first on the way down, files before frame folders."""
    if not root.is_dir():
        raise ConfigError([f"data.root={root}: there is no such folder"])
    wanted = {stem for entry in entries for stem in entry.stems}
    found: dict[str, tuple[str, str]] = {}
    if table := find_table(root):
        for path, kind in zip(table.paths, table.kinds, strict=True):
            if (stem := _stem(os.path.basename(path))) in wanted:
                found.setdefault(stem, (path, kind))
        return found
    for folder, subfolders, files in walk(os.path.abspath(root)):
        frames = [name for name in subfolders if name in wanted]
        subfolders[:] = [name for name in subfolders if name not in wanted]  # a frame folder may hold thousands
        for names, kind in ((files, "video"), (frames, "frames")):
            for name in names:
                stem = _stem(name)
                if stem in wanted and (kind == "frames" or stem != name):
                    found.setdefault(stem, (os.path.join(folder, name), kind))
    return found


def _on_disk(
    found: dict[str, tuple[str, str]],
    entries: list[_Entry],
    classes: Sequence[str],
    root: Path,
    source: str,
    missing_ok: bool = False,
) -> Manifest:
    """Make the records of those entries that were found."""
    index = {name: label for label, name in enumerate(classes)}
    if problems := unknown_classes((entry.action for entry in entries if entry.action), classes, source):
        raise ConfigError(problems)
    records, missing = [], []
    for entry in entries:
        stem = next((stem for stem in entry.stems if stem in found), None)
        if stem is None:
            missing.append(entry.stems[0])
        else:
            path, kind = found[stem]
            records.append(MediaRecord(path, index[entry.action] if entry.action else None, kind))
    if not records or (missing and not missing_ok):
        gone = f"{len(missing)} of {len(entries)} videos are not there, under any suffix: {shorten(missing)}"
        raise ConfigError([f"data.root={root}: {gone} ({source}); set data.root to the folder that holds them"])
    known = list(classes) if records[0].label is not None else []
    return Manifest(records, known, source_of(source, len(missing), len(entries)))


def _annotations(places: Places, patterns: list[str], published_as: str) -> Path:
    """Return the folder of the publisher's lists, after checking that the split is one of the three."""
    if places.split not in (1, 2, 3):
        raise ConfigError([f"data.split={places.split}: the splits are 1, 2 and 3"])
    root = Path(os.path.abspath(places.root or ""))
    usual = [root, root / "annotations", root / published_as, root.parent / published_as]
    folders = [places.annotations] if places.annotations else usual
    for folder in folders:
        if all(any(folder.glob(pattern)) for pattern in patterns):
            return folder
    looked = ", ".join(map(str, folders))
    gone = f"data.annotations={places.annotations}: {', '.join(patterns)} not found in {looked}"
    raise ConfigError([f"{gone}; the lists are published as {published_as}; set data.annotations to their folder"])


def _matches(file: Path, form: str) -> list[tuple[str, ...]]:
    """Return what each line of a published list says, by the groups of a regular expression."""
    matches = [(line, re.fullmatch(form, line)) for line in _lines(file)]
    if odd := [line for line, match in matches if match is None]:
        raise ConfigError([f"{file}: {len(odd)} lines are not as published: {shorten(odd)}; fetch the list again"])
    return [match.groups() for _, match in matches if match]


def _sole_list(folder: Path, part: str) -> Path | None:
    """Return the list file with `part` in its name, if there is one."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [file for file in files if part in file.name.lower() and file.suffix.lower() in (".csv", ".txt")]
    if len(files) > 1:
        setting = "data.list" if part == "train" else "data.test_list"
        raise ConfigError([f"{folder} holds several {part} lists: {shorten([f.name for f in files])}; set {setting}"])
    return files[0] if files else None


def _part_folders(root: Path) -> tuple[Path | None, Path | None]:
    """Return the folders of the parts, if `root` has `train` and a test folder, or nothing but `train`."""
    inside = sorted(root.iterdir()) if root.is_dir() else []
    folders = {path.name.lower(): path for path in inside if path.is_dir() and not path.name.startswith(".")}
    test = next((folders[name] for name in _TEST_FOLDERS if name in folders), None)
    is_split = "train" in folders and (test is not None or len(folders) == 1)
    return (folders["train"], test) if is_split else (None, None)


def _lines(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    return [line.strip() for line in text.split("\n") if line.strip()]


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in VIDEO_SUFFIXES else name
