"""The manifest: the records of one split of a data set."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from eztorch_sce.data.sources.records import Records
from eztorch_sce.errors import did_you_mean, first_messages, shorten


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
        numbers: Number of each class, if a list gives the classes both names and numbers.
    """

    records: Records
    classes: list[str]
    source: str
    missing: list[tuple[str, int | None]] | None = None
    notes: list[str] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    numbers: list[int] | None = None

    def with_records(self, records: Records, source: str) -> "Manifest":
        """Return a manifest of some of the records, with the same classes."""
        return replace(self, records=records, source=source)


def class_name(text: str) -> str:
    """Return a class name in composed Unicode characters (NFC).

    The same name is stored differently by macOS and by other systems; composed, both spellings are equal.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def unknown_classes(names: Iterable[str], train_classes: Sequence[str] | None, where: str) -> list[str]:
    """Return one message per class name that the train split lacks, and one that shows both sets if they are numbers.

    Args:
        names: Class names of another split, as `class_name` returns them.
        train_classes: Class names of the train split, likewise; None or empty accepts every name.
        where: The setting and file that messages name.
    """
    if not train_classes:
        return []
    names, known = set(names), set(train_classes)
    by_folded = {name.casefold(): name for name in train_classes}
    messages = []
    for name in sorted(names - known):
        if twin := by_folded.get(name.casefold()):
            cure = f"the train split has {twin!r}, which differs only in upper and lower case; spell both alike"
        else:
            cure = f"both splits need the same classes{did_you_mean(name, train_classes)}"
        messages.append(f"{where}: class {name!r} is not in the train split; {cure}")
    if messages and all(name.isdecimal() for name in names | known):
        messages = first_messages(messages, num=3)
        messages.append(f"{where} has the labels {list_numbers(names)}, but the train split has {list_numbers(known)}")
    return first_messages(messages)


def differ_in_case(names: Iterable[str], where: str) -> list[str]:
    """Return one message per pair of classes of one split whose names differ only in upper and lower case.

    Names of one character are exempt: data sets of handwriting have classes such as A and a.
    """
    spellings: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        if len(name) > 1:
            spellings.setdefault(name.casefold(), []).append(name)
    cure = "spell them alike, or rename one if they are different classes"
    messages = [
        f"{where}: the classes {' and '.join(map(repr, alike))} differ only in upper and lower case; {cure}"
        for alike in spellings.values()
        if len(alike) > 1
    ]
    return first_messages(messages)


def list_numbers(texts: Iterable[str]) -> str:
    """Return a set of whole numbers for display.

    >>> list_numbers({"3", "1", "2"})
    '1 to 3'
    >>> list_numbers({"0", "2", "7"})
    '0, 2, 7'
    """
    numbers = sorted(map(int, texts))
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return shorten(list(map(str, numbers)), num=10)


def source_with_missing(source: str, num_missing: int, num_listed: int) -> str:
    """Return `source`, with the number of missing files appended if there are any."""
    return f"{source} ({num_missing} of {num_listed} are not on disk)" if num_missing else source
