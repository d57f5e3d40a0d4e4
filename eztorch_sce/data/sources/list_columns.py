"""Meaning of the columns of a list: paths, labels, segments, groups, and what is ignored."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from eztorch_sce.data.media import KNOWN_SUFFIXES, suffix_of
from eztorch_sce.data.sources.column_names import (
    DURATIONS,
    ENDS,
    LABELS,
    PATHS,
    SPLITS,
    STARTS,
    WEAK_PATHS,
    is_other_unit,
    plain_name,
)
from eztorch_sce.data.sources.list_table import NUMBER, ListTable
from eztorch_sce.errors import ConfigError, first_messages

Segment = tuple[float | None, float | None]


class ListColumns(NamedTuple):
    """The columns of a list by their meaning.

    Attributes:
        where: The setting and file that messages name.
        lines: Line number of each row.
        unit: What `lines` counts.
        paths: Paths as listed; "" if a row has none.
        labels: Numbers or names of the classes, "" for none; None without such a column.
        names: Names of the classes, if `labels` are their numbers or there are only names; None without such a column.
        segments: Start and end of the part of each video to use, in seconds; None for whole videos.
        groups: Name of the group of each row; None if the list has no such column.
        ignored: Columns and comments that are not used, as in `Manifest.ignored`.
        notes: Sentences about the columns, as in `Manifest.notes`.
    """

    where: str
    lines: Sequence[int]
    unit: str
    paths: Sequence[str]
    labels: Sequence[str] | None
    names: Sequence[str] | None
    segments: list[Segment] | None
    groups: Sequence[str] | None
    ignored: dict[str, int]
    notes: list[str]

    def line(self, row: int) -> str:
        """Return the list and the line of a row, for messages."""
        return f"{self.where}, {self.unit} {self.lines[row]}"


def assign_columns(table: ListTable, where: str, locate: Callable[[str], str | None], group: str | None) -> ListColumns:
    """Find the meaning of each column by its name, and where names are not enough, by its content.

    Args:
        table: The list.
        where: The setting and file that messages name.
        locate: Returns the absolute path of a listed path if it exists, else None.
        group: Name of the column of groups, if the list has it.

    Raises:
        ConfigError: If no column or several contain the paths or labels, or a segment is not valid.
    """
    comments = {"comment line": table.num_comments} if table.num_comments else {}
    if not table.names:
        paths, *others = table.columns
        labels = others[0] if others and any(others[0]) else None
        columns = ListColumns(where, table.lines, table.unit, paths, labels, None, None, None, comments, [])
        return columns._replace(names=None)
    roles = _Roles(table, where, locate)
    path = roles.path()
    label, name = roles.label_and_name()
    start, end = roles.segment()
    wanted = plain_name(group) if group else ""
    group_column = next((index for index, plain in enumerate(roles.plain) if plain and plain == wanted), None)
    used = {path, label, name, start, end, group_column, *roles.duplicates}
    unused = [index for index in range(len(table.names)) if index not in used]
    ignored = {f"column {table.names[index]!r}" if table.names[index] else f"column {index + 1}": 1 for index in unused}
    if roles.messages or path is None:
        raise ConfigError(first_messages(roles.messages))
    columns = ListColumns(
        where,
        table.lines,
        table.unit,
        paths=table.columns[path],
        labels=None if label is None else table.columns[label],
        names=None if name is None else table.columns[name],
        segments=None,
        groups=None if group_column is None else table.columns[group_column],
        ignored={**comments, **ignored},
        notes=[note for index in unused if (note := _split_note(table, index, where))],
    )
    if label is None and name is None:
        columns.notes.extend(_label_note(table, unused, where))
    if start is None and end is None:
        return columns
    return columns._replace(segments=_segments(table, start, end, columns))


class _Roles:
    """Chooses columns, and collects the messages about those that could be meant as well.

    Args:
        table: The list.
        where: The setting and file that messages name.
        locate: Returns the absolute path of a listed path if it exists, else None.
    """

    def __init__(self, table: ListTable, where: str, locate: Callable[[str], str | None]) -> None:
        self.table, self.where, self.locate = table, where, locate
        self.plain = [plain_name(name) for name in table.names]
        self.duplicates: set[int] = set()  # columns with the same cells as one that is used
        self.messages: list[str] = []

    def path(self) -> int | None:
        """Return the column of paths."""
        candidates = self._distinct(PATHS) or self._distinct(WEAK_PATHS)
        if not candidates:
            candidates = [index for index, cells in enumerate(self.table.columns) if _are_files(_sample(cells))]
        if not candidates:
            cure = "name one of them path"
            self.messages.append(f"{self.where}: no column names the files, only {', '.join(self.table.names)}; {cure}")
            return None
        samples = {index: [*map(self.locate, _sample(self.table.columns[index]))] for index in candidates}
        existing = [index for index, files in samples.items() if any(files)]
        same = {tuple(samples[index]) for index in existing}
        if len(existing) > 1 and len(same) > 1:
            self._ambiguous(existing, "the files")
        by_suffix = [index for index in candidates if _are_files(_sample(self.table.columns[index]))]
        return (existing or by_suffix or candidates)[0]

    def label_and_name(self) -> tuple[int | None, int | None]:
        """Return the columns of the labels (numbers or names) and of the names that belong to numbers."""
        candidates = [index for index in self._distinct(LABELS) if any(self.table.columns[index])]
        numeric = [index for index in candidates if _are_numbers(self.table.columns[index])]
        names = [index for index in candidates if index not in numeric]
        if len(numeric) > 1 or len(names) > 1:
            self._ambiguous(numeric if len(numeric) > 1 else names, "the labels")
        number, name = next(iter(numeric), None), next(iter(names), None)
        if number is None and name is not None and self.plain[name] not in ("class", "classname", "labelname"):
            return name, None
        return number, name

    def segment(self) -> tuple[int | None, int | None]:
        """Return the columns of the start and the end of segments."""
        starts, ends = self._distinct(STARTS), self._distinct(ENDS)
        for columns, role in ((starts, "the start"), (ends, "the end")):
            if len(columns) > 1:
                self._ambiguous(columns, f"{role} of the part to use")
        if not starts and not ends:
            cure = "give the part to use in seconds, as start and end; or rename the columns to use whole videos"
            self.messages += [
                f"{self.where}: column {name!r} is not in seconds; {cure}"
                for name, cells in zip(self.table.names, self.table.columns, strict=True)
                if is_other_unit(name) and any(cells)
            ]
        if starts and not ends and (durations := [i for i, plain in enumerate(self.plain) if plain in DURATIONS]):
            name = self.table.names[durations[0]]
            cure = f"add the end in seconds as `end`; or rename {name!r} if parts reach to the ends of the videos"
            self.messages.append(
                f"{self.where}: columns {self.table.names[starts[0]]!r} and {name!r} have no end; {cure}"
            )
        return next(iter(starts), None), next(iter(ends), None)

    def _distinct(self, names: frozenset[str]) -> list[int]:
        """Return the columns with one of some names, without those that repeat another one's cells."""
        chosen: list[int] = []
        for index, plain in enumerate(self.plain):
            if plain not in names:
                continue
            if any(self.table.columns[index] == self.table.columns[other] for other in chosen):
                self.duplicates.add(index)
            else:
                chosen.append(index)
        return chosen

    def _ambiguous(self, columns: list[int], role: str) -> None:
        names = " and ".join(repr(self.table.names[index]) for index in columns)
        cure = "remove or rename all but one of them"
        self.messages.append(f"{self.where}: the columns {names} could each be {role}; {cure}")


def seconds(text: str) -> float | None:
    """Return a time in seconds, written as a number or as (hours:)minutes:seconds; None if there is none.

    >>> seconds("12.5"), seconds("1:02.5"), seconds("")
    (12.5, 62.5, None)

    Raises:
        ValueError: If the text is not a time.
    """
    if not text:
        return None
    *larger, last = text.split(":")
    if len(larger) > 2 or any(not part.isdecimal() for part in larger):
        raise ValueError(text)
    value = float(last.replace(",", "."))
    if not math.isfinite(value) or value < 0 or (larger and value >= 60) or "_" in last:
        raise ValueError(text)
    for part, unit_s in zip(reversed(larger), (60, 3600), strict=False):
        value += int(part) * unit_s
    return value


def _segments(table: ListTable, start: int | None, end: int | None, columns: ListColumns) -> list[Segment] | None:
    """Return the segment of each row, or None if all are whole videos."""
    messages: list[str] = []
    values: list[list[float | None]] = []
    for index in (start, end):
        cells = table.columns[index] if index is not None else [""] * len(table.lines)
        by_text: dict[str, float | None] = {}
        invalid: set[str] = set()
        for cell in set(cells):
            try:
                by_text[cell] = seconds(cell)
            except ValueError:
                by_text[cell] = None
                invalid.add(cell)
        values.append([by_text[cell] for cell in cells])
        if index is not None and invalid:
            cure = "must be a number of seconds of at least 0, or minutes:seconds"
            messages += [
                f"{columns.line(row)}: {table.names[index]} {cell!r} {cure}"
                for row, cell in enumerate(cells)
                if cell in invalid
            ]
    segments = list(zip(*values, strict=True))
    messages += [
        f"{columns.line(row)}: the part to use ends at {end_s:g} s, not after its start at {start_s or 0:g} s"
        for row, (start_s, end_s) in enumerate(segments)
        if end_s is not None and end_s <= (start_s or 0)
    ]
    if messages:
        raise ConfigError(first_messages(messages))
    return segments if any(segment != (None, None) for segment in segments) else None


def _split_note(table: ListTable, index: int, where: str) -> str:
    """Return a sentence if a column assigns the rows to several splits, which is not followed."""
    counts = Counter(filter(None, table.columns[index]))
    if plain_name(table.names[index]) not in SPLITS or not 1 < len(counts) < 10:
        return ""
    splits = ", ".join(f"{value} ({count})" for value, count in counts.most_common())
    cure = "to separate them, write one list per split and set data.list and data.test_list"
    return f"{where}: column {table.names[index]!r} names several splits, {splits}, and all rows are used; {cure}"


def _label_note(table: ListTable, unused: list[int], where: str) -> list[str]:
    """Return a sentence if columns without a known meaning could be labels: words that repeat."""
    texts = {
        table.names[index]: table.columns[index]
        for index in unused
        if plain_name(table.names[index]) not in SPLITS and not any(map(NUMBER.fullmatch, table.columns[index]))
    }
    classes = [repr(name) for name, cells in texts.items() if all(cells) and 1 < len(set(cells)) < len(cells)]
    if not classes:
        return []
    return [f"{where}: no column is known as the label; to use {' or '.join(classes)}, name it label"]


def _are_numbers(cells: Sequence[str]) -> bool:
    return all(NUMBER.fullmatch(cell) for cell in cells if cell)


def _are_files(cells: Sequence[str]) -> bool:
    return bool(cells) and all(suffix_of(cell) in KNOWN_SUFFIXES for cell in cells)


def _sample(cells: Sequence[str]) -> Sequence[str]:
    """Return up to 20 cells, evenly spaced."""
    return cells[:: max(1, len(cells) // 20)][:20]
