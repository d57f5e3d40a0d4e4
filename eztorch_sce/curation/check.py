"""What a data set has on disk, beside what its publisher names: files, classes, and what is missing."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from eztorch_sce.data.sources.layouts import open_splits
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.published import published


class Count(NamedTuple):
    """A line of the table.

    Attributes:
        part: "train" or "test".
        of: "files" or "classes".
        asked: As published, else as listed; None where neither is known.
        found: On disk.
    """

    part: str
    of: str
    asked: int | None
    found: int

    @property
    def missing(self) -> int:
        """Return how many are asked and not found."""
        return max(0, (self.asked or 0) - self.found)


class Checked(NamedTuple):
    """What `check` found.

    Attributes:
        counts: The table.
        missing: Every file that a list tells the name of, and every class with too few files.
    """

    counts: list[Count]
    missing: list[str]

    @property
    def complete(self) -> bool:
        """Tell whether nothing is missing, as far as is known."""
        return not self.missing and not any(count.missing for count in self.counts)


def check(
    layout: str,
    root: str | None,
    list: str | None = None,
    test_root: str | None = None,
    test_list: str | None = None,
    annotations: str | None = None,
    split: int = 1,
) -> Checked:
    """Compare a data set with what is published of it; the arguments are those of `open_splits`.

    Raises:
        ConfigError: If it cannot be opened at all: folders, lists, a file in both parts.
    """
    parts = open_splits(root, list, test_root, test_list, layout, annotations, split, missing_ok=True)
    asked = published(layout, split)
    rows = [
        _part("train", parts.train, asked.train, asked.train_each, asked.lists_differ),
        *([_part("test", parts.test, asked.test, asked.test_each, asked.lists_differ)] if parts.test else []),
    ]
    counts = [count for row in rows for count in _count(row, asked.classes)]
    return Checked(counts, [name for row in rows for name in _missing(row)])


class _Part(NamedTuple):
    name: str
    manifest: Manifest
    files: int | None  # as published, else as listed
    each: int | None


def _part(name: str, manifest: Manifest, files: int | None, each: int | None, lists_differ: bool) -> _Part:
    if manifest.missing is not None and (files is None or lists_differ):
        files, each = len(manifest.records) + len(manifest.missing), None
    return _Part(name, manifest, files, each)


def _count(part: _Part, classes: int | None) -> Iterator[Count]:
    name, manifest, files, _ = part
    yield Count(name, "files", files, len(manifest.records))
    if manifest.classes:
        if classes is None and manifest.missing is not None:
            classes = len(manifest.classes)
        yield Count(name, "classes", classes, len({record.label for record in manifest.records}))


def _missing(part: _Part) -> Iterator[str]:
    """Yield the names of what is missing, or the classes that lack files, and how many have no name."""
    records, classes = part.manifest.records, part.manifest.classes
    told = 0
    if part.manifest.missing is not None:
        told = len(part.manifest.missing)
        for name, label in part.manifest.missing:
            yield f"{part.name}: {name}" if label is None else f"{part.name}: {classes[label]}/{name}"
    else:
        found = Counter(record.label for record in records)
        for label, name in enumerate(classes):
            if part.each and found[label] < part.each:
                told += part.each - found[label]
                yield f"{part.name}: {name}: {part.each - found[label]} of {part.each} files"
            elif not found[label]:
                yield f"{part.name}: {name}: every file"
    if part.files is not None and (untold := part.files - len(records) - told) > 0:
        yield f"{part.name}: {untold} files whose names no list tells"
