"""Video data sets whose publishers list splits and labels: UCF101, HMDB51, Kinetics, Something-Something v2."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from eztorch_sce.data.media import VIDEO_SUFFIXES
from eztorch_sce.data.sources.list_file import from_list
from eztorch_sce.data.sources.manifest import Manifest, class_name, unknown_classes
from eztorch_sce.data.sources.media_kinds import MediaChoice, choose_kind
from eztorch_sce.data.sources.media_table import find_table
from eztorch_sce.data.sources.publisher_lists import Entry, ListedFiles, keep_listed_classes, matching_lines
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.split_folders import split_folders
from eztorch_sce.data.sources.splits import Location, Splits, open_auto, open_both
from eztorch_sce.data.sources.text import text_lines
from eztorch_sce.data.sources.walk import list_root, walk
from eztorch_sce.errors import ConfigError, shorten

_SSV2_LISTS = ("labels", "train", "validation")


def open_ucf101(location: Location) -> Splits:
    """Open UCF101 with classInd.txt and the lists of one of its three splits."""
    lists = [f"{name}list{location.split:02d}.txt" for name in ("train", "test")]
    folder = _annotations(location, ["classInd.txt", *lists], "ucfTrainTestlist")
    classes = [name for (name,) in matching_lines(folder / "classInd.txt", r"\d+\s+(.+)")]  # 1 ApplyEyeMakeup

    def entries(name: str) -> list[Entry]:  # ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1
        matches = matching_lines(folder / name, r"(?:.*/)?([^/]+)/([^/\s]+)(?:\s+\d+)?")
        return [Entry((_stem(file),), action) for action, file in matches]

    source = f"split {location.split} in {folder}"
    return _open_listed(location, source, entries(lists[0]), entries(lists[1]), classes)


def open_hmdb51(location: Location) -> Splits:
    """Open HMDB51 with the list of each action in one of its three splits."""
    ending = f"_test_split{location.split}.txt"
    folder = _annotations(location, [f"*{ending}"], "testTrainMulti_7030_splits")
    files = {file.name.removesuffix(ending): file for file in folder.glob(f"*{ending}")}
    by_mark: dict[str, list[Entry]] = {"1": [], "2": [], "0": []}  # train, test, unused
    for action in sorted(files):
        for file, mark in matching_lines(files[action], r"(.+?)\s+([012])"):
            by_mark[mark].append(Entry((_stem(file),), action))
    source = f"split {location.split} in {folder}"
    return _open_listed(location, source, by_mark["1"], by_mark["2"], sorted(files))


def open_ssv2(location: Location) -> Splits:
    """Open Something-Something v2 with its JSON files. Its validation split is the test split, as in published tables.

    The files are named something-something-v2-train.json, as first published, or train.json.
    """
    files = _ssv2_files(location)
    by_number = {int(number): name for name, number in _read_json(files["labels"], dict).items()}
    classes = [by_number[number] for number in sorted(by_number)]

    def entries(file: Path) -> list[Entry]:  # {"id": "78687", "template": "Holding [something] next to [something]"}
        rows = _read_json(file, list)
        if malformed := [str(row) for row in rows if not isinstance(row, dict) or not {"id", "template"} <= row.keys()]:
            raise ConfigError([f"{file}: entries without id or template: {shorten(malformed)}; download it again"])
        return [Entry((str(row["id"]),), re.sub(r"[\[\]]", "", row["template"])) for row in rows]

    source = str(files["train"].parent)
    return _open_listed(location, source, entries(files["train"]), entries(files["validation"]), classes)


def open_kinetics(location: Location) -> Splits:
    """Open Kinetics with the publisher's CSV files, with list files, or by folders.

    Copies of Kinetics are never complete: listed files that do not exist are counted in `Manifest.source`, and only a
    split without any file is an error. If `data.annotations` is a file, it names the classes to keep, as Kinetics-200
    does from Kinetics-400; if it is a folder, it contains the lists.
    """
    annotations = location.annotations_path
    if annotations and annotations.is_file():
        return keep_listed_classes(open_kinetics(location._replace(annotations=None)), location)
    folder = annotations or location.folder
    train_list = Path(location.list) if location.list else _sole_list(folder, "train")
    test_list = Path(location.test_list) if location.test_list else _sole_list(folder, "val")
    if train_list:
        train_folder, test_folder, _, _ = split_folders(location.folder, published=True)
        open_train = _kinetics_opener(location, train_list, train_folder, "data.list")
        open_test = _kinetics_opener(location, test_list, test_folder, "data.test_list") if test_list else None
        return open_both(lambda: open_train(Manifest(Records.of(()), [], "")), open_test)
    if annotations:
        cure = "set data.list, or set data.annotations to a text file of the classes to keep"
        raise ConfigError([f"data.annotations={folder} has no .csv or .txt file with `train` in its name; {cure}"])
    return open_auto(location, published=True)


def _kinetics_opener(
    location: Location, file: Path, folder: Path | None, setting: str
) -> Callable[[Manifest], Manifest]:
    """Return a function that opens a split of Kinetics, given the train split, or an empty one to open that."""

    def open_split(train: Manifest) -> Manifest:
        if not file.is_file() or "youtube_id,time_start,time_end" not in "".join(text_lines(file)[:1]):
            root = Path(location.root) if location.root else None
            manifest = from_list(file, root, train, setting, missing_ok=True)
            return choose_kind(manifest, location.choice, f"{setting}={file}")
        entries = _kinetics_entries(file, setting)
        classes = sorted({entry.class_name for entry in entries if entry.class_name})
        if messages := unknown_classes(classes, train.classes, f"{setting}={file}"):
            raise ConfigError(messages)
        root, min_files = folder or location.folder, 0 if location.missing_ok else 1
        listed = ListedFiles(entries, train.classes or classes, root, str(file), min_files)
        return _find_files(location, root, entries).manifest(listed, location.choice, is_train=True)

    return open_split


def _kinetics_entries(file: Path, setting: str) -> list[Entry]:
    entries = []
    for row in csv.DictReader(text_lines(file)):
        try:
            stem = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}"
        except (TypeError, ValueError):
            problem = f"time_start and time_end must be whole seconds, but a line is {row}"
            raise ConfigError([f"{setting}={file}: {problem}; download it again"]) from None
        label = row.get("label")
        entries.append(Entry((stem, row["youtube_id"]), class_name(label) if label else None))
    return entries


def _ssv2_files(location: Location) -> dict[str, Path]:
    root = Path(os.path.abspath(location.folder))
    usual = [folder / below for folder in (root, root.parent) for below in ("", "labels", "annotations")]
    folders = [location.annotations_path] if location.annotations_path else usual
    for folder in folders:
        for form in ("something-something-v2-{}.json", "{}.json"):
            files = {name: folder / form.format(name) for name in _SSV2_LISTS}
            if all(file.is_file() for file in files.values()):
                return files
    forms = "something-something-v2-{labels,train,validation}.json or {labels,train,validation}.json"
    raise _annotations_not_found(location, forms, folders, "")


def _read_json(file: Path, kind: type) -> Any:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError([f"{file} is not JSON ({error}); download it again"]) from error
    if not isinstance(content, kind):
        problem = f"contains a {type(content).__name__}, but the publisher's contains a {kind.__name__}"
        raise ConfigError([f"{file} {problem}; download it again"])
    return content


def _open_listed(
    location: Location, source: str, train: list[Entry], test: list[Entry], classes: Sequence[str]
) -> Splits:
    """Open a published split whose files may lie anywhere below the root, since their names are unique."""
    root = location.folder
    found = _find_files(location, root, [*train, *test])
    min_train, min_test = (0 if location.missing_ok else max(1, len(entries)) for entries in (train, test))
    listed_train = ListedFiles(train, classes, root, f"train split of {source}", min_train)
    listed_test = ListedFiles(test, classes, root, f"test split of {source}", min_test)
    return open_both(
        lambda: found.manifest(listed_train, location.choice, is_train=True),
        lambda _: found.manifest(listed_test, location.choice, is_train=False),
    )


class _Found(NamedTuple):
    """Files of a published list.

    Attributes:
        files: Path and kind by name without suffix.
        ignored: Number of files that are not used, as in `Manifest`.
        notes: As in `Manifest`.
    """

    files: dict[str, tuple[str, str]]
    ignored: dict[str, int]
    notes: list[str]

    def manifest(self, listed: ListedFiles, choice: MediaChoice, is_train: bool) -> Manifest:
        """Return the records of a split. What was ignored belongs to both, and is told with the train split."""
        manifest = choose_kind(listed.manifest(self.files), choice, f"data.root={listed.root}")
        return replace(manifest, ignored=self.ignored, notes=self.notes) if is_train else manifest


def _find_files(location: Location, root: Path, entries: Iterable[Entry]) -> _Found:
    """Find the listed files below a folder: the first of each name from the top down, videos before frame folders."""
    list_root(root, "data.root")
    listed = {name for entry in entries for name in entry.names}
    videos, frames = dict[str, str](), dict[str, str]()
    table = find_table(root)
    is_current = table is not None and len(table.records) > 0 and not table.mismatch
    if table is not None and is_current and not table.records.any_name_has("*"):
        for path, kind in zip(table.paths, table.kinds, strict=True):
            if (stem := _stem(os.path.basename(path))) in listed and kind != "image":
                (videos if kind == "video" else frames).setdefault(stem, path)
    else:
        for folder, subfolders, files in walk(os.path.abspath(root)):
            for name in subfolders:
                if name in listed:
                    frames.setdefault(name, os.path.join(folder, name))
            subfolders[:] = [name for name in subfolders if name not in listed]  # a frame folder may hold thousands
            for name in files:
                stem = _stem(name)
                if stem in listed and stem != name:
                    videos.setdefault(stem, os.path.join(folder, name))
    notes = [table.outdated()] if table is not None and table.mismatch else []
    wanted, num_both = location.choice.wanted, len(videos.keys() & frames.keys())
    if wanted == "frames":
        ignored = {"videos beside frame folders": len(videos)}
    else:
        ignored = {"frame folders beside videos": len(frames) if wanted else num_both}
    found = {name: (path, "frames") for name, path in frames.items() if wanted != "video"}
    found |= {name: (path, "video") for name, path in videos.items() if wanted != "frames"}
    return _Found(found, {what: num for what, num in ignored.items() if num}, notes)


def _annotations(location: Location, patterns: list[str], published_as: str) -> Path:
    """Return the folder of the publisher's lists of one of the three splits."""
    if location.split not in (1, 2, 3):
        raise ConfigError([f"data.split={location.split} must be 1, 2 or 3"])
    root = Path(os.path.abspath(location.folder))
    usual = [root, root / "annotations", root / published_as, root.parent / published_as]
    folders = [location.annotations_path] if location.annotations_path else usual
    for folder in folders:
        if all(any(folder.glob(pattern)) for pattern in patterns):
            return folder
    raise _annotations_not_found(location, ", ".join(patterns), folders, f"; they are published as {published_as}")


def _annotations_not_found(location: Location, names: str, folders: list[Path], hint: str) -> ConfigError:
    setting = f"data.annotations={location.annotations or 'null'}"
    searched = ", ".join(map(str, folders))
    cure = "set data.annotations to the folder that contains them"
    return ConfigError([f"{setting}: {names} not found in {searched}{hint}; {cure}"])


def _sole_list(folder: Path, split: str) -> Path | None:
    """Return the list file with `split` in its name, or None if there is none."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [file for file in files if split in file.name.lower() and file.suffix.lower() in (".csv", ".txt")]
    if len(files) > 1:
        setting = "data.list" if split == "train" else "data.test_list"
        names = shorten([file.name for file in files])
        raise ConfigError([f"{folder} contains several {split} lists: {names}; set {setting} to one of them"])
    return files[0] if files else None


def _stem(name: str) -> str:
    """Return a name without a video suffix."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in VIDEO_SUFFIXES else name
