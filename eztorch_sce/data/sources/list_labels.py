"""Labels of a list: numbers or names, with the same meaning in the train and the test list."""

from collections.abc import Iterable
from typing import NamedTuple

from eztorch_sce.data.sources.list_columns import ListColumns
from eztorch_sce.data.sources.list_table import NUMBER
from eztorch_sce.data.sources.manifest import Manifest, class_name, differ_in_case, list_numbers, unknown_classes
from eztorch_sce.errors import first_messages, shorten


class ListLabels(NamedTuple):
    """The labels of a list.

    Attributes:
        labels: Class index of each row; None without labels, or if there are messages.
        classes: Class names, those of the train split if there is one.
        numbers: Number of each class, if the list gives classes both numbers and names.
        messages: Errors.
        notes: Sentences about the labels, as in `Manifest.notes`.
    """

    labels: list[int] | None
    classes: list[str]
    numbers: list[int] | None
    messages: list[str]
    notes: list[str]


def read_labels(columns: ListColumns, train: Manifest | None) -> ListLabels:
    """Return the label of each row.

    Classes are ordered by their numbers if the list has numbers, else by their names. For another split than the train
    split, numbers mean what they mean there: the number that the train list gives a class, or else the position of the
    class.

    Args:
        columns: The list.
        train: The train split, if the list is another split and the train split is labeled.
    """
    if columns.labels is None and columns.names is None:
        return ListLabels(None, [], None, [], [])
    rows = _Rows(columns)
    if rows.messages:
        return ListLabels(None, [], None, first_messages(rows.messages), [])
    if train is not None and train.classes:
        return _labels_of_train(rows, train)
    names, numbers = rows.names, None
    if rows.name_of_number:
        ordered = sorted(rows.name_of_number.items())
        classes = [name for _, name in ordered]
        numbers = [number for number, _ in ordered] if rows.has_names else None
    else:
        classes = sorted(set(names))
    messages = differ_in_case(classes, columns.where)
    if len(set(classes)) < len(classes):
        messages.append(f"{columns.where}: a class name has several numbers: {_twice(rows.name_of_number)}")
    label_of = {name: label for label, name in enumerate(classes)}
    return ListLabels([label_of[name] for name in names], classes, numbers, messages, [])


class _Rows:
    """The class of each row, before it is compared with another split.

    Attributes:
        where: The setting and file that messages name.
        names: Class name of each row; the number as text if there are no names.
        name_of_number: Class name by number; empty if the list has no numbers.
        has_names: Whether the list names the classes.
        messages: Errors.
    """

    def __init__(self, columns: ListColumns) -> None:
        self.where = columns.where
        empty = [""] * len(columns.paths)
        labels, names = columns.labels or empty, columns.names or empty
        self.name_of_number: dict[int, str] = {}
        self.messages: list[str] = []
        self.has_names = any(names)
        self._is_numeric = bool(NUMBER.fullmatch(next(filter(None, labels), "")))
        pairs = list(zip(labels, names, strict=True))
        rows = dict(zip(reversed(pairs), range(len(pairs) - 1, -1, -1), strict=True))  # the first row of each pair
        name_of = {pair: self._name(*pair) for pair, _ in sorted(rows.items(), key=lambda item: item[1])}
        if problems := {pair for pair, name in name_of.items() if name is None}:
            for row, (label, name) in enumerate(pairs):
                if (label, name) in problems:
                    self.messages.append(f"{columns.line(row)}: {self._problem(columns.paths[row], label, name)}")
        self.names = [name_of[pair] or "" for pair in pairs]

    def _name(self, label: str, name: str) -> str | None:
        """Return the name of the class with a label or name, or a label and a name; None if they are not valid."""
        if self._problem("", label, name):
            return None
        composed = class_name(name or label)
        if self._is_numeric:
            number = int(float(label))
            return self.name_of_number.setdefault(number, composed if name else str(number))
        return composed

    def _problem(self, path: str, label: str, name: str) -> str:
        """Return what is wrong with the label and the class name of a row, or ""."""
        if not label and (self._is_numeric or not name):
            return f"{path} has no label, but other lines do; label all lines or none"
        if label and self._is_numeric and not _is_whole(label):
            return f"label {label!r} must be a whole number (0, 1, 2, ...), as on the first lines"
        if label and not self._is_numeric and not name and NUMBER.fullmatch(label):
            cure = "put names that are numbers into a column `class`"
            return f"label {label!r} must be a name, as on the first lines; {cure}"
        if any("\udc80" <= character <= "\udcff" for character in name or label):
            shown = (name or label).encode("utf-8", "surrogateescape")
            return f"the class {str(shown)[1:]} is not valid UTF-8; save the list as UTF-8"
        if label and name and self._is_numeric:
            expected = self.name_of_number.get(int(float(label)), class_name(name))
            if class_name(name) != expected:
                return f"label {label} is {name!r} here but {expected!r} on an earlier line"
        return ""


def _is_whole(label: str) -> bool:
    """Return whether a label is a whole number, which pandas may have written as 3.0."""
    whole, point, fraction = label.partition(".")
    return whole.isdecimal() and not fraction.strip("0") and (bool(point) or label.isdecimal())


def _labels_of_train(rows: _Rows, train: Manifest) -> ListLabels:
    """Return the labels of a split whose classes are those of the train split."""
    classes = list(train.classes)
    names, messages, notes = rows.names, [], []
    numbers_as_names = all(map(str.isdecimal, classes))
    if rows.name_of_number and train.numbers:  # the train list has numbers and names
        messages = _disagreements(rows, dict(zip(train.numbers, classes, strict=True)))
        if not rows.has_names and not messages:
            name_of = {str(number): name for number, name in zip(train.numbers, classes, strict=True)}
            names = [name_of[name] for name in names]
    elif rows.name_of_number and numbers_as_names and rows.has_names:  # the train list has only numbers
        number_of = {name: str(number) for number, name in rows.name_of_number.items()}
        if len(number_of) < len(rows.name_of_number):
            messages.append(f"{rows.where}: a class name has several numbers: {_twice(rows.name_of_number)}")
        names = [number_of[name] for name in names]
    elif rows.name_of_number and not numbers_as_names and not rows.has_names:  # the train split has only names
        positions = {str(position): name for position, name in enumerate(classes)}
        if beyond := [str(number) for number in rows.name_of_number if str(number) not in positions]:
            messages += unknown_classes(beyond, classes, rows.where)
            numbered = f"the train split has {len(classes)} classes, numbered from 0 ({shorten(classes)})"
            messages.append(f"{rows.where} has the labels {_shown(rows)}, but {numbered}; name the classes in both")
        else:
            names = [positions[name] for name in names]
            order = shorten([f"{position} is {name}" for position, name in enumerate(classes)])
            notes.append(f"{rows.where}: labels are numbers of the sorted classes of the train split: {order}")
    messages = messages or unknown_classes(names, classes, rows.where)
    if messages:
        return ListLabels(None, classes, None, messages, [])
    label_of = {name: label for label, name in enumerate(classes)}
    return ListLabels([label_of[name] for name in names], classes, train.numbers, [], notes)


def _disagreements(rows: _Rows, train_names: dict[int, str]) -> list[str]:
    """Return messages about numbers that the train list does not have, or gives to another class."""
    listed = rows.name_of_number
    if unknown := sorted(listed.keys() - train_names.keys()):
        sets = f"has the labels {_shown(rows)}, but the train split has {list_numbers(map(str, train_names))}"
        return [f"{rows.where}: label {unknown[0]} is not in the train split", f"{rows.where} {sets}"]
    return first_messages(
        [
            f"{rows.where}: label {number} is {name!r}, but {train_names[number]!r} in the train split"
            for number, name in sorted(listed.items())
            if rows.has_names and name != train_names[number]
        ]
    )


def _shown(rows: _Rows) -> str:
    return list_numbers(map(str, rows.name_of_number))


def _twice(name_of_number: dict[int, str]) -> str:
    """Return the class names with several numbers, for display."""
    numbers: dict[str, list[int]] = {}
    for number, name in sorted(name_of_number.items()):
        numbers.setdefault(name, []).append(number)
    return shorten([f"{name!r} has {_and(several)}" for name, several in numbers.items() if len(several) > 1])


def _and(numbers: Iterable[int]) -> str:
    return " and ".join(map(str, numbers))
