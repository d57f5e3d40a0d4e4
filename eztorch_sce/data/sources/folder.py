"""Folders of videos, images or frame folders. No media file is opened."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eztorch_sce.data.media import suffix_of
from eztorch_sce.data.sources.manifest import Manifest, class_name, differ_in_case, unknown_classes
from eztorch_sce.data.sources.media_kinds import (
    ANY,
    Listing,
    Media,
    MediaChoice,
    all_media,
    choose_media,
    frames_note,
    shorten_ignored,
)
from eztorch_sce.data.sources.media_table import MediaTable, find_table
from eztorch_sce.data.sources.records import KINDS, UNLABELED, Records
from eztorch_sce.data.sources.split_folders import check_not_divided, part_of
from eztorch_sce.data.sources.walk import list_root
from eztorch_sce.errors import ConfigError, shorten


def from_folder(
    root: Path,
    train_classes: Sequence[str] | None = None,
    setting: str = "data.root",
    choice: MediaChoice = ANY,
    classes: str = "auto",
) -> Manifest:
    """Return the records of a tree of videos, images or frame folders.

    Hidden files and those that other programs leave behind are skipped, and links are followed. The first-level folders
    that hold media are the classes, unless there is only one such folder, or none: then the records are unlabeled.

    Args:
        root: The folder.
        train_classes: Class names of the train split, if this is another split: no other classes are allowed.
        setting: The setting that error messages name.
        choice: What the files are, if that is ambiguous.
        classes: "folders" ignores files beside the class folders, "none" leaves all records unlabeled, and "auto"
            refuses files beside class folders and trees that are divided into splits.

    Raises:
        ConfigError: If the folder does not exist or has no media, what it holds is ambiguous, or a class is unknown.
    """
    root = Path(os.path.abspath(os.path.expanduser(root)))
    subfolders = list(map(class_name, list_root(root, setting)[0]))
    media = find_records(root, setting, choice)
    manifest = Manifest(media.records, [], str(root), notes=media.notes, ignored=media.ignored)
    if classes == "none":
        parts = [name for name in subfolders if part_of(name)]
        return replace(manifest, notes=[*manifest.notes, *([f"read together: {shorten(parts)}"] if parts else [])])
    folders = _class_folders(media.records, str(root), choice)
    occupied = media.records.num_by_folder() > 0
    if classes == "auto":
        used = [folder for folder, num in zip(media.records.folders(), occupied, strict=True) if num]
        check_not_divided(str(root), used, setting, train_classes or ())
    names = sorted({name for name, num in zip(folders, occupied, strict=True) if num and name})
    # A single folder is not a class, unless the train split has a class of that name.
    is_lone = len(names) == 1 and (train_classes is None or names[0] not in train_classes)
    is_loose = np.array([not name for name in folders], bool) & occupied
    if not names or is_lone:
        return replace(manifest, notes=[*manifest.notes, *_unlabeled_note(names, bool(is_loose.any()), subfolders)])
    if is_loose.any():
        manifest = _without_loose(manifest, is_loose, names, f"{setting}={root}", classes)
    where = f"{setting}={root}"
    if messages := [*differ_in_case(names, where), *unknown_classes(names, train_classes, where)]:
        raise ConfigError(messages)
    label_of = {name: label for label, name in enumerate(train_classes or names)}
    labels = np.array([label_of.get(name, UNLABELED) for name in folders], np.int32)
    notes = [*manifest.notes, *_class_notes(names, subfolders, train_classes)]
    return replace(manifest, records=manifest.records.with_folder_labels(labels), classes=list(label_of), notes=notes)


def find_records(root: Path, setting: str, choice: MediaChoice = ANY) -> Media:
    """Return the media below a folder, from the table of `data doctor` if it matches the folder.

    Args:
        root: The folder.
        setting: The setting that error messages name.
        choice: What the files are, if that is ambiguous.

    Raises:
        ConfigError: If there are no media, or what they are is ambiguous.
    """
    table = find_table(root)
    if table is not None and len(table.records) and not table.mismatch:
        media = None if choice.frames_pattern else _from_table(table, root, choice.kind)
        if media:
            return media
    media = choose_media(Listing.of(str(root)), choice, f"{setting}={root}")
    outdated = [table.outdated()] if table is not None and table.mismatch else []
    return media._replace(notes=[*outdated, *media.notes])


def find_media(root: Path, setting: str) -> list[tuple[str, str]]:
    """Return (path, kind) of every video, image or frame folder below `root`, sorted by path, whatever they are.

    Args:
        root: The folder.
        setting: The setting that error messages name.

    Raises:
        ConfigError: If there are none.
    """
    listing = Listing.of(str(root))
    records = all_media(listing, f"{setting}={root}")
    return [(record.path, record.kind) for record in records]


def _from_table(table: MediaTable, root: Path, kind: str | None) -> Media | None:
    """Return the media that a table lists, or None if the folder must be read to know what they are."""
    records = table.records
    counts = records.num_by_kind()
    if "frames" in counts and (kind == "image" or not _are_frames_certain(table, root)):
        return None
    if len(counts) == 1 and kind in (None, *counts):
        notes = [frames_note(len(records))] if kind is None and "frames" in counts else []
        return Media(records, shorten_ignored(table.ignored), notes)
    if kind is None or kind not in counts or (kind == "frames" and "image" in counts):
        return None
    is_kind = records.kind_codes == KINDS.index(kind)
    others = Counter(suffix_of(path) for path in records.where(~is_kind).paths())
    words = {"video": "videos", "image": "images", "frames": "frame folders"}[kind]
    beside = {f"{suffix} beside {words}": num for suffix, num in others.items()}
    return Media(records.where(is_kind), shorten_ignored(table.ignored) | beside, [])


def _are_frames_certain(table: MediaTable, root: Path) -> bool:
    """Return whether the frame folders of a table are the same seen from `root`, and each has a single sequence."""
    is_same_level = table.file.parent == root or part_of(root.name) is not None
    return is_same_level and not table.records.any_name_has("*")


def _class_folders(records: Records, root: str, choice: MediaChoice) -> list[str]:
    """Return the first-level folder of each folder of `records.folders()`, "" for the root itself."""
    start = len(os.path.join(root, ""))
    # With a pattern, a record lies in its own folder of frames, which is no class.
    above = os.path.dirname if choice.frames_pattern else str
    return [class_name(above(folder)[start:].split(os.sep)[0]) for folder in records.folders()]


def _without_loose(
    manifest: Manifest, is_loose: npt.NDArray[np.bool_], names: list[str], where: str, classes: str
) -> Manifest:
    """Leave out the records that lie beside the class folders.

    Raises:
        ConfigError: If `classes` is "auto": it is then unknown whether the folders are classes.
    """
    mask = is_loose[manifest.records.folder_codes]
    loose = [os.path.basename(path) for path in manifest.records.where(mask).paths()]
    if classes == "folders":
        counts = Counter(suffix_of(name) or "frame folders" for name in loose)
        beside = {f"{suffix} beside the class folders": count for suffix, count in counts.items()}
        return replace(manifest, records=manifest.records.where(~mask), ignored=manifest.ignored | beside)
    lie = f"{shorten(loose)} {'lies' if len(loose) == 1 else 'lie'} beside {len(names)} folders ({shorten(names)})"
    cure = (
        "move them into a folder, or set data.layout=folder to take the folders as classes and ignore the rest, or "
        "data.layout=unlabeled to use all files without labels"
    )
    raise ConfigError([f"{where}: {lie}, so it is unclear whether the folders are classes; {cure}"])


def _unlabeled_note(names: list[str], has_loose: bool, subfolders: Sequence[str]) -> list[str]:
    """Return a sentence that says why a single folder is not a class."""
    if not names or has_loose:
        return []
    others = [name for name in subfolders if name != names[0]]
    without = f" (no media in {shorten(others)})" if others else ""
    return [f"no labels: {names[0]} is the only folder{without}"]


def _class_notes(names: list[str], subfolders: Sequence[str], train_classes: Sequence[str] | None) -> list[str]:
    """Return a sentence about first-level folders that hold no media, which are not classes."""
    empty = [name for name in subfolders if name not in names]
    notes = [f"not classes, because they hold no media: {shorten(empty)}"] if empty else []
    if split_names := [name for name in names if part_of(name)]:
        notes.append(f"taken as classes: {shorten(split_names)}")
    return notes
