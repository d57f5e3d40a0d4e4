"""The folder of a job: files written at once or not at all, on a local or shared file system or behind a URL."""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from eztorch_sce.data.members import file_system
from eztorch_sce.errors import ConfigError, first_line
from eztorch_sce.files import replacing, sync_folder

T = TypeVar("T")

_WAITS_S = (1.0, 4.0)  # before the second and the third try of a network that does not answer
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError, ConfigError)
"""Errors that another try would not mend."""


class Store:
    """Files below a folder.

    Args:
        folder: Path, or a URL that fsspec opens, such as `s3://bucket/features`.

    Attributes:
        folder: As given.
        path: The folder, or None behind a URL.

    Raises:
        ConfigError: If the plug-in of fsspec for the URL is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self.path: Path | None = Path(self.folder)
        self._system: Any = None
        self._root = self.folder
        if "://" in self.folder:
            system, self._root = file_system(self.folder)
            is_local = "file" in ([system.protocol] if isinstance(system.protocol, str) else system.protocol)
            self.path = Path(self._root) if is_local else None
            self._system = None if is_local else system

    def address(self, name: str) -> str:
        """Return the path or URL of a file."""
        return f"{self.folder.rstrip('/')}/{name}" if self.path is None else str(self.path / name)

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotFoundError: If there is no such file.
            OSError: If it cannot be read.
        """
        if self.path is not None:
            return (self.path / name).read_bytes()
        content: bytes = self._call(lambda path: self._system.cat_file(path), name)
        return content

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return some ranges of bytes of a file; from a URL, only they are fetched, several at a time.

        Raises:
            OSError: If the file cannot be read or ends earlier.
        """
        contents: list[bytes]
        if self.path is not None:
            with (self.path / name).open("rb") as file:
                contents = [os.pread(file.fileno(), stop - start, start) for start, stop in ranges]
        else:
            starts, stops = (list(ends) for ends in zip(*ranges, strict=True))
            contents = self._call(
                lambda path: self._system.cat_ranges([path] * len(ranges), starts, stops, on_error="raise"), name
            )
        if any(len(content) != stop - start for content, (start, stop) in zip(contents, ranges, strict=True)):
            raise OSError(f"{self.address(name)} ends early")
        return contents

    def has(self, name: str) -> bool:
        """Return whether there is a file."""
        if self.path is not None:
            return (self.path / name).is_file()
        found: bool = self._call(lambda path: self._system.exists(path), name)
        return found

    def write(self, name: str, content: bytes) -> None:
        """Write a file, durably: readers see the earlier file or the complete new one.

        Raises:
            OSError: If it cannot be written.
        """
        if self.path is None:
            self._call(lambda path: self._put(path, bytes(content)), name)
            return
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file unless it exists, and return whether it was written."""
        try:
            if self.path is None:
                self._call(lambda path: self._put(path, content, mode="create"), name)
            else:
                self.path.mkdir(parents=True, exist_ok=True)
                with (self.path / name).open("xb") as file:
                    file.write(content)
        except FileExistsError:
            return False
        return True

    def open(self, name: str) -> Any:
        """Return a file as Arrow reads it: mapped into memory if it is local."""
        import pyarrow as pa

        if self.path is not None:
            return pa.memory_map(self.address(name))
        return pa.PythonFile(self._call(lambda path: self._system.open(path, "rb"), name), mode="r")

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, sorted; none if there is no such folder."""
        return sorted(name for name in self.states(folder) if not name.startswith("."))

    def states(self, folder: str) -> dict[str, str]:
        """Return a text for each file in a folder, by name, that differs after the file has been replaced."""
        states: dict[str, str] = {}
        if self.path is None:
            with suppress(FileNotFoundError):
                entries = self._call(self._list, folder)
                states = {entry["name"].rstrip("/").rpartition("/")[2]: repr(entry) for entry in entries}
            return states
        with suppress(FileNotFoundError), os.scandir(self.path / folder) as files:
            for file in files:
                with suppress(FileNotFoundError):  # replaced meanwhile
                    status = file.stat()
                    states[file.name] = f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"
        return states

    def refresh(self, folder: str) -> None:
        """See to it that the next listing of a folder shows what other machines have written.

        NFS answers from memory for up to a minute, unless this machine itself changes the folder.
        """
        if self.path is not None:
            with suppress(OSError), tempfile.NamedTemporaryFile(dir=self.path / folder, prefix="."):
                pass

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        with suppress(FileNotFoundError):
            if self.path is None:
                self._call(lambda path: self._system.rm_file(path), name)
            else:
                (self.path / name).unlink()

    def _list(self, path: str) -> Any:
        self._system.invalidate_cache()
        return self._system.ls(path, detail=True)

    def _put(self, path: str, content: bytes, mode: str = "overwrite") -> None:
        """Write a file behind a URL, and its folders where there are such, but no bucket."""
        options = {} if mode == "overwrite" else {"mode": mode}
        try:
            self._system.pipe_file(path, content, **options)
        except FileNotFoundError:
            top = path.partition("/")[0] or "/"
            if not self._system.exists(top):
                raise FileNotFoundError(f"{self.folder}: {top} does not exist; create it first") from None
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._system.pipe_file(path, content, **options)

    def _call(self, call: Callable[[str], T], name: str) -> T:
        """Return what a function of a file behind a URL returns; try it again if the network does not answer.

        Raises:
            OSError: If it fails, in words that name the file.
        """
        waits = list(_WAITS_S)
        while True:
            try:
                return call(f"{self._root.rstrip('/')}/{name}")
            except _FINAL as error:
                if isinstance(error, PermissionError):
                    words = f"no permission for {self.address(name)} ({first_line(error)}): check the credentials"
                    raise PermissionError(words) from error
                raise
            except Exception as error:  # libraries of networks have their own
                if not waits:
                    words = f"{self.address(name)} cannot be reached ({first_line(error)})"
                    raise ConnectionError(words) from error
                time.sleep(waits.pop(0))
