"""Summary of the data that a command opened: at most four lines for the terminal, and the same for the report."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.errors import counted, shorten
from eztorch_sce.types import FeatureBank

_WIDTH = 160  # characters per line
_NAME_WIDTH = 30  # characters per class name
_MOST_CLASSES = 1000  # that a report lists with their numbers of records
_SINGULARS = {"frames": "frame folder"}


@dataclass
class ClassSummary:
    """The classes of a data set, and their numbers of records.

    Attributes:
        number: Number of classes; 0 if the records are unlabeled.
        first: The first few names.
        smallest: Name of the class with the fewest train records, and their number.
        largest: Name of the class with the most, and their number.
        names: Names of all classes; empty if they are more than 1000.
        train: Number of train records of each of `names`.
        test: Number of test records of each of `names`; empty without a test split.
    """

    number: int
    first: list[str] = field(default_factory=list)
    smallest: tuple[str, int] | None = None
    largest: tuple[str, int] | None = None
    names: list[str] = field(default_factory=list)
    train: list[int] = field(default_factory=list)
    test: list[int] = field(default_factory=list)

    @classmethod
    def of(
        cls, names: list[str], train: npt.NDArray[np.int64], test: npt.NDArray[np.int64] | None = None
    ) -> "ClassSummary":
        """Return the summary of classes, given the number of train and test records of each, (C,)."""
        if not names:
            return cls(0)
        smallest, largest = int(train.argmin()), int(train.argmax())
        extremes = (names[smallest], int(train[smallest])), (names[largest], int(train[largest]))
        if len(names) > _MOST_CLASSES:
            return cls(len(names), names[:3], *extremes)
        counts = train.tolist(), [] if test is None else test.tolist()
        return cls(len(names), names[:3], *extremes, list(names), *counts)

    def __str__(self) -> str:
        if self.smallest is None or self.largest is None:
            return "none, the records have no labels"
        names = shorten([_cut(name, _NAME_WIDTH) for name in self.first] + [""] * (self.number - len(self.first)))
        if self.smallest[1] == self.largest[1]:
            return f"{self.number} ({names}), each with {counted(self.largest[1], 'train record')}"
        (fewest, least), (most, largest) = self.smallest, self.largest
        smallest = f"{counted(least, 'train record')} in the smallest ({_cut(fewest, _NAME_WIDTH)})"
        return f"{self.number} ({names}), {smallest} to {largest} in the largest ({_cut(most, _NAME_WIDTH)})"


@dataclass
class DataSummary:
    """What a command understood of its data.

    Attributes:
        records: Number of records by kind ("video", "image", "frames"), for each split ("train", "test").
        classes: The classes.
        origin: Where the split comes from, such as "folders train and val".
        ignored: Number of things of each kind that were left out, such as {".heic": 7}.
        notes: Sentences about what was taken for what.
    """

    records: dict[str, dict[str, int]]
    classes: ClassSummary
    origin: str = ""
    ignored: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, splits: Splits) -> "DataSummary":
        """Return the summary of opened data."""
        manifests = {"train": splits.train} | ({"test": splits.test} if splits.test else {})
        ignored = Counter(splits.train.ignored)
        if splits.test and splits.draw is None:  # a held-out split repeats what its folder ignored
            ignored += Counter(splits.test.ignored)
        notes = [note for manifest in manifests.values() for note in manifest.notes] + list(splits.notes)
        names = splits.train.classes
        counts = {name: manifest.records.num_by_label(len(names)) for name, manifest in manifests.items()}
        if splits.test is not None and splits.test.classes != names:
            del counts["test"]
        return cls(
            {name: dict(manifest.records.num_by_kind()) for name, manifest in manifests.items()},
            ClassSummary.of(names, counts["train"], counts.get("test")),
            splits.origin,
            dict(ignored),
            list(dict.fromkeys(notes)),
        )

    @classmethod
    def of_features(cls, train: FeatureBank, test: FeatureBank) -> "DataSummary":
        """Return the summary that was stored with features or, for those of an earlier version, of what they hold."""
        if card := test.protocol.get("data_summary"):
            return cls(**card | {"classes": ClassSummary(**card["classes"])})
        counts = {name: {"record": len(bank.labels)} for name, bank in (("train", train), ("test", test))}
        by_class = [np.bincount(bank.labels.numpy() + 1, minlength=len(bank.classes) + 1)[1:] for bank in (train, test)]
        return cls(counts, ClassSummary.of(train.classes, *by_class))

    def card(self) -> dict[str, Any]:
        """Return the values for the protocol card of a report."""
        return asdict(self)

    def lines(self, online: "DataSummary | None" = None) -> list[str]:
        """Return at most four lines: records, classes, origin of the split, and what was left out.

        Args:
            online: Other data, of the online evaluation, which the last line describes.
        """
        lines = [self._counts(), f"classes: {self.classes}"]
        lines += [f"split: {self.origin}"] if self.origin else []
        lines += self._remarks()
        if online is not None:
            others = [
                online._counts().removeprefix("data: "),
                f"{online.classes.number} classes",
                online.origin,
                *online._remarks(),
            ]
            lines = [*lines[:2], "; ".join(lines[2:]), f"online evaluation: {', '.join(filter(None, others))}"]
        return [_cut(line, _WIDTH) for line in lines if line]

    def _counts(self) -> str:
        return f"data: {', '.join(f'{split} {counts_in_words(by_kind)}' for split, by_kind in self.records.items())}"

    def _remarks(self) -> list[str]:
        """Return a line about what was left out and what was taken for what, or an empty list."""
        remarks = ignored_in_words(self.ignored)
        remarks += [f"note: {'; '.join(self.notes)}"] if self.notes else []
        return ["; ".join(remarks)] if remarks else []


def counts_in_words(by_kind: Mapping[str, int]) -> str:
    """Return numbers of records in words.

    >>> counts_in_words({"video": 12, "image": 1}), counts_in_words({})
    ('12 videos and 1 image', 'no records')
    """
    words = [counted(num, _SINGULARS.get(kind, kind)) for kind, num in by_kind.items()]
    return " and ".join(words) or "no records"


def ignored_in_words(ignored: Mapping[str, int]) -> list[str]:
    """Return the line that names what was ignored, most frequent first, or an empty list. A column has no number.

    >>> ignored_in_words({"column 'start'": 1, ".heic": 7})
    ["ignored: 7 .heic, column 'start'"]
    """
    items = sorted(ignored.items(), key=lambda item: -item[1])
    words = [what if what.startswith("column") else f"{number} {what}" for what, number in items]
    return [f"ignored: {', '.join(words)}"] if words else []


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
