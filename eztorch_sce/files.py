"""Atomic file writes."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

# Temporary names: ".NAME.xxxxxxxx.partial", and "NAME.partial" in earlier versions.
_PARTIAL = re.compile(r"\.(?P<name>.+)\.\w{8}\.partial|(?P<old_name>.+)\.partial")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, and rename it to `path` when the block succeeds.

    Readers see the old file or the complete new one, and several processes may write the same path at once. If the
    block raises, the temporary file is removed and `path` is unchanged.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "note.txt") as partial:
    ...         _ = partial.write_text("hello")
    ...     (Path(folder) / "note.txt").read_text()
    'hello'
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())  # mkstemp grants access to the owner only
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`, and rename it to `path` when the block succeeds.

    An existing folder at `path` is replaced. If the block raises, the new folder is removed and `path` is left as it
    was.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing_folder(Path(folder) / "frames") as partial:
    ...         _ = (partial / "1.txt").write_text("hello")
    ...     os.listdir(folder)
    ['frames']
    """
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())  # mkdtemp grants access to the owner only
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_partials(paths: Iterable[Path]) -> None:
    """Remove the temporary files and folders of these paths, which killed processes left behind.

    Call it only while no other process writes any of the paths.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / ".note.txt.1a2b3c4d.partial").write_text("hel")
    ...     remove_partials([Path(folder) / "note.txt"])
    ...     os.listdir(folder)
    []
    """
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder in filter(Path.is_dir, names):
        for entry in list(folder.iterdir()):
            match = _PARTIAL.fullmatch(entry.name)
            if match and (match["name"] or match["old_name"]) in names[folder]:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; see `open_text`."""
    with replacing(path) as partial, open_text(partial, "w") as stream:
        stream.write(text)


def open_text(path: Path, mode: Literal["r", "w", "a"] = "r") -> IO[str]:
    """Open a text file as UTF-8, whatever the locale, without converting line ends.

    File names may be any bytes: those that are not UTF-8 are read and written unchanged.
    """
    return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")


def _umask() -> int:
    """Return the umask of the process, which can only be read by setting it."""
    current = os.umask(0)
    os.umask(current)
    return current
