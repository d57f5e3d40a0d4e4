"""Comparison of a data set on disk with the counts and lists of its publisher."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.curation.settings import CheckConfig
from eztorch_sce.data.sources.layouts import is_published, open_splits
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.published import published
from eztorch_sce.data.sources.same_files import check_same_files
from eztorch_sce.data.sources.splits import Location


class Count(NamedTuple):
    """A row of the table of counts.

    Attributes:
        split: "train" or "test".
        unit: "files" or "classes".
        expected: Published count, or else the count of the list; None if neither is known.
        on_disk: Count on disk.
    """

    split: str
    unit: str
    expected: int | None
    on_disk: int

    @property
    def missing(self) -> int:
        """Number of expected files or classes that are not on disk."""
        return max(0, (self.expected or 0) - self.on_disk)


class CheckResult(NamedTuple):
    """Outcome of `check`.

    Attributes:
        counts: Rows of the table of counts.
        missing: One line per missing file that a list names, and per class that lacks files.
    """

    counts: list[Count]
    missing: list[str]

    @property
    def complete(self) -> bool:
        """Whether nothing is known to be missing."""
        return not self.missing and not any(count.missing for count in self.counts)


def check(layout: str, root: str, config: CheckConfig | None = None) -> CheckResult:
    """Compare a data set with the publisher's counts.

    Args:
        layout: Name of the layout, a key of `LAYOUTS`.
        root: Folder of the data set.
        config: Settings; `missing` is not used here.

    Raises:
        ConfigError: If the data set cannot be opened: unknown layout, missing folders or lists, or a file in both
            splits.
    """
    config = config or CheckConfig()
    location = Location(
        root, config.list, config.test_root, config.test_list, config.annotations, config.split, missing_ok=True
    )
    splits = open_splits(location, layout)
    check_same_files(splits, [Path(root)], published=is_published(layout))
    counts = published(layout, config.split)
    checked = [_expect("train", splits.train, counts.train, counts.train_each, counts.lists_differ)]
    if splits.test:
        checked.append(_expect("test", splits.test, counts.test, counts.test_each, counts.lists_differ))
    return CheckResult(
        [count for split in checked for count in _counts(split, counts.classes)],
        [line for split in checked for line in _missing_lines(split)],
    )


class _Split(NamedTuple):
    """A split on disk, with the expected number of files in total and per class; None if unknown."""

    name: str
    manifest: Manifest
    num_files: int | None
    num_per_class: int | None


def _expect(
    name: str, manifest: Manifest, num_files: int | None, num_per_class: int | None, lists_differ: bool
) -> _Split:
    """Return a split with its published counts, or with the counts of its list if the list takes precedence."""
    if manifest.missing is not None and (num_files is None or lists_differ):
        return _Split(name, manifest, len(manifest.records) + len(manifest.missing), None)
    return _Split(name, manifest, num_files, num_per_class)


def _counts(split: _Split, num_classes: int | None) -> Iterator[Count]:
    manifest = split.manifest
    yield Count(split.name, "files", split.num_files, len(manifest.records))
    if manifest.classes:
        if num_classes is None and manifest.missing is not None:
            num_classes = len(manifest.classes)
        yield Count(split.name, "classes", num_classes, len(set(manifest.records.labels.tolist())))


def _missing_lines(split: _Split) -> Iterator[str]:
    """Yield one line per missing file or per class with too few files, and one for the missing files without names."""
    records, missing = split.manifest.records, split.manifest.missing
    if missing is None:
        lines, num_named = _missing_per_class(split)
    else:
        lines, num_named = _missing_per_file(split, missing), len(missing)
    yield from lines
    if split.num_files is not None:
        num_unnamed = split.num_files - len(records) - num_named
        if num_unnamed > 0:
            yield f"{split.name}: {num_unnamed} more files, which no list names"


def _missing_per_file(split: _Split, missing: list[tuple[str, int | None]]) -> list[str]:
    classes = split.manifest.classes
    return [
        f"{split.name}: {name}" if label is None else f"{split.name}: {classes[label]}/{name}"
        for name, label in missing
    ]


def _missing_per_class(split: _Split) -> tuple[list[str], int]:
    """Return a line per class with too few files, and the number of missing files in these lines."""
    counts = Counter(split.manifest.records.labels.tolist())
    lines, num_missing = [], 0
    for label, name in enumerate(split.manifest.classes):
        if split.num_per_class and counts[label] < split.num_per_class:
            num_lacking = split.num_per_class - counts[label]
            num_missing += num_lacking
            lines.append(f"{split.name}: {name}: {num_lacking} of {split.num_per_class} files")
        elif not counts[label]:
            lines.append(f"{split.name}: {name}: all files")
    return lines, num_missing
