"""Names and labels of the records of a source, and the mistakes in them."""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from eztorch_sce.data.sources.manifest import class_name, differ_in_case, unknown_classes
from eztorch_sce.data.sources.records import UNLABELED
from eztorch_sce.data.sources.source import Source, mistake, title_of
from eztorch_sce.errors import did_you_mean, first_messages, shorten
from eztorch_sce.progress import track

T = TypeVar("T")

_BLOCK = 1000  # records between two updates of the progress
_KINDS = ("image", "video")


@dataclass
class Listing:
    """Names and labels as a source returns them.

    Attributes:
        where: What messages call the source.
        names: Name of each record.
        labels: Label of each record; whole numbers are ints, and other names than str are as they came.
        given_classes: The attribute `classes` of the source, or None.
        kind, fps: The attributes of the source, or None.
    """

    where: str
    names: list[Any]
    labels: list[Any]
    given_classes: Any
    kind: Any
    fps: Any

    @classmethod
    def of(cls, source: Source, where: str) -> "Listing":
        """Call `__len__`, and `name` and `label` for every record; work of more than a few seconds shows its progress.

        Raises:
            SourceError: If one of them raises an exception.
        """
        [number] = _call_each(lambda _: len(source), [0], f"len({title_of(source)})")
        blocks = [range(start, min(start + _BLOCK, number)) for start in range(0, number, _BLOCK)]
        names: list[Any] = []
        labels: list[Any] = []
        for rows in track(blocks, len(blocks), f"{where}, thousands of records"):
            names += _call_each(source.name, rows, f"{title_of(source)}.name({{}})")
            labels += map(_as_label, _call_each(source.label, rows, f"{title_of(source)}.label({{}})"))
        attributes = [getattr(source, name, None) for name in ("classes", "kind", "fps")]
        return cls(where, names, labels, *attributes)

    def messages(self) -> list[str]:
        """Return one message per kind of mistake."""
        if not self.names:
            return [f"{self.where} has no records: its length is 0"]
        messages = self._attribute_messages() + self._name_messages()
        return messages or self._label_messages()

    def _attribute_messages(self) -> list[str]:
        messages = []
        if self.kind is not None and self.kind not in _KINDS:
            cure = did_you_mean(str(self.kind), _KINDS)
            messages.append(f"{self.where}: kind={self.kind!r} must be 'image' or 'video'{cure}")
        if self.fps is not None and not (isinstance(self.fps, Real) and 0 < float(self.fps) < math.inf):
            messages.append(f"{self.where}: fps={self.fps!r} must be a number, greater than 0")
        classes = self.given_classes
        if classes is None:
            return messages
        if isinstance(classes, str) or not isinstance(classes, Sequence):
            return [*messages, f"{self.where}: classes={_shown(classes)} must be a list of names"]
        if wrong := [name for name in classes if not isinstance(name, str) or not name]:
            return [*messages, f"{self.where}: classes has {_shown(wrong[0])}; every class needs a name"]
        if twice := sorted({name for name in classes if list(classes).count(name) > 1}):
            messages.append(f"{self.where}: classes has {shorten(twice)} twice; names of classes must be unique")
        return messages

    def _name_messages(self) -> list[str]:
        if set(map(type, self.names)) != {str} or "" in self.names:
            for index, name in enumerate(self.names):
                if not isinstance(name, str) or not name:
                    cure = f"expected a text, such as {str(index)!r}"
                    return [f"{self.where}: name({index}) returned {_shown(name)}; {cure}"]
        if len(set(self.names)) == len(self.names):
            return []
        first_of: dict[str, int] = {}
        firsts = [first_of.setdefault(name, index) for index, name in enumerate(self.names)]
        repeated = [index for index, first in enumerate(firsts) if first != index]
        more = "" if len(repeated) == 1 else f", and {len(repeated) - 1} more are repeated"
        pair = f"name({firsts[repeated[0]]}) and name({repeated[0]}) both return {self.names[repeated[0]]!r}{more}"
        return [f"{self.where}: {pair}; a name identifies a record, so no two may be equal"]

    def _label_messages(self) -> list[str]:
        known = None if self.given_classes is None else list(map(class_name, self.given_classes))
        types = set(map(type, self.labels))
        wrong: dict[str, list[int]] = {}
        if not types <= {type(None), int, str} or any(_problem(label, known) for label in set(self.labels)):
            for index, label in enumerate(self.labels):
                if problem := _problem(label, known):
                    wrong.setdefault(problem, []).append(index)
        messages = []
        for problem, indices in wrong.items():
            returned = f"label({indices[0]}) returned {_shown(self.labels[indices[0]])}"
            more = "" if len(indices) == 1 else f", and {len(indices) - 1} more are like it"
            messages.append(f"{self.where}: {returned}{more}; {problem}")
        if not messages and {int, str} <= types:
            of_type = {type(label): index for index, label in enumerate(self.labels)}
            pair = " and ".join(f"label({of_type[each]}) {self.labels[of_type[each]]!r}" for each in (int, str))
            messages.append(f"{self.where}: {pair} are a class number and a class name; return one kind of label")
        return first_messages(messages)

    def class_names(self, classes: Sequence[str] | None) -> list[str | None]:
        """Return the name of the class of each record; that of a number is at its position in `classes`, or itself."""
        if classes is None:
            return [None if label is None else str(label) for label in self.labels]
        names = dict(enumerate(classes))
        return [
            label if label is None or isinstance(label, str) else names.get(label, str(label)) for label in self.labels
        ]

    def ordered_classes(self, names: Iterable[str | None]) -> list[str]:
        """Return the classes of records with these names: in the order of `classes`, or sorted; none if unlabeled."""
        distinct = {name for name in names if name is not None}
        if self.given_classes is not None and distinct:
            return list(map(class_name, self.given_classes))
        are_numbers = any(isinstance(label, int) for label in self.labels)
        return sorted(distinct, key=int) if are_numbers and all(map(str.isdecimal, distinct)) else sorted(distinct)


class Labels(NamedTuple):
    """Labels of both splits.

    Attributes:
        classes: Class names, by class index.
        train: Class index of each train record, int32 (N,), or None if none is labeled.
        test: The same of the test split.
        messages: Mistakes that only both splits together show.
    """

    classes: list[str]
    train: npt.NDArray[np.int32] | None
    test: npt.NDArray[np.int32] | None
    messages: list[str]


def common_labels(train: Listing, test: Listing | None) -> Labels:
    """Return the labels of both splits as indices into the same classes.

    Args:
        train: The train split, without mistakes.
        test: The test split, likewise, or None.
    """
    splits = [train] if test is None else [train, test]
    given = [None if split.given_classes is None else list(map(class_name, split.given_classes)) for split in splits]
    names = [
        split.class_names(next((classes for classes in (own, *given) if classes is not None), None))
        for split, own in zip(splits, given, strict=True)
    ]
    classes = train.ordered_classes(names[0])
    messages = []
    for split, of_split in zip(splits, names, strict=True):
        distinct = {name for name in of_split if name is not None}
        messages += differ_in_case(distinct, split.where)
        if split is test:
            messages += unknown_classes(distinct, classes, split.where)
            classes = classes or split.ordered_classes(of_split)
    code_of: dict[str | None, int] = {name: code for code, name in enumerate(classes)}
    codes = [np.array([code_of.get(name, UNLABELED) for name in of_split], np.int32) for of_split in names]
    labeled = [None if (array == UNLABELED).all() else array for array in codes]
    return Labels(classes, labeled[0], labeled[1] if test is not None else None, messages)


def _call_each(function: Callable[[int], T], indices: Sequence[int], call: str) -> list[T]:
    """Return what a method of a source returns for each index, and name the line if it raises an exception.

    Args:
        function: The method.
        indices: The arguments.
        call: The call as messages name it, with braces for the argument.
    """
    values: list[T] = []
    try:
        for index in indices:
            values.append(function(index))
    except Exception as error:
        raise mistake(error, call.format(indices[len(values)])) from error
    return values


def _as_label(value: Any) -> Any:
    """Return a label as an int, a str or None; what is none of them stays as it is."""
    if value is None or type(value) is int:
        return value
    if isinstance(value, str):
        return class_name(str(value))
    try:
        return operator.index(value)  # integers of numpy and torch
    except TypeError:
        return value


def _problem(label: Any, classes: Sequence[str] | None) -> str:
    """Return what is wrong with a label, or "" if nothing is."""
    if label is None:
        return ""
    if not isinstance(label, (int, str)):
        return "expected a class number, a class name, or None for an unlabeled record"
    if label == "":
        return "expected a class name, or None for an unlabeled record"
    if isinstance(label, int) and label < 0:
        return "class numbers start at 0; return None for an unlabeled record"
    if classes is None:
        return ""
    if isinstance(label, int):
        return f"classes has only {len(classes)} names (0 to {len(classes) - 1})" if label >= len(classes) else ""
    return "" if label in classes else f"classes has no such name: {shorten(classes)}{did_you_mean(label, classes)}"


def _shown(value: object) -> str:
    """Return a value with its type, cut to a line."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:59] + '…'} ({type(value).__name__})"
