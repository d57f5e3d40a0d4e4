"""The folder of a job: files written at once or not at all, on a local or shared file system or behind a URL."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from eztorch_sce.data.members import file_system
from eztorch_sce.files import replacing, sync_folder


class Store:
    """Files below a folder.

    Args:
        folder: Path, or a URL that fsspec opens, such as `s3://bucket/features`.

    Raises:
        ConfigError: If the plug-in of fsspec for the URL is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self.is_local = "://" not in self.folder
        self._system: Any
        self._system, self._root = (None, self.folder) if self.is_local else file_system(self.folder)

    def address(self, name: str) -> str:
        """Return the path or URL of a file."""
        return os.path.join(self.folder, name) if self.is_local else f"{self.folder.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        if self._system is None:
            return Path(self.address(name)).read_bytes()
        content: bytes = self._system.cat_file(self._path(name))
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, durably: readers see the earlier file or the complete new one."""
        if self._system is not None:
            return self._system.pipe_file(self._path(name), content)  # type: ignore[no-any-return]
        path = Path(self.address(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)

    def open(self, name: str) -> Any:
        """Return a file as Arrow reads it: mapped into memory if it is local."""
        import pyarrow as pa

        if self._system is None:
            return pa.memory_map(self.address(name))
        return pa.PythonFile(self._system.open(self._path(name), "rb"), mode="r")

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, sorted; none if there is no such folder."""
        try:
            if self._system is None:
                found = os.listdir(self.address(folder))
            else:
                self._system.invalidate_cache()
                found = [path.rpartition("/")[2] for path in self._system.ls(self._path(folder), detail=False)]
        except FileNotFoundError:
            return []
        return sorted(name for name in found if name and not name.startswith("."))

    def states(self, folder: str) -> dict[str, str]:
        """Return a text for each file in a folder, by name, that differs after the file has been replaced."""
        if self._system is not None:
            try:
                self._system.invalidate_cache()
                entries = self._system.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
            return {entry["name"].rpartition("/")[2]: repr(entry) for entry in entries}
        states = {}
        with suppress(FileNotFoundError), os.scandir(self.address(folder)) as files:
            for file in files:
                with suppress(FileNotFoundError):  # replaced meanwhile
                    status = file.stat()
                    states[file.name] = f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"
        return states

    def refresh(self, folder: str) -> None:
        """See to it that the next listing of a folder shows what other machines have written.

        NFS answers from memory for up to a minute, unless this machine itself changes the folder.
        """
        if self._system is None:
            with suppress(OSError), tempfile.NamedTemporaryFile(dir=self.address(folder), prefix="."):
                pass

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        try:
            if self._system is None:
                os.unlink(self.address(name))
            else:
                self._system.rm_file(self._path(name))
        except FileNotFoundError:
            return

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"
