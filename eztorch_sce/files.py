"""Atomic file writes."""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
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

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "note.txt") as partial:
    ...         _ = partial.write_text("hello")
    ...     (Path(folder) / "note.txt").read_text()
    'hello'
    """
    partial = _new(path, lambda name: name.touch(exist_ok=False))
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`, and rename it to `path` when the block succeeds.

    An existing folder at `path` is replaced. If the block raises, the new folder is removed and `path` is left as it
    was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing_folder(Path(folder) / "frames") as partial:
    ...         _ = (partial / "1.txt").write_text("hello")
    ...     os.listdir(folder)
    ['frames']
    """
    partial = _new(path, Path.mkdir)
    try:
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`, named as `remove_partials` knows, and remove it when the block ends."""
    folder = _new(path, Path.mkdir)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_partials(paths: Iterable[Path]) -> None:
    """Remove the temporary files and folders of these paths, which killed processes left behind.

    Call it only while no other process writes any of the paths.

    >>> import tempfile
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


def remove_all_partials(folder: Path) -> None:
    """Remove the temporary files and folders of all paths below a folder, which killed processes left behind.

    Call it only while no other process writes there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / ".note.txt.1a2b3c4d.partial").write_text("hel")
    ...     remove_all_partials(Path(folder))
    ...     os.listdir(folder)
    []
    """
    for entry in list(folder.rglob(".*.partial")):
        match = _PARTIAL.fullmatch(entry.name)
        if match and match["name"]:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; see `open_text`."""
    with replacing(path) as partial, open_text(partial, "w") as stream:
        stream.write(text)


def open_text(path: Path, mode: Literal["r", "w", "a"] = "r") -> IO[str]:
    """Open a text file as UTF-8, whatever the locale, without converting line ends.

    File names may be any bytes: those that are not UTF-8 are read and written unchanged.
    """
    return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")


def sync_folder(folder: Path) -> None:
    """Make the names of the files in a folder durable; file systems that cannot do that do it by themselves."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def _new(path: Path, create: Callable[[Path], None]) -> Path:
    """Create something under an unused temporary name beside `path`, with the access that the umask grants.

    Args:
        path: The path that the temporary one will replace.
        create: Function that creates a path, and raises FileExistsError if there is anything, a link included.
    """
    while True:
        partial = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
        try:
            create(partial)
        except FileExistsError:
            continue
        return partial
