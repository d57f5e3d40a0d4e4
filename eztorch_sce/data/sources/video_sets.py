"""Data sets of videos whose parts and labels the publisher lists: UCF101, HMDB51, Kinetics, Something-Something v2."""

import csv
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from eztorch_sce.data.media import VIDEO_SUFFIXES
from eztorch_sce.data.sources.manifest import Manifest, from_list, shorten, unknown_classes, walk
from eztorch_sce.data.sources.media_table import find_table
from eztorch_sce.data.sources.splits import (
    Entry,
    Places,
    Splits,
    collect,
    keep_listed_classes,
    lines_of,
    matching_lines,
    on_disk,
    open_auto,
    part_folders,
)
from eztorch_sce.errors import ConfigError

_SSV2_PARTS = ("labels", "train", "validation")


def open_ucf101(places: Places) -> Splits:
    """Open UCF101 by classInd.txt and the lists of one of its three splits."""
    lists = [f"{part}list{places.split:02d}.txt" for part in ("train", "test")]
    folder = _annotations(places, ["classInd.txt", *lists], "ucfTrainTestlist")
    classes = [name for (name,) in matching_lines(folder / "classInd.txt", r"\d+\s+(.+)")]  # 1 ApplyEyeMakeup

    def entries(name: str) -> list[Entry]:  # ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1
        matches = matching_lines(folder / name, r"(?:.*/)?([^/]+)/([^/\s]+)(?:\s+\d+)?")
        return [Entry((_stem(file),), action) for action, file in matches]

    return _published(places, f"split {places.split} in {folder}", entries(lists[0]), entries(lists[1]), classes)


def open_hmdb51(places: Places) -> Splits:
    """Open HMDB51 by the lists of its actions for one of its three splits."""
    ending = f"_test_split{places.split}.txt"
    folder = _annotations(places, [f"*{ending}"], "testTrainMulti_7030_splits")
    files = {file.name.removesuffix(ending): file for file in folder.glob(f"*{ending}")}
    parts: dict[str, list[Entry]] = {"1": [], "2": [], "0": []}  # train, test, not used
    for action in sorted(files):
        for file, part in matching_lines(files[action], r"(.+?)\s+([012])"):
            parts[part].append(Entry((_stem(file),), action))
    return _published(places, f"split {places.split} in {folder}", parts["1"], parts["2"], sorted(files))


def open_ssv2(places: Places) -> Splits:
    """Open Something-Something v2 by its JSON files; the validation part is the test part, as published tables do.

    The files are called something-something-v2-train.json as first published, or train.json.
    """
    files = _ssv2_files(places)
    by_number = {int(number): name for name, number in _read_json(files["labels"], dict).items()}
    classes = [by_number[number] for number in sorted(by_number)]

    def entries(file: Path) -> list[Entry]:  # {"id": "78687", "template": "Holding [something] next to [something]"}
        rows = _read_json(file, list)
        if odd := [str(row) for row in rows if not isinstance(row, dict) or not {"id", "template"} <= row.keys()]:
            raise ConfigError([f"{file}: {len(odd)} entries without id or template: {shorten(odd)}; fetch it again"])
        return [Entry((str(row["id"]),), re.sub(r"[\[\]]", "", row["template"])) for row in rows]

    folder = str(files["train"].parent)
    return _published(places, folder, entries(files["train"]), entries(files["validation"]), classes)


def open_kinetics(places: Places) -> Splits:
    """Open Kinetics by the publisher's CSV files, by lists, or by folders.

    It is never complete: what is listed but not on disk is counted in `Manifest.source`, and only a part without a
    single file is an error. A file as `data.annotations` names the classes to keep, as Kinetics-200 does of
    Kinetics-400; a folder holds the lists.
    """
    if places.annotations and places.annotations.is_file():
        return keep_listed_classes(open_kinetics(places._replace(annotations=None)), places)
    root, folder = places.root or Path(), places.annotations or places.root or Path()
    train_list = places.list or _sole_list(folder, "train")
    test_list = places.test_list or _sole_list(folder, "val")
    if train_list:
        train, test = part_folders(root)
        return collect(
            lambda: _kinetics_part(places, train_list, train or root, None, "data.list"),
            (lambda classes: _kinetics_part(places, test_list, test or root, classes, "data.test_list"))
            if test_list
            else None,
        )
    if places.annotations:
        cure = "set data.list, or give a file that names the classes to keep"
        raise ConfigError([f"data.annotations={folder}: no .csv or .txt with `train` in its name; {cure}"])
    return open_auto(places)


def _kinetics_part(places: Places, file: Path, folder: Path, classes: Sequence[str] | None, setting: str) -> Manifest:
    if not file.is_file() or "youtube_id,time_start,time_end" not in "".join(lines_of(file)[:1]):
        return from_list(file, places.root, classes, setting, missing_ok=True)
    entries = []
    for row in csv.DictReader(lines_of(file)):
        try:
            stem = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}"
        except (TypeError, ValueError):
            raise ConfigError([f"{setting}={file}: time_start and time_end must be whole seconds: {row}"]) from None
        entries.append(Entry((stem, row["youtube_id"]), row.get("label")))
    names = sorted({entry.action for entry in entries if entry.action})
    if problems := unknown_classes(names, classes, f"{setting}={file}"):
        raise ConfigError(problems)
    least = 0 if places.missing_ok else 1
    return on_disk(_locate(folder, entries), entries, classes or names, folder, str(file), least)


def _ssv2_files(places: Places) -> dict[str, Path]:
    root = Path(os.path.abspath(places.root or ""))
    usual = [folder / below for folder in (root, root.parent) for below in ("", "labels", "annotations")]
    folders = [places.annotations] if places.annotations else usual
    for folder in folders:
        for form in ("something-something-v2-{}.json", "{}.json"):
            files = {part: folder / form.format(part) for part in _SSV2_PARTS}
            if all(file.is_file() for file in files.values()):
                return files
    forms = "something-something-v2-{labels,train,validation}.json or {labels,train,validation}.json"
    looked = ", ".join(map(str, folders))
    gone = f"data.annotations={places.annotations}: no {forms} in {looked}"
    raise ConfigError([f"{gone}; set data.annotations to the folder that holds them"])


def _read_json(file: Path, kind: type) -> Any:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError([f"{file}: is not JSON ({error}); fetch it again"]) from error
    if not isinstance(content, kind):
        raise ConfigError([f"{file}: holds a {type(content).__name__}, the publisher's a {kind.__name__}"])
    return content


def _published(places: Places, where: str, train: list[Entry], test: list[Entry], classes: Sequence[str]) -> Splits:
    """Find the files of a published split anywhere below the root: their names are unique in the data set."""
    root = places.root or Path()
    found = _locate(root, [*train, *test])
    least_train, least_test = (0 if places.missing_ok else max(1, len(entries)) for entries in (train, test))
    return collect(
        lambda: on_disk(found, train, classes, root, f"train part of {where}", least_train),
        lambda _: on_disk(found, test, classes, root, f"test part of {where}", least_test),
    )


def _locate(root: Path, entries: Iterable[Entry]) -> dict[str, tuple[str, str]]:
    """Return (path, kind) by name without suffix; of several the first on the way down, files before frame folders."""
    if not root.is_dir():
        raise ConfigError([f"data.root={root}: there is no such folder"])
    wanted = {name for entry in entries for name in entry.names}
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


def _sole_list(folder: Path, part: str) -> Path | None:
    """Return the list file with `part` in its name, if there is one."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [file for file in files if part in file.name.lower() and file.suffix.lower() in (".csv", ".txt")]
    if len(files) > 1:
        setting = "data.list" if part == "train" else "data.test_list"
        raise ConfigError([f"{folder} holds several {part} lists: {shorten([f.name for f in files])}; set {setting}"])
    return files[0] if files else None


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in VIDEO_SUFFIXES else name
