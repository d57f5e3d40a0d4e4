"""A fingerprint of records: whether a run that goes on reads the same ones as before, wherever they are now."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from eztorch_sce.data.sources.provenance import fingerprint_of
from eztorch_sce.data.sources.real_files import RealFolders, locate
from eztorch_sce.data.sources.records import Records
from eztorch_sce.errors import counted

_NUM_READ = 32  # files whose content is compared, spread over the records
_MOST_CHANGED = 0.1  # fraction of these that may have changed, as when a broken file was replaced


@dataclass
class RecordPrint:
    """What is remembered of the records of a training.

    Attributes:
        count: Number of records.
        names: Hash of their paths below their common folder, and of their segments, in order.
        labels: Hash of their labels; empty if the training does not use them.
        contents: Hash of the content of some files, by their number.
    """

    count: int
    names: str
    labels: str = ""
    contents: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Records, labeled: bool) -> "RecordPrint":
        """Return the fingerprint of records.

        Args:
            records: The records of the train split.
            labeled: Whether the training uses their labels.
        """
        labels = _digest(records.labels.astype("<i4").tobytes()) if labeled else ""
        rows = np.unique(np.linspace(0, len(records) - 1, min(_NUM_READ, len(records))).astype(np.int64))
        sample = records.take(rows)
        files = locate(sample, RealFolders())
        contents = {str(row): fingerprint_of(sample, files, number) for number, row in enumerate(rows.tolist())}
        return cls(len(records), _names(records), labels, contents)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "RecordPrint":
        """Return the fingerprint that `to_dict` returned."""
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """Return the fingerprint in types that JSON holds."""
        return asdict(self)

    def difference(self, now: "RecordPrint") -> str | None:
        """Return how the records of now differ from these, in words; None if they are the same."""
        if now.count != self.count:
            return f"{counted(now.count, 'record')}; the run started with {self.count}"
        if now.names != self.names:
            return f"{counted(now.count, 'record')}, as many as the run started with, but of other names"
        if now.labels != self.labels:
            return f"{counted(now.count, 'record')} of the same names as those of the run, but with other labels"
        if (changed := self.num_changed(now)) > _MOST_CHANGED * len(self.contents):
            files = f"{changed} of {len(self.contents)} compared files"
            return f"{counted(now.count, 'record')} of the same names as those of the run, but other content ({files})"
        return None

    def num_changed(self, now: "RecordPrint") -> int:
        """Return how many of the files that are compared have another content now."""
        return sum(now.contents.get(row) != value for row, value in self.contents.items())


def _names(records: Records) -> str:
    """Return a hash of the paths of records below their common folder, and of their segments."""
    folders = records.folders()
    used = sorted({folders[code] for code in np.unique(records.folder_codes).tolist()})
    try:
        start = os.path.join(os.path.commonpath(used), "") if len(used) else ""
    except ValueError:  # paths and URLs, or names of a source
        start = ""
    below = [os.fsencode(os.path.join(folder, "").removeprefix(start).replace(os.sep, "/")) for folder in folders]
    digest = hashlib.blake2b(digest_size=16)
    for code, name in zip(records.folder_codes.tolist(), records.names(), strict=True):
        digest.update(below[code] + name + b"\n")
    if records.segments is not None:
        digest.update(records.segments.astype("<f8").tobytes())
    return digest.hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
