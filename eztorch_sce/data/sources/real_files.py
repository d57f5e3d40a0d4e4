"""The files behind records: links are resolved, so that one file under several names is recognized.

No file is opened and, on Linux, none is queried one by one: the listing of a folder says which entries are links, and
gives the inode of each.
"""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eztorch_sce.data.members import shard_of
from eztorch_sce.data.sources.records import Records

SOURCE = "source:"
"""Folder of the records of sources."""


class RealFiles(NamedTuple):
    """Locations of the files of some records, with links resolved.

    Attributes:
        folders: Real path of each folder.
        folder_of: Index into `folders` of each file, int64 (N,).
        names: Name of each file in its folder.
        inodes: Inode of each file, int64 (N,); 0 if it is unknown.
    """

    folders: list[str]
    folder_of: npt.NDArray[np.int64]
    names: list[bytes]
    inodes: npt.NDArray[np.int64]

    def paths(self) -> Iterator[str]:
        """Iterate over the real paths."""
        return (self.path(index) for index in range(len(self.names)))

    def path(self, index: int) -> str:
        """Return the real path of a file."""
        return os.path.join(self.folders[self.folder_of[index]], os.fsdecode(self.names[index]))


class RealFolders:
    """Real paths of folders. Each component of a path is queried once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, folder: str) -> str:
        """Return the real path of a folder, which need not exist."""
        if folder not in self._known:
            parent, name = os.path.split(folder)
            path = os.path.join(self(parent), name) if name and parent else folder
            is_plain = name not in ("", os.curdir, os.pardir) and not os.path.islink(path)
            self._known[folder] = path if is_plain or "://" in folder else os.path.realpath(path)
        return self._known[folder]


def locate(
    records: Records, real_folder: RealFolders, skips_listing: Callable[[str], bool] = lambda folder: False
) -> RealFiles:
    """Return where the files of some records really are.

    Args:
        records: The records.
        real_folder: Resolves the links of folders.
        skips_listing: Whether a real folder need not be listed, because its links and hard links do not matter.
    """
    if records.has_source:
        folders = [os.path.join(SOURCE, folder).rstrip(os.sep) for folder in records.folders()]
        return RealFiles(
            folders, records.folder_codes.astype(np.int64), records.names(), np.zeros(len(records), np.int64)
        )
    if len(records) and shard_of(records.path(0)):
        return _locate_members(records, real_folder)
    texts, codes, names = records.folders(), records.folder_codes, records.names()
    numbers: dict[str, int] = {}
    number_of_code = np.zeros(len(texts), np.int64)
    for code in np.flatnonzero(records.num_by_folder()).tolist():
        number_of_code[code] = numbers.setdefault(real_folder(texts[code]), len(numbers))
    folder_of = number_of_code[codes]
    inodes = np.zeros(len(names), np.int64)
    links: list[tuple[int, str]] = []
    rows = np.argsort(folder_of, kind="stable")
    ends = np.cumsum(np.bincount(folder_of, minlength=len(numbers)))
    for folder, inside in zip(list(numbers), np.split(rows, ends[:-1]), strict=False):
        if skips_listing(folder):
            continue
        listed, linked = _list(folder)
        inodes[inside] = [listed.get(names[row], 0) for row in inside.tolist()]
        if linked:
            linked_rows = [row for row in inside.tolist() if names[row] in linked]
            links += [(row, os.path.join(folder, os.fsdecode(names[row]))) for row in linked_rows]
    for row, path in links:
        folder, name = os.path.split(os.path.realpath(path))
        folder_of[row], names[row] = numbers.setdefault(folder, len(numbers)), os.fsencode(name)
        inodes[row] = inode_of(path)
    return RealFiles(list(numbers), folder_of, names, inodes)


def _locate_members(records: Records, real_folder: RealFolders) -> RealFiles:
    """Return the locations of members of shards, which are named after the real file of their shard."""
    numbers: dict[str, int] = {}
    real_shards: dict[str, tuple[int, bytes]] = {}
    folder_of, names = [], []
    for path in records.paths():
        shard = shard_of(path) or path
        if shard not in real_shards:
            real = shard if "://" in shard else os.path.realpath(shard)
            folder, name = os.path.split(real)
            real_shards[shard] = numbers.setdefault(folder, len(numbers)), os.fsencode(name)
        number, name_of_shard = real_shards[shard]
        folder_of.append(number)
        names.append(name_of_shard + os.fsencode(path[len(shard) :]))
    return RealFiles(list(numbers), np.array(folder_of, np.int64), names, np.zeros(len(names), np.int64))


def _list(folder: str) -> tuple[dict[bytes, int], set[bytes]]:
    """Return the inode of each entry of a folder, and the names of the entries that are links."""
    inodes: dict[bytes, int] = {}
    links: set[bytes] = set()
    try:
        with os.scandir(os.fsencode(folder)) as entries:
            for entry in entries:
                inodes[entry.name] = entry.inode()
                if entry.is_symlink():
                    links.add(entry.name)
    except OSError:  # it cannot be listed, or is no folder: reading its files will say so
        return {}, set()
    return inodes, links


def inode_of(path: str) -> int:
    """Return the inode of a file or of the target of a link, 0 if it cannot be queried."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0
