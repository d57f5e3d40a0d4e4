"""Folders of videos, images or frame folders. No media file is opened."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from eztorch_sce.data.media import IMAGE_SUFFIXES, MEDIA_SUFFIXES, VIDEO_SUFFIXES, suffix_of
from eztorch_sce.data.sources.manifest import Manifest, class_name, unknown_classes
from eztorch_sce.data.sources.media_table import find_table
from eztorch_sce.data.sources.records import UNLABELED, Records
from eztorch_sce.errors import ConfigError, did_you_mean, shorten

_FRAME_NAME = re.compile(r"((?:frame|image|img|im|f)?[-_]?)(\d+)", re.IGNORECASE)


def from_folder(root: Path, train_classes: Sequence[str] | None = None, setting: str = "data.root") -> Manifest:
    """Return the records of a tree of videos, images or frame folders.

    Hidden files are skipped and links are followed. The first-level folders are the classes, unless a file lies
    directly in `root` or there is only one such folder: then the records are unlabeled.

    Images are the frames of one video per folder if every folder of images lies at least two levels down
    (`<class>/<video>/`), has no sub-folder, and numbers its images without a gap (`00000001.jpg`, `frame_1.png`). A
    tree in which only some folders are like that is ambiguous and raises an error.

    Args:
        root: The folder.
        train_classes: Class names of the train split, if this is another split: no other classes are allowed.
        setting: The setting that error messages name.

    Raises:
        ConfigError: If the folder does not exist or has no media, or a class is unknown.
    """
    root = Path(os.path.abspath(os.path.expanduser(root)))
    check_folder(root, setting)
    records = find_records(root, setting)
    table = find_table(root)
    notes = [] if table is None or not table.mismatch else [table.outdated()]
    start = len(os.path.join(root, ""))
    num_by_folder = records.num_by_folder()
    class_of = [class_name(folder[start:].split(os.sep)[0]) for folder in records.folders()]  # "" for the root
    folders = sorted({name for name, num in zip(class_of, num_by_folder, strict=True) if num and name})
    has_loose_files = any(num and not name for name, num in zip(class_of, num_by_folder, strict=True))
    # A single folder is not a class, unless the train split has a class of that name.
    is_lone_folder = len(folders) == 1 and (train_classes is None or folders[0] not in train_classes)
    if has_loose_files or is_lone_folder:
        return Manifest(records, [], str(root), notes=notes)
    if messages := unknown_classes(folders, train_classes, f"{setting}={root}"):
        raise ConfigError(messages)
    label_of = {name: label for label, name in enumerate(train_classes or folders)}
    labels = np.array([label_of.get(name, UNLABELED) for name in class_of], np.int32)
    return Manifest(records.with_folder_labels(labels), list(label_of), str(root), notes=notes)


def check_folder(folder: Path, setting: str) -> None:
    """Raise ConfigError, with the nearest existing name, unless a folder exists."""
    if folder.is_dir():
        return
    if folder.is_file():
        raise ConfigError([f"{setting}={folder} is a file, not a folder; pass a list file as data.list"])
    siblings = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
    raise ConfigError([f"{setting}={folder} does not exist{did_you_mean(folder.name, siblings)}"])


def find_records(root: Path, setting: str) -> Records:
    """Return the unlabeled records of `find_media`, from the table of `data doctor` if it matches the folder."""
    table = find_table(root)
    if table is not None and len(table.records) and not table.mismatch:
        return table.records
    media = find_media(root, setting)
    return Records.from_columns((path for path, _ in media), [kind for _, kind in media])


def find_media(root: Path, setting: str) -> list[tuple[str, str]]:
    """Return (path, kind) of every video, image or frame folder below `root`, sorted by path.

    Args:
        root: The folder.
        setting: The setting that error messages name.

    Raises:
        ConfigError: If there are no media, or it is ambiguous whether images are frames of videos.
    """
    media: list[tuple[str, str]] = []
    images: dict[str, list[str]] = {}  # names by folder
    frame_folders: set[str] = set()
    suffixes: Counter[str] = Counter()
    for folder, subfolders, files in walk(str(root)):
        by_suffix = [(name, suffix_of(name)) for name in files]
        suffixes.update(suffix or "no suffix" for _, suffix in by_suffix)
        videos = [name for name, suffix in by_suffix if suffix in VIDEO_SUFFIXES]
        media += [(os.path.join(folder, name), "video") for name in videos]
        if names := [name for name, suffix in by_suffix if suffix in IMAGE_SUFFIXES]:
            images[folder] = names
            depth = len(Path(folder).relative_to(root).parts)
            if depth >= 2 and not subfolders and not videos and _is_frame_sequence(names):
                frame_folders.add(folder)
    if any(len(images[folder]) > 1 for folder in frame_folders):
        _check_all_are_frames(images, frame_folders, f"{setting}={root}")
        media += [(folder, "frames") for folder in frame_folders]
    else:
        media += [(os.path.join(folder, name), "image") for folder, names in images.items() for name in names]
    if not media:
        inside = ", ".join(f"{count} x {suffix}" for suffix, count in suffixes.most_common(5)) or "empty folders"
        cure = f"choose another folder; known suffixes are {' '.join(sorted(MEDIA_SUFFIXES))}"
        raise ConfigError([f"{setting}={root} contains no video or image, only {inside}; {cure}"])
    return sorted(media)


def _is_frame_sequence(names: list[str]) -> bool:
    """Return whether image names share one prefix and are numbered n, n + 1, n + 2, ..."""
    matches = [_FRAME_NAME.fullmatch(os.path.splitext(name)[0]) for name in names]
    numbers = sorted(int(match[2]) for match in matches if match)
    prefixes = {match[1] for match in matches if match}
    return None not in matches and len(prefixes) == 1 and numbers == list(range(numbers[0], numbers[0] + len(names)))


def _check_all_are_frames(images: dict[str, list[str]], frame_folders: set[str], where: str) -> None:
    others = sorted(images.keys() - frame_folders)
    if others:
        frames = f"{len(frame_folders)} folders hold the numbered frames of a video ({shorten(sorted(frame_folders))})"
        cure = "name the intended files in a list: data.list=..."
        raise ConfigError([f"{where}: {frames}, but the images in {shorten(others)} are not numbered that way; {cure}"])


def walk(root: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (folder, sub-folder names, file names), sorted, parents first. Callers may shorten the list of sub-folders.

    Links to folders are followed, except to a folder further up. A broken link counts as a file, so that reading it
    raises an error rather than the link being silently dropped here.

    Args:
        root: The folder.
        above: Device and inode of each folder above.
    """
    status = os.stat(root)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    subfolders, files = list_folder(root)
    yield root, subfolders, files
    for name in subfolders:
        yield from walk(os.path.join(root, name), above | {here})


def list_folder(folder: str) -> tuple[list[str], list[str]]:
    """Return the names of the sub-folders and of the files in a folder, sorted, without hidden ones."""
    subfolders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            # For a link that points to itself, os.path.isdir returns False where DirEntry.is_dir raises.
            is_folder = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
            (subfolders if is_folder else files).append(entry.name)
    return sorted(subfolders), sorted(files)
