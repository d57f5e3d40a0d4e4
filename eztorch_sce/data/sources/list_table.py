"""List files as tables: separators, quotes, headers and comments, whatever program wrote the list."""

import csv
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from eztorch_sce.data.media import KNOWN_SUFFIXES, suffix_of
from eztorch_sce.data.sources.column_names import is_known, is_path
from eztorch_sce.data.sources.text import read_text
from eztorch_sce.errors import ConfigError, first_messages

ARROW_SUFFIXES = (".parquet", ".arrow", ".feather", ".ipc")
_OTHER_SUFFIXES = (".json", ".jsonl", ".xml", ".xlsx", ".xls", ".ods", ".pkl", ".pickle", ".mat", ".npy", ".yaml")

_SEPARATORS = ("\t", ";", ",", "|")  # in the order in which they are tried; spaces come last
_SAMPLE = 200  # lines from which the format is detected
NUMBER = re.compile(r"[-+]?[\d.]+")

# A path with a media suffix, then a label. The label may be several words, but not a number followed by more.
_SUFFIXES = "|".join(sorted(suffix[1:] for suffix in KNOWN_SUFFIXES))
_PATH_THEN_LABEL = re.compile(rf"(.*\.(?:{_SUFFIXES}))\"?[\s,;|]+(?![-+]?[\d.]+[\s,;|])(.+)", re.IGNORECASE)
_PATH_THENNUMBER = re.compile(r"(.*?)[\s,;|]+([-+]?[\d.]+)")
_PATH_THEN_WORD = re.compile(r"(.*)[\s,;|]+([^\s,;|]+)")


class ListTable(NamedTuple):
    """The columns of a list.

    Attributes:
        names: Name of each column as written; empty without a header.
        columns: Text of each cell, column by column; the path and possibly the label without a header.
        lines: Line number of each row in the file, from 1.
        num_comments: Number of lines that start with #.
        unit: What `lines` counts, for messages: "line" or "row".
    """

    names: list[str]
    columns: list[Sequence[str]]
    lines: Sequence[int]
    num_comments: int = 0
    unit: str = "line"


class _Lines(NamedTuple):
    """Lines of text and their numbers in the file."""

    numbers: Sequence[int]
    texts: list[str]

    def after_first(self) -> "_Lines":
        return _Lines(self.numbers[1:], self.texts[1:])


def read_table(file: Path, where: str, exists: Callable[[str], bool]) -> ListTable:
    """Read a list file: text with any common separator, Parquet, or Arrow (Feather).

    Args:
        file: The list.
        where: The setting and file that messages name.
        exists: Whether a listed path exists. A few are tried to tell separators from characters of paths.

    Raises:
        ConfigError: If the file cannot be read, or a line does not have the columns of the others.
    """
    if file.suffix.lower() in ARROW_SUFFIXES:
        return _read_arrow(file, where)
    if file.suffix.lower() in _OTHER_SUFFIXES:
        raise ConfigError([f"{where} must be text such as CSV, Parquet or Arrow; convert it"])
    lines, num_comments = _content_lines(read_text(file), exists)
    separator = None
    if lines.texts and re.fullmatch("sep=.", lines.texts[0], re.IGNORECASE):  # a hint for Excel
        separator, lines = lines.texts[0][4], lines.after_first()
    if not lines.texts:
        return ListTable([], [()], (), num_comments)
    header, separator = _find_header(lines.texts[:_SAMPLE], separator, exists)
    if header:
        assert separator is not None
        names = [name.strip().strip("\"'") for name in header]
        columns, numbers = _parse(lines.after_first(), separator, len(names), where)
        return ListTable(names, columns, numbers, num_comments)
    return _without_header(lines, where, exists)._replace(num_comments=num_comments)


def _content_lines(text: str, exists: Callable[[str], bool]) -> tuple[_Lines, int]:
    """Return the lines that are neither blank nor comments, and the number of comments.

    A line that starts with # is a comment unless it names the columns, above all others, or a file that exists.
    """
    lines = text.split("\n")
    numbers: Sequence[int] = range(1, len(lines) + 1)
    if any(not line or line.isspace() for line in lines):
        numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
        lines = [line for line in lines if line.strip()]
    if "\n#" not in text and not text.lstrip().startswith("#"):
        return _Lines(numbers, lines), 0
    content = _Lines([], [])
    assert isinstance(content.numbers, list)
    for number, line in zip(numbers, lines, strict=True):
        stripped = line.strip()
        is_comment = stripped.startswith("#")
        if is_comment and not content.texts and _is_header(re.split(r"[\t,;| ]+", stripped.lstrip("# "))):
            line, is_comment = stripped.lstrip("# "), False
        elif is_comment:
            paths = {stripped, re.split(r"[\t,;|]", stripped)[0], _split_line(stripped)[0]}
            is_comment = not any(map(exists, paths))
        if not is_comment:
            content.numbers.append(number)
            content.texts.append(line)
    return content, len(lines) - len(content.texts)


def _find_header(
    lines: list[str], separator: str | None, exists: Callable[[str], bool]
) -> tuple[list[str], str | None]:
    """Return the cells of the first line and their separator if that line is a header, else no cells."""
    first = lines[0]
    candidates = [separator] if separator else [*_SEPARATORS, " "]
    rows = {mark: cells for mark in candidates if (cells := _cells(first, mark)) is not None}
    headers = [mark for mark, cells in rows.items() if mark != " " and _is_header(cells)]
    if headers:
        best = max(headers, key=lambda mark: sum(map(is_known, rows[mark])))
        return rows[best], best
    if _is_header(by_spaces := rows.get(" ", [])):  # but "my clip" may be a path
        column = next(index for index, name in enumerate(by_spaces) if is_path(name))
        below = [row[column] for line in lines[1:] if (row := _cells(line, " ")) and len(row) == len(by_spaces)]
        if all(map(is_known, by_spaces)) or any(suffix_of(path) in KNOWN_SUFFIXES or exists(path) for path in below):
            return by_spaces, " "
    for mark, cells in rows.items():  # an unknown name above a column of files
        others = [row for line in lines[1:] if (row := _cells(line, mark)) is not None]
        if not others or any(map(_looks_like_data, cells)) or {len(cells)} != {len(row) for row in others}:
            continue
        if any(_all_media(column) and not exists(name) for name, *column in zip(cells, *others, strict=True)):
            return cells, mark
    return [], separator


def _is_header(cells: Sequence[str]) -> bool:
    """Return whether cells are names of columns, one of which is known to contain paths."""
    return any(map(is_path, cells)) and not any(map(_looks_like_data, cells))


def _looks_like_data(cell: str) -> bool:
    return bool(NUMBER.fullmatch(cell)) or suffix_of(cell) in KNOWN_SUFFIXES or "/" in cell or "\\" in cell


def _all_media(cells: Sequence[str]) -> bool:
    return all(suffix_of(cell) in KNOWN_SUFFIXES for cell in cells)


def _cells(line: str, separator: str) -> list[str] | None:
    """Return the cells of one line, or None if its quotes are unbalanced."""
    try:
        return [cell.strip() for cell in next(_reader([line.strip()], separator))]
    except csv.Error:
        return None


def _reader(lines: Sequence[str], separator: str) -> Any:
    if separator == " ":
        lines = [line.replace("\t", " ") for line in lines]
    single = re.compile(rf"'[^']+' *({re.escape(separator)}|$)")
    quote = "'" if lines and all(map(single.match, lines[:20])) else '"'
    return csv.reader(lines, delimiter=separator, quotechar=quote, skipinitialspace=True, strict=True)


def _rows(lines: _Lines, separator: str, where: str) -> tuple[list[list[str]], Sequence[int]]:
    """Return the cells and the line number of each row.

    Raises:
        ConfigError: If quotes are unbalanced.
    """
    texts = [text.strip() for text in lines.texts] if separator == " " else lines.texts
    if not texts:
        return [], ()
    if not any('"' in text for text in texts) and not texts[0].startswith("'"):
        return list(_reader(texts, separator)), lines.numbers
    texts = [re.sub(rf'" +(?={re.escape(separator)}|$)', '"', text) for text in texts]  # an error to `csv`
    rows, numbers = [], []
    reader = _reader(texts, separator)
    first = 0
    try:
        for cells in reader:  # a quoted cell may contain line ends
            rows.append(cells)
            numbers.append(lines.numbers[first])
            first = reader.line_num
    except csv.Error as error:
        cure = 'close each quote, and double quotes inside of quotes ("")'
        problem = f"{where}, line {lines.numbers[first]}: quotes are unbalanced ({error}); {cure}"
        raise ConfigError([problem]) from error
    return rows, numbers


def _parse(lines: _Lines, separator: str, num_columns: int, where: str) -> tuple[list[Sequence[str]], Sequence[int]]:
    """Return the columns below a header, and the line number of each row.

    Raises:
        ConfigError: With each line that has more cells than the header. Missing cells are empty.
    """
    rows, numbers = _rows(lines, separator, where)
    messages = []
    for index, cells in enumerate(rows):
        if len(cells) == num_columns:
            continue
        while len(cells) > num_columns and not cells[-1].strip():
            cells.pop()
        cells += [""] * (num_columns - len(cells))
        if len(cells) > num_columns and separator == " ":
            rows[index] = cells = _join_first(cells, num_columns)
        if len(cells) > num_columns:
            cure = "put cells that contain the separator in quotes"
            counts = f"{len(cells)} cells, but the header has {num_columns}"
            messages.append(f"{where}, line {numbers[index]}: {counts}; {cure}")
    if messages:
        raise ConfigError(first_messages(messages))
    return [_strip(column) for column in zip(*rows, strict=True)] or [()] * num_columns, numbers


def _strip(cells: Sequence[str]) -> Sequence[str]:
    return [cell.strip() for cell in cells] if re.search(r"\s", "".join(cells)) else cells


def _join_first(cells: list[str], num_columns: int) -> list[str]:
    """Join the words of a path with spaces in the first column, if only its last word has a media suffix."""
    num_words = len(cells) - num_columns + 1
    path = " ".join(cells[:num_words])
    return [path, *cells[num_words:]] if suffix_of(path) in KNOWN_SUFFIXES else cells


def _without_header(lines: _Lines, where: str, exists: Callable[[str], bool]) -> ListTable:
    """Read lines of the form `path label`, `path` or `label path`: the form whose paths exist, or look like paths."""
    step = max(1, min(len(lines.texts), _SAMPLE) // 20)
    best, rows = (-1, -1), list[tuple[str, str]]()
    for form in _forms():
        if (pairs := form(lines)) is None:
            continue
        paths = [path for path, _ in pairs[:_SAMPLE:step]]
        score = sum(map(exists, paths)), sum(suffix_of(path) in KNOWN_SUFFIXES for path in paths)
        if score > best:
            best, rows = score, pairs
        if score == (len(paths), len(paths)):
            break
    if best == (0, 0) and (message := _several_columns(lines, where)):
        raise ConfigError([message])
    return ListTable([], [[path for path, _ in rows], [label for _, label in rows]], lines.numbers)


def _forms() -> Iterator[Callable[[_Lines], list[tuple[str, str]] | None]]:
    """Yield functions from lines to pairs of path and label, which return None if some line has another form."""
    for separator in (*_SEPARATORS, " "):
        yield partial(_split_pairs, separator, path_first=True)
    yield _split_lines
    yield lambda lines: [(_unquote(text), "") for text in lines.texts]
    for separator in (*_SEPARATORS, " "):
        yield partial(_split_pairs, separator, path_first=False)


def _split_pairs(separator: str, lines: _Lines, path_first: bool) -> list[tuple[str, str]] | None:
    """Return the path and the label of each line, or None if some line does not have two cells."""
    if separator not in lines.texts[0].strip().replace("\t", " " if separator == " " else "\t"):
        return None
    try:
        rows, numbers = _rows(lines, separator, "")
    except ConfigError:  # quotes that are unbalanced belong to the names
        return None
    if len(numbers) < len(lines.numbers) or any(len(row) != 2 for row in rows):
        return None
    first, second = (_strip(cells) for cells in zip(*rows, strict=True))
    return list(zip(first, second, strict=True) if path_first else zip(second, first, strict=True))


def _split_lines(lines: _Lines) -> list[tuple[str, str]]:
    """Return the path and the label of each line, as far as its end has the form of a label."""
    return [_split_line(text.strip()) for text in lines.texts]


def _split_line(line: str) -> tuple[str, str]:
    """Return the path and the label of a line. A line that ends in a media suffix is a path without a label."""
    if suffix_of(_unquote(line)) in KNOWN_SUFFIXES:
        return _unquote(line), ""
    for pattern in (_PATH_THEN_LABEL, _PATH_THENNUMBER, _PATH_THEN_WORD):
        if match := pattern.fullmatch(line):
            return _unquote(match[1]), _unquote(match[2])
    return _unquote(line), ""


def _unquote(text: str) -> str:
    """Remove quotes around a text. A quote at the start belongs to one that was split off the end."""
    text = text.strip()
    if len(text) > 2 and text[0] == text[-1] == "'":
        return text[1:-1]
    return text.strip('"') if text.startswith('"') else text


def _several_columns(lines: _Lines, where: str) -> str:
    """Return a message if lines have three or more columns, whose meaning only a header can tell."""
    for mark in (*_SEPARATORS, " "):
        counts = {len(_cells(text, mark) or ()) for text in lines.texts[:_SAMPLE]}
        if len(counts) == 1 and (num := counts.pop()) > 2:
            example = "path,label,start,end" if num == 4 else "path,num_frames,label"
            cure = f"add a first line with the names of the columns, such as {example}"
            line = f"{where}, line {lines.numbers[0]}"
            return f"{line}: {num} columns without a header ({lines.texts[0].strip()}); {cure}"
    return ""


def _read_arrow(file: Path, where: str) -> ListTable:
    """Read a table in the format of Parquet or Arrow."""
    import pyarrow as pa
    from pyarrow import feather, parquet

    try:
        read = parquet.read_table if file.suffix.lower() == ".parquet" else feather.read_table
        table = read(str(file))
    except (pa.ArrowException, OSError) as error:
        raise ConfigError([f"{where} cannot be read as a {file.suffix[1:]} table ({error}); write it again"]) from error
    names = list(table.column_names)
    texts: list[Sequence[str]] = [[_text(value) for value in table[name].to_pylist()] for name in names]
    return ListTable(names, texts, range(1, table.num_rows + 1), unit="row")


def _text(value: object) -> str:
    """Return a cell of an Arrow table as it would be written in a CSV file; missing values are empty."""
    if isinstance(value, bytes):
        return os.fsdecode(value)
    return "" if value is None else str(value).strip()
