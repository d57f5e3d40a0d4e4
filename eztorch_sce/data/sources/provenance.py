"""Provenance of weights: the records that a network was trained on, and those that were held out."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eztorch_sce.data.members import shard_of
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.real_files import RealFiles, RealFolders, locate
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.splits import Draw, Splits

MAX_RECORDS = 2_000_000
"""Records of larger data sets are not remembered: they would take more than 16 MB of a weights file."""

_NUM_PRINTS = 32  # files of each split whose content is remembered
_NUM_READ = 8  # records of each split of a source that are read for the same purpose
_BLOCK = 4096  # bytes at both ends of a file that stand for its content
_NO_KEY = np.int64(-1)  # matches no hash, which are not negative
_NUM_LEVELS = 3  # folders that a moved data set may be opened above or below the one it was trained from


class Match(NamedTuple):
    """What a training did with the records of a manifest.

    Attributes:
        trained: Whether each record was trained on, (N,).
        held_out: Whether each record was held out, (N,).
        num_gone: Number of records that were held out and are not in the manifest.
    """

    trained: npt.NDArray[np.bool_]
    held_out: npt.NDArray[np.bool_]
    num_gone: int


@dataclass
class Provenance:
    """The records that a network was trained on, and those that were held out.

    A record is remembered by a 64-bit hash of its real path below the common folder of all records, and of its segment.
    So a data set that was moved still matches, if the contents of a few of its files confirm that it is the same.

    Attributes:
        source: Origin of the records, for display.
        origin: Origin of the held-out records, for display.
        num_records: Number of records trained on; 0 if it is unknown, as in files of other code bases.
        labeled: Whether their labels were used.
        draw: The draw of the held-out records, or None if the data define them.
        folder: Hash of the real path of the common folder.
        trained: Sorted hashes of the records trained on, int64; None if there were more than `MAX_RECORDS`.
        held_out: Sorted hashes of the records held out, int64; None likewise.
        fingerprints: Hash of the record and of its content for a few of the files, int64 (P, 2).
        earlier: Provenance of the weights that the training started from, or None.
        weights: The setting that gave the weights file, for messages; not stored.
    """

    source: str
    origin: str
    num_records: int
    labeled: bool
    draw: Draw | None
    folder: int
    trained: npt.NDArray[np.int64] | None
    held_out: npt.NDArray[np.int64] | None
    fingerprints: npt.NDArray[np.int64]
    earlier: "Provenance | None" = None
    weights: str = "the weights"

    @classmethod
    def of(cls, splits: Splits, labeled: bool, earlier: "Provenance | None" = None) -> "Provenance":
        """Return the provenance of a network trained on the train split."""
        parts = [splits.train.records] + ([] if splits.test is None else [splits.test.records])
        number = len(splits.train.records)
        nothing = np.zeros((0, 2), np.int64)
        known = cls(splits.train.source, splits.origin, number, labeled, splits.draw, 0, None, None, nothing, earlier)
        if sum(map(len, parts)) > MAX_RECORDS:
            return known
        real_folder = RealFolders()
        located = [locate(part, real_folder) for part in parts]
        folder = _common_folder([name for files in located for name in files.folders])
        keys = [_keys(files, part, _below(files, folder)) for files, part in zip(located, parts, strict=True)]
        prints = [
            (int(key[index]), fingerprint_of(part, files, index))
            for part, files, key in zip(parts, located, keys, strict=True)
            for index in np.argsort(key)[: _NUM_READ if part.has_source else _NUM_PRINTS].tolist()
        ]
        known.folder, known.trained = _hash(os.fsencode(folder)), np.unique(keys[0])
        known.held_out = np.unique(keys[1]) if len(keys) > 1 else np.zeros(0, np.int64)
        known.fingerprints = np.array(prints, np.int64).reshape(-1, 2)
        return known

    @classmethod
    def unrecorded(cls, source: str) -> "Provenance":
        """Return the provenance of a network that other code trained on records that it does not name.

        Args:
            source: Where the network comes from.
        """
        return cls(source, "", 0, False, None, 0, None, None, np.zeros((0, 2), np.int64))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], weights: str) -> "Provenance":
        """Return the provenance that `to_dict` returned.

        Args:
            content: The dictionary.
            weights: The setting that gave the weights file.
        """
        values = dict(content)
        for name in ("trained", "held_out", "fingerprints"):
            values[name] = None if values[name] is None else values[name].numpy()
        values["draw"] = None if values["draw"] is None else Draw(*values["draw"])
        values["earlier"] = None if values["earlier"] is None else cls.from_dict(values["earlier"], weights)
        return cls(**values, weights=weights)

    def to_dict(self) -> dict[str, Any]:
        """Return the provenance in types that a tensor file holds."""
        import torch

        values: dict[str, Any] = dict(vars(self))
        del values["weights"]
        for name in ("trained", "held_out", "fingerprints"):
            values[name] = None if values[name] is None else torch.from_numpy(values[name])
        values["draw"] = None if self.draw is None else tuple(self.draw)
        values["earlier"] = None if self.earlier is None else self.earlier.to_dict()
        return values

    def chain(self) -> Iterator["Provenance"]:
        """Iterate over this provenance and those of the earlier trainings, the latest first."""
        yield self
        if self.earlier is not None:
            yield from self.earlier.chain()

    def match(self, records: Records) -> Match | None:
        """Return what the training did with some records; None if it is unknown.

        It is unknown if it is not recorded, or if records elsewhere have the names of the training but other contents:
        they may be copies in another format, or other data.
        """
        if self.trained is None or self.held_out is None:
            return None
        files = locate(records, RealFolders())
        keys = self._keys_in_place(files, records)
        if keys is None or records.has_source:  # names without folders say little: other data may have the same ones
            keys, num_named = self._keys_moved(files, records) if keys is None else (keys, self._num_named(keys))
            if num_named and self._has_other_content(records, files, keys):
                if 2 * num_named >= len(records):
                    return None
                keys = np.full(len(records), _NO_KEY)
        held_out = np.isin(keys, self.held_out)
        num_gone = len(self.held_out) - len(np.unique(keys[held_out]))
        return Match(np.isin(keys, self.trained), held_out, num_gone)

    def _keys_in_place(self, files: RealFiles, records: Records) -> npt.NDArray[np.int64] | None:
        """Return the hashes of records below the folder of the training, or None if all are elsewhere."""
        found: dict[str, str | None] = {}

        def below(folder: str) -> str | None:
            if folder not in found:
                parent, name = os.path.split(folder)
                if _hash(os.fsencode(folder)) == self.folder:
                    found[folder] = ""
                elif not name or not parent or parent == folder:
                    found[folder] = None
                else:
                    above = below(parent)
                    found[folder] = None if above is None else os.path.join(above, name)
            return found[folder]

        relative = [below(folder) for folder in files.folders]
        return None if all(name is None for name in relative) else _keys(files, records, relative)

    def _keys_moved(self, files: RealFiles, records: Records) -> tuple[npt.NDArray[np.int64], int]:
        """Return the hashes of records as if they had been moved since the training, and how many are remembered."""
        candidates = [_keys(files, records, folders) for folders in _alignments(files)]
        counts = [self._num_named(keys) for keys in candidates]
        return candidates[int(np.argmax(counts))], max(counts)

    def _num_named(self, keys: npt.NDArray[np.int64]) -> int:
        """Return how many of the remembered records have one of these hashes."""
        assert self.trained is not None
        assert self.held_out is not None
        return len(np.intersect1d(keys, np.concatenate([self.trained, self.held_out])))

    def _has_other_content(self, records: Records, files: RealFiles, keys: npt.NDArray[np.int64]) -> bool:
        """Return whether a file no longer has the content that is remembered of it."""
        index_of = {key: index for index, key in enumerate(keys.tolist())}
        prints = [(index_of[key], value) for key, value in self.fingerprints.tolist() if key in index_of]
        num_same = sum(fingerprint_of(records, files, index) == value for index, value in prints)
        return not num_same or num_same < 0.9 * len(prints)


def num_seen(records: Records, provenance: Provenance | None) -> int | None:
    """Return the number of records that a network was trained on, with labels or without; None if it is unknown."""
    if provenance is None:
        return None
    is_seen = np.zeros(len(records), bool)
    for training in provenance.chain():
        match = training.match(records)
        if match is None:
            return None
        is_seen |= match.trained
    return int(is_seen.sum())


def seen_card(records: Records, provenance: Provenance | None) -> dict[str, Any]:
    """Return how many records a network was trained on, with labels or without, for a protocol card.

    Returns:
        "seen" and "test_records", and "reason" if "seen" is None because it is not known.
    """
    card: dict[str, Any] = {"seen": num_seen(records, provenance), "test_records": len(records)}
    if card["seen"] is None:
        card["reason"] = _why_unknown(provenance)
    return card


def _why_unknown(provenance: Provenance | None) -> str:
    if provenance is None:
        return "weights file of an earlier version"
    if any(training.num_records == 0 for training in provenance.chain()):
        return "trained by other code"
    return f"trained on more than {MAX_RECORDS} records, which are not remembered"


def trained_with_labels(manifest: Manifest, provenance: Provenance | None) -> list[str]:
    """Return the paths of the records whose labels a network was trained on, as far as that is known."""
    is_trained = np.zeros(len(manifest.records), bool)
    for training in provenance.chain() if provenance else ():
        if training.labeled and (match := training.match(manifest.records)):
            is_trained |= match.trained
    return [manifest.records.path(index) for index in np.flatnonzero(is_trained).tolist()]


def _keys(files: RealFiles, records: Records, folders: list[str | None]) -> npt.NDArray[np.int64]:
    """Return the hash of each record; records whose folder is None get one that matches nothing.

    Args:
        files: Where the records are.
        records: The records, which may have segments.
        folders: Each folder of `files` as it is remembered.
    """
    starts = [None if name is None else os.path.join(os.fsencode(name.replace(os.sep, "/")), b"") for name in folders]
    segments = [b""] * len(records)
    if records.segments is not None:
        segments = [f"\n{start:.3f} {end:.3f}".encode() for start, end in records.segments.tolist()]
    keys = np.full(len(records), _NO_KEY)
    for index, (code, name, segment) in enumerate(zip(files.folder_of.tolist(), files.names, segments, strict=True)):
        start = starts[code]
        keys[index] = _NO_KEY if start is None else _hash(start + name + segment)
    return keys


def _hash(text: bytes) -> int:
    """Return 63 bits, so that no hash is negative."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def _common_folder(folders: list[str]) -> str:
    """Return the deepest folder that contains all folders, "" if there is none."""
    try:
        return os.path.commonpath(folders)
    except ValueError:  # none, or a mixture of paths and URLs
        return ""


def _below(files: RealFiles, folder: str) -> list[str | None]:
    """Return the path of each folder below another one that contains them all."""
    start = os.path.join(folder, "") if folder else ""
    return [os.path.join(name, "").removeprefix(start).rstrip(os.sep) for name in files.folders]


def _alignments(files: RealFiles) -> Iterator[list[str | None]]:
    """Yield the folders relative to their common folder, to those above it, and without their first components."""
    folder = _common_folder(files.folders)
    relative = _below(files, folder)
    for _ in range(_NUM_LEVELS + 1):
        yield _below(files, folder)
        folder = os.path.dirname(folder)
    parts = [(name or "").split(os.sep) for name in relative]
    for count in range(1, _NUM_LEVELS + 1):
        yield [os.sep.join(names[count:]) if len(names) >= count else None for names in parts]


def fingerprint_of(records: Records, files: RealFiles, index: int) -> int:
    """Return a hash of the content of a record, in memory or in a file; -1 if it cannot be read."""
    if (place := records.place_in_source(index)) is None:
        return _fingerprint(files.path(index))
    source, row = place
    content = source.fingerprint(row, records.path(index))
    return _fingerprint(os.path.realpath(content)) if isinstance(content, str) else content


def _fingerprint(path: str) -> int:
    """Return a hash of the size, beginning and end of a file, or of the names in a folder; -1 if it cannot be read."""
    if shard_of(path):
        return int(path.rpartition("+")[2])  # reading a member may need the network
    try:
        if os.path.isdir(path):
            return _hash(b"/".join(sorted(map(os.fsencode, os.listdir(path)))))
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(_BLOCK)
            file.seek(max(0, size - _BLOCK))
            return _hash(str(size).encode() + start + file.read(_BLOCK))
    except OSError:
        return -1
