"""Files that occur more than once in a data set: in both splits, with two labels, or twice in a list."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eztorch_sce.data.sources.groups import merge
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.media_table import MediaTable, find_table
from eztorch_sce.data.sources.real_files import RealFiles, RealFolders, inode_of, locate
from eztorch_sce.data.sources.records import KINDS, Records
from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.errors import ConfigError, counted, shorten
from eztorch_sce.types import MediaRecord


class SameFiles(NamedTuple):
    """Result of a check for files that occur more than once.

    Attributes:
        notes: Remarks for users about repetitions that are allowed.
        numbers: Number of the file of each train record, int64 (N,), equal for records of the same file or content;
            None if all files differ.
    """

    notes: tuple[str, ...]
    numbers: npt.NDArray[np.int64] | None


def check_same_files(
    splits: Splits, folders: Sequence[Path], keep_content: bool = False, published: bool = False
) -> SameFiles:
    """Find files that occur more than once, also through links and hard links, and files of the same content.

    Contents are compared where the table of `data doctor` knows them. Segments of one video are different records; in
    different splits they must not overlap.

    Args:
        splits: The data.
        folders: Folders that may have a table.
        keep_content: Allow files of the same content, and say so.
        published: The lists are their publisher's: files that they repeat are used, and said.

    Raises:
        ConfigError: If a file is in both splits, has two labels, or is twice in a list.
    """
    manifests = [splits.train] if splits.test is None else [splits.train, splits.test]
    files = _Files(manifests, folders)
    errors: dict[_Kind, list[str]] = defaultdict(list)
    notes: dict[_Kind, list[str]] = defaultdict(list)
    for kind, text in files.findings():
        allowed = kind.by_content and (keep_content or published)
        if kind.event == "twice":
            is_list = manifests[kind.split].missing is not None
            allowed = allowed or not is_list or published
        (notes if allowed else errors)[kind].append(text)
    tables = ", ".join(table.dated() for table in files.tables)
    messages = [
        _describe(kind, texts, manifests, is_error=True) + (f" (contents according to {tables})" * kind.by_content)
        for kind, texts in errors.items()
    ]
    if inside := files.inside_frame_folders():
        cure = "list either the folder or its files"
        count = "1 file lies" if len(inside) == 1 else f"{len(inside)} files lie"
        messages.append(f"{count} inside frame folders that are records, too: {shorten(inside)}; {cure}")
    if messages:
        raise ConfigError(messages)
    remarks = [_describe(kind, texts, manifests, is_error=False) for kind, texts in notes.items()]
    return SameFiles(tuple(remarks), files.numbers_of_train())


class _Kind(NamedTuple):
    """Kind of a repetition.

    Attributes:
        event: "across" the splits, with two "labels", or in one split "repeated" or "twice" under different names.
        by_content: Whether these are different files of the same content.
        split: 0 for train, 1 for test.
    """

    event: str
    by_content: bool
    split: int


def _describe(kind: _Kind, texts: list[str], manifests: list[Manifest], is_error: bool) -> str:
    """Return the message about all repetitions of one kind."""
    source = manifests[kind.split].source
    noun, is_one = "content" if kind.by_content else "file", len(texts) == 1
    named = counted(len(texts), noun)
    keep = ", or set data.duplicates=keep" if kind.by_content else ""
    if kind.event == "across":
        subject = (
            f"{named} {'is' if is_one else 'are'} in train ({manifests[0].source}) and in test ({manifests[1].source})"
        )
        cure = f"remove them from one split, or change data.test_root or data.test_list{keep}"
    elif kind.event == "repeated":
        subject, cure = f"{source} has {named} several times", "remove the repetitions"
    elif kind.event == "labels":
        subject, cure = f"{source}: {named} {'has' if is_one else 'have'} two labels", f"keep each in one class{keep}"
    elif is_error:
        subject, cure = f"{source} lists {named} twice", f"remove the repetitions{keep}"
    else:
        subject, cure = f"{source}: {named} {'occurs' if is_one else 'occur'} under several names", ""
    return f"{subject}: {shorten(texts)}" + (f"; {cure}" if is_error else "")


class _Files:
    """The files of the train and the test records, numbered.

    Args:
        manifests: The train split and, if there is one, the test split.
        folders: Folders that may have a table of `data doctor`.
    """

    def __init__(self, manifests: list[Manifest], folders: Sequence[Path]) -> None:
        real_folder = RealFolders()
        self.tables = tables = [table for folder in dict.fromkeys(folders) if (table := find_table(folder))]
        digests = _digests(tables, real_folder)
        current = tuple(os.path.join(real_folder(str(table.file.parent)), "") for table in tables if not table.mismatch)
        self.manifests = manifests
        parts = [manifest.records for manifest in manifests]
        self.chosen = _candidates(parts, tables, {os.path.dirname(path) for path in digests}, real_folder)
        self.located = [
            # Links to one file have the same digest in a table, so folders need not be listed.
            locate(part.take(chosen), real_folder, lambda folder: os.path.join(folder, "").startswith(current))
            for part, chosen in zip(parts, self.chosen, strict=True)
        ]
        known = [_indices_in(files, digests) for files in self.located]
        for files, indices in zip(self.located, known, strict=True):
            files.inodes[indices] = [inode_of(files.path(index)) for index in indices]
        self.files = _merge_hard_links(_number_paths(self.located), self.located)
        self.contents = _merge_contents(self.files, self.located, known, digests)
        self.split_of = np.repeat(np.arange(len(parts)), [len(chosen) for chosen in self.chosen])
        self.index_of = np.concatenate(self.chosen)

    def findings(self) -> Iterator[tuple[_Kind, str]]:
        """Yield the kind and the names of each repetition."""
        for members in _repeated(self.files):
            yield from self._judge(members, by_content=False)
        for members in _repeated(self.contents):
            _, first = np.unique(self.files[members], return_index=True)
            if len(first) > 1:
                yield from self._judge(members[np.sort(first)], by_content=True)

    def inside_frame_folders(self) -> list[str]:
        """Return the files whose folder is itself a record."""
        parts = [manifest.records for manifest in self.manifests]
        if len({kind for part in parts for kind in part.num_by_kind()}) == 1:
            return []
        frames = KINDS.index("frames")
        kinds = [part.kind_codes[chosen] for part, chosen in zip(parts, self.chosen, strict=True)]
        sequences = {
            files.path(index)
            for files, codes in zip(self.located, kinds, strict=True)
            for index in np.flatnonzero(codes == frames).tolist()
        }
        inside: list[str] = []
        for part, chosen, files, codes in zip(parts, self.chosen, self.located, kinds, strict=True):
            is_sequence = np.array([folder in sequences for folder in files.folders], bool)
            rows = np.flatnonzero(is_sequence[files.folder_of] & (codes != frames))
            inside += [part.path(index) for index in chosen[rows].tolist()]
        return inside

    def numbers_of_train(self) -> npt.NDArray[np.int64] | None:
        """Return the number of the file or content of each train record, or None if all of them differ."""
        chosen = self.chosen[0]
        numbers = self.contents[: len(chosen)]
        if not _repeated(numbers):
            return None
        every = np.arange(-len(self.manifests[0].records), 0, dtype=np.int64)  # those that were not compared all differ
        every[chosen] = numbers
        return every

    def _judge(self, members: npt.NDArray[np.int64], by_content: bool) -> Iterator[tuple[_Kind, str]]:
        """Yield what is wrong with records of the same file or content."""
        splits, indices = self.split_of[members].tolist(), self.index_of[members].tolist()
        records = [self.manifests[split].records[index] for split, index in zip(splits, indices, strict=True)]
        train, test = ([record for record, of in zip(records, splits, strict=True) if of == split] for split in (0, 1))
        pair = next(((a, b) for b in test for a in train if _overlap(a, b)), None)
        if pair:
            path, train_path = pair[1].path, pair[0].path
            yield _Kind("across", by_content, 1), path if path == train_path else f"{path} is {train_path}"
        for split, inside in enumerate((train, test)):
            for same in _by_segment(inside):
                first, last = same[0], same[-1]
                other = next((record for record in same if record.label != first.label), None)
                if other is not None:
                    yield (
                        _Kind("labels", by_content, split),
                        f"{self._named(first, split)} and {self._named(other, split)}",
                    )
                elif len(same) > 1:
                    if first.path == last.path:
                        yield _Kind("repeated", by_content, split), first.path
                    else:
                        yield _Kind("twice", by_content, split), f"{first.path} and {last.path}"

    def _named(self, record: MediaRecord, split: int) -> str:
        label = "unlabeled" if record.label is None else self.manifests[split].classes[record.label]
        return f"{record.path} ({label})"


def _overlap(a: MediaRecord, b: MediaRecord) -> bool:
    """Return whether the segments of two records of one video overlap."""
    starts, ends = zip(*((record.start_s or 0, record.end_s or math.inf) for record in (a, b)), strict=True)
    return bool(max(starts) < min(ends))


def _by_segment(records: list[MediaRecord]) -> list[list[MediaRecord]]:
    """Return the records with the same segment, in lists."""
    lists: dict[tuple[float | None, float | None], list[MediaRecord]] = defaultdict(list)
    for record in records:
        lists[record.start_s, record.end_s].append(record)
    return list(lists.values())


def _candidates(
    parts: list[Records], tables: list[MediaTable], with_digests: set[str], real_folder: RealFolders
) -> list[npt.NDArray[np.int64]]:
    """Return the indices of the records of each split that need a comparison.

    A table has each path once, so of its records only those count whose folder is reached in several ways or has files
    with a known content.

    Args:
        parts: The records of each split.
        tables: Tables of `data doctor`.
        with_digests: Real folders of the files whose content is known.
        real_folder: Resolves the links of folders.
    """
    used = [np.flatnonzero(part.num_by_folder()) for part in parts]
    real = [
        [real_folder(folders[code]) for code in codes.tolist()]
        for codes, folders in zip(used, (part.folders() for part in parts), strict=True)
    ]
    num_ways = Counter(folder for folders in real for folder in folders)
    chosen = []
    for part, codes, folders in zip(parts, used, real, strict=True):
        if not any(part.shares_table(table.records) for table in tables):
            chosen.append(np.arange(len(part)))
            continue
        is_chosen = np.zeros(int(codes.max(initial=0)) + 1, bool)
        is_chosen[codes] = [num_ways[folder] > 1 or folder in with_digests for folder in folders]
        any_chosen = is_chosen.any()
        chosen.append(np.flatnonzero(is_chosen[part.folder_codes]) if any_chosen else np.zeros(0, np.int64))
    return chosen


def _digests(tables: list[MediaTable], real_folder: RealFolders) -> dict[str, str]:
    """Return the hashes of the content of files, by their real paths, for contents that occur more than once."""
    digests = {
        os.path.join(real_folder(os.path.dirname(path)), os.path.basename(path)): digest
        for table in tables
        for path, digest in table.digests.items()
    }
    counts = Counter(digests.values())
    return {path: digest for path, digest in digests.items() if counts[digest] > 1}


def _number_paths(located: list[RealFiles]) -> npt.NDArray[np.int64]:
    """Return a number for each file, the same for the same real path."""
    folder_numbers: dict[str, int] = {}
    numbers: dict[tuple[int, bytes], int] = {}
    of_files: list[int] = []
    for files in located:
        folders = np.array([folder_numbers.setdefault(f, len(folder_numbers)) for f in files.folders], np.int64)
        keys = zip(folders[files.folder_of].tolist(), files.names, strict=True)
        of_files += [numbers.setdefault(key, len(numbers)) for key in keys]
    return np.array(of_files, np.int64)


def _merge_hard_links(numbers: npt.NDArray[np.int64], located: list[RealFiles]) -> npt.NDArray[np.int64]:
    """Return the numbers of files, with the same number for hard links. Only equal inodes are looked at."""
    inodes = np.concatenate([files.inodes for files in located])
    starts = np.cumsum([0] + [len(files.names) for files in located])
    first_of: dict[tuple[int, int], int] = {}
    linked = numbers.copy()
    for members in _repeated(np.where(inodes == 0, -1 - np.arange(len(inodes)), inodes)):
        if len(np.unique(numbers[members])) == 1:
            continue
        for member in members.tolist():
            part = int(np.searchsorted(starts, member, side="right")) - 1
            try:
                status = os.stat(located[part].path(member - int(starts[part])))
            except OSError:  # it is gone since the folder was listed: reading it will say so
                continue
            linked[member] = linked[first_of.setdefault((status.st_dev, status.st_ino), member)]
    return merge(numbers, linked) if first_of else numbers


def _indices_in(files: RealFiles, digests: dict[str, str]) -> list[int]:
    """Return the indices of the files whose content is known."""
    names_in: dict[str, set[bytes]] = defaultdict(set)
    for path in digests:
        folder, name = os.path.split(path)
        names_in[folder].add(os.fsencode(name))
    known = [names_in.get(folder, set()) for folder in files.folders]
    if not any(known):
        return []
    keys = zip(files.folder_of.tolist(), files.names, strict=True)
    return [index for index, (folder, name) in enumerate(keys) if name in known[folder]]


def _merge_contents(
    numbers: npt.NDArray[np.int64], located: list[RealFiles], known: list[list[int]], digests: dict[str, str]
) -> npt.NDArray[np.int64]:
    """Return the numbers of files, with the same number for the same content.

    Args:
        numbers: Number of each file.
        located: The files of each split.
        known: Indices of the files of each split whose content is known.
        digests: Hash of the content of files by path.
    """
    first_of: dict[str, int] = {}
    same = numbers.copy()
    start = 0
    for files, indices in zip(located, known, strict=True):
        for index in indices:
            same[start + index] = same[first_of.setdefault(digests[files.path(index)], start + index)]
        start += len(files.names)
    return merge(numbers, same) if first_of else numbers


def _repeated(numbers: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Return the indices of each number that occurs more than once, in the order of their first occurrence."""
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])
    counts = np.diff(starts, append=len(order))
    is_repeated = counts > 1
    spans = zip(starts[is_repeated].tolist(), counts[is_repeated].tolist(), strict=True)
    return sorted((order[start : start + count] for start, count in spans), key=lambda members: int(members[0]))
