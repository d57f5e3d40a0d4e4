"""The manifest: the records of one split of a data set."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from eztorch_sce.data.sources.records import Records
from eztorch_sce.errors import did_you_mean, first_messages


@dataclass
class Manifest:
    """The records of one split of a data set.

    Attributes:
        records: The videos, images or frame folders, in a fixed order.
        classes: Class names by label; empty if the records are unlabeled.
        source: Origin of the records, for display.
        missing: Name and label of each listed file that does not exist; None if no list names the files.
        notes: Sentences about what was taken for what, for display.
        ignored: Number of things of each kind that were left out, for display, such as {".heic": 7, "column start": 1}.
    """

    records: Records
    classes: list[str]
    source: str
    missing: list[tuple[str, int | None]] | None = None
    notes: list[str] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)

    def with_records(self, records: Records, source: str) -> "Manifest":
        """Return a manifest of some of the records, with the same classes."""
        return replace(self, records=records, source=source)


def unknown_classes(names: Iterable[str], train_classes: Sequence[str] | None, where: str) -> list[str]:
    """Return one message per class name that the train split lacks.

    Args:
        names: Class names of another split.
        train_classes: Class names of the train split; None or empty accepts every name.
        where: The setting and file that messages name.
    """
    if not train_classes:
        return []
    cure = "both splits need the same classes"
    messages = [
        f"{where}: class {name!r} is not in the train split; {cure}{did_you_mean(name, train_classes)}"
        for name in sorted(set(names) - set(train_classes))
    ]
    return first_messages(messages)


def source_with_missing(source: str, num_missing: int, num_listed: int) -> str:
    """Return `source`, with the number of missing files appended if there are any."""
    return f"{source} ({num_missing} of {num_listed} are not on disk)" if num_missing else source
