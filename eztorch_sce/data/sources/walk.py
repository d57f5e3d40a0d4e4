"""Walks through the folders of a data set: what is skipped by name, and what cannot be read."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from eztorch_sce import signals
from eztorch_sce.data.leftovers import skipped_as
from eztorch_sce.data.media import MEDIA_SUFFIXES, suffix_of
from eztorch_sce.errors import ConfigError, did_you_mean

_ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"})

PREPARED_FILE = "prepare.json"
"""File in which `data prepare` records its settings, in the folder of the copies."""
RATES_FILE = "rates.json"
"""File in which `data bench` stores the speeds that `data plan` predicts from."""
OWN_FILES = frozenset({"manifest.arrow", "manifest.parquet", "decoder.json", RATES_FILE, PREPARED_FILE, "unpack.json"})
"""Files written by the `data` commands."""
DOCTOR_FOLDER, PREPARE_FOLDER = ".doctor", ".prepare"
"""Folders of the jobs of `data doctor` and `data prepare`, in the inspected folder and in that of the copies."""
OWN_FOLDERS = frozenset({DOCTOR_FOLDER, PREPARE_FOLDER})

RUNS = "run directories"
"""Why a run directory is left out: it may hold images, such as those of the views that a training used."""
_RUN_FILES = frozenset({"config.yaml", "versions.json"})


def is_run_directory(files: Iterable[str]) -> bool:
    """Return whether a folder with these files is the run directory of a command."""
    return set(files) >= _RUN_FILES


@dataclass
class Skipped:
    """What a walk leaves out.

    Attributes:
        counts: Number of files and folders skipped by name, by the folder they are in and what they are.
        unreadable: Reason by path of each folder that cannot be listed, and of each broken link that may be one.
    """

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    unreadable: dict[str, str] = field(default_factory=dict)


def walk(
    root: str, skipped: Skipped | None = None, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (folder, sub-folder names, file names), sorted, parents first. Callers may shorten the list of sub-folders.

    Links to folders are followed, except to a folder further up. A broken link counts as a file, so that reading it
    raises an error rather than the link being silently dropped here. Folders that cannot be listed are left out, and so
    are run directories below the root.

    Args:
        root: The folder.
        skipped: Counts what is left out.
        above: Device and inode of each folder above.
    """
    signals.poll()
    skipped = Skipped() if skipped is None else skipped
    try:
        status = os.stat(root)
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        subfolders, files = list_folder(root, skipped)
        if above and is_run_directory(files):
            skipped.counts[os.path.dirname(root)][RUNS] += 1
            return
    except OSError as error:
        skipped.unreadable[root] = error.strerror or str(error)
        return
    yield root, subfolders, files
    for name in subfolders:
        yield from walk(os.path.join(root, name), skipped, above | {here})


def list_folder(folder: str, skipped: Skipped | None = None) -> tuple[list[str], list[str]]:
    """Return the names of the sub-folders and of the files in a folder, sorted, without those skipped by name.

    Raises:
        OSError: If the folder cannot be listed.
    """
    subfolders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in OWN_FOLDERS:
                continue
            if reason := skipped_as(entry.name):
                if skipped is not None:
                    skipped.counts[folder][reason] += 1
                continue
            # For a link that points to itself, os.path.isdir returns False where DirEntry.is_dir raises.
            is_link = entry.is_symlink()
            is_folder = os.path.isdir(entry.path) if is_link else entry.is_dir()
            if skipped is not None and is_link and not is_folder and _is_broken(entry.path):
                skipped.unreadable[entry.path] = "broken link"
            else:
                (subfolders if is_folder else files).append(entry.name)
    return sorted(subfolders), sorted(files)


def list_if_readable(folder: str) -> tuple[list[str], list[str]]:
    """Return `list_folder`, or nothing for a folder that does not exist or cannot be listed."""
    try:
        return list_folder(folder)
    except OSError:
        return [], []


def _is_broken(link: str) -> bool:
    """Return whether a link without the suffix of a video or image leads nowhere. Others are records that fail."""
    return suffix_of(link) not in MEDIA_SUFFIXES and not os.path.exists(link)


def list_root(folder: str | Path, setting: str, skipped: Skipped | None = None) -> tuple[list[str], list[str]]:
    """Return `list_folder` of a folder that a setting names.

    Raises:
        ConfigError: If the folder does not exist or cannot be listed; the message suggests the nearest existing name.
    """
    folder = os.path.abspath(folder)
    if os.path.isfile(folder):
        cure = f"pass a list file as {setting.replace('root', 'list')}"
        if suffix_of(folder) in _ARCHIVE_SUFFIXES:
            cure = "unpack it, or set data.layout=shards for WebDataset tar files"
        raise ConfigError([f"{setting}={folder} is a file, not a folder; {cure}"])
    try:
        return list_folder(folder, skipped)
    except FileNotFoundError:
        parent, name = os.path.split(folder)
        siblings = os.listdir(parent) if os.access(parent, os.R_OK) else []
        raise ConfigError([f"{setting}={folder} does not exist{did_you_mean(name, siblings)}"]) from None
    except OSError as error:
        cure = "change its permissions, or choose another folder"
        raise ConfigError([f"{setting}={folder} cannot be listed ({error.strerror}); {cure}"]) from error
