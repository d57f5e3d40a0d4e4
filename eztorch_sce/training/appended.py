"""A file to which a training appends whole records, so that neither a full disk nor another writer damages it."""

import os
from contextlib import suppress
from pathlib import Path

from eztorch_sce.files import sync_folder


class AppendedFile:
    """A file that grows by whole records. It is opened for each of them, so it may be moved or deleted in between.

    Args:
        path: The file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._left: tuple[int, int] | None = None

    def is_as_left(self) -> bool:
        """Return whether the file is the one that this object last wrote, with nothing changed by others."""
        return self._left is not None and self._status() == self._left

    def append(self, content: bytes) -> None:
        """Append all of the content, or, if the disk is full, nothing.

        Raises:
            OSError: If the file cannot be written. Its content is then what it was.
        """
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size, rest = os.fstat(handle).st_size, memoryview(content)
            try:
                while rest:
                    rest = rest[os.write(handle, rest) :]
            except BaseException:
                os.ftruncate(handle, size)
                raise
        finally:
            os.close(handle)
        self.remember()

    def remember(self) -> None:
        """Take the file as it is for the one that this object wrote."""
        self._left = self._status()

    def sync(self) -> None:
        """Return once the file and its name are on the disk; a file that does not exist is ignored."""
        with suppress(FileNotFoundError):
            handle = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        with suppress(FileNotFoundError):
            sync_folder(self.path.parent)

    def _status(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size
