"""Printing of text that comes from outside: paths, class names, errors of libraries.

Such text is shown as it is. It is never read as markup or emoji codes, and a name that contains control characters can
neither change the terminal nor pretend to be a line of its own.
"""

import os
import sys
import textwrap
import unicodedata
from typing import Any

from rich.console import Console
from rich.text import Text

_HIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})  # Unicode categories: controls, surrogates, line separators
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def visible(text: str) -> str:
    r"""Return a text on one line, with characters that have no form of their own written as escapes.

    Bytes of a file name that are not UTF-8 are written as such.

    >>> visible("Übung [1]"), visible("a\nb\x1b[31m"), visible("caf\udce9")
    ('Übung [1]', 'a\\nb\\x1b[31m', 'caf\\xe9')
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{os.fsencode(character).hex()}"
    if unicodedata.category(character) in _HIDDEN or character in _BIDIRECTIONAL:
        return character.encode("unicode_escape").decode("ascii")
    return character


def lines(*texts: str) -> Text:
    """Return a cell of a table with one line for each text, as `visible` shows it."""
    return Text("\n".join(map(visible, texts)))


class PlainConsole(Console):
    """Console that shows every string verbatim, on one line; only `Text` objects have styles.

    Args:
        **options: As for `rich.console.Console`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as rich text. Every string passes here: lines, table cells, titles."""
        return super().render_str(visible(text), **options)


def print_line(text: str) -> None:
    """Print a line on stdout, without wrapping it."""
    PlainConsole().print(text, soft_wrap=True)


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` characters, the later ones indented. Long words stay whole.

    >>> wrapped("- measured on 69 test records of 10 classes", 24)
    ['- measured on 69 test', '  records of 10 classes']
    """
    return textwrap.wrap(visible(text), width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def print_wrapped(text: str) -> None:
    """Print prose on stdout, wrapped to the width of the terminal. Paths and commands are left to `print_line`."""
    console = PlainConsole()
    for line in wrapped(text, console.width):
        console.print(line, soft_wrap=True)


def in_bytes(count: float) -> str:
    """Return a number of bytes with three digits and a decimal unit.

    >>> in_bytes(900), in_bytes(1_234_567), in_bytes(999_900), in_bytes(42e12)
    ('900 B', '1.23 MB', '1 MB', '42 TB')
    """
    units = ("B", "KB", "MB", "GB", "TB", "PB")
    value, unit = float(count), 0
    while unit < len(units) - 1 and float(f"{value:.3g}") >= 1000:
        value, unit = value / 1000, unit + 1
    return f"{value:.4g} {units[unit]}" if value >= 1000 else f"{value:.3g} {units[unit]}"


def accept_any_text() -> None:
    """Write characters that the encoding of stdout or stderr lacks as escapes, instead of failing on them."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a stream replaced by a test or a notebook may lack it
            stream.reconfigure(errors="backslashreplace")
