"""Text files from any system: byte-order marks, UTF-16, and the line ends of Unix, Windows and old Macs."""

import codecs
from pathlib import Path

from eztorch_sce.errors import ConfigError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CURE = "not a text file; save it as text, such as CSV in UTF-8"


def read_text(file: Path) -> str:
    r"""Return the content of a text file with "\n" as the line end.

    Bytes that are not UTF-8 become surrogates, as in Python's file functions: names of files may be bytes of any
    encoding.

    Raises:
        ConfigError: If the file cannot be read or is not text.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError([f"{file} cannot be read ({error.strerror}); make it readable"]) from error
    if content.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        raise ConfigError([f"{file} is an archive or an Excel workbook, {_CURE}"])
    encoding = _guess_utf16(content[:4096])
    for mark, name in _MARKS:
        if content.startswith(mark):
            content, encoding = content[len(mark) :], name
            break
    try:
        text = content.decode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file} is not valid {encoding.upper()} ({error.reason}); save it as UTF-8"]) from error
    if "\0" in text:
        raise ConfigError([f"{file} is a binary file, {_CURE}"])
    return text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")


def text_lines(file: Path) -> list[str]:
    """Return the lines of a text file that are not blank, stripped."""
    return [line.strip() for line in read_text(file).split("\n") if line.strip()]


def _guess_utf16(head: bytes) -> str:
    """Return the encoding of a text without a mark: every second byte of mostly ASCII text in UTF-16 is zero."""
    if 2 * head[1::2].count(0) > len(head[1::2]):
        return "utf-16-le"
    if 2 * head[::2].count(0) > len(head[::2]):
        return "utf-16-be"
    return "utf-8"
