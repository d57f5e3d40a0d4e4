"""The lock of a folder, such as a run directory, which one process holds while its work lives."""

import contextlib
import errno
import json
import os
import socket
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from eztorch_sce.errors import ConfigError
from eztorch_sce.files import open_text
from eztorch_sce.progress import print_above

LOCK_FILE = ".lock"
"""Name of the lock file in a folder. It stays there; the lock on it ends with the process that holds it."""

_WAIT_S = 2.0  # for a process that only looks, or that is about to end
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of file systems that have none

_handles: set[int] = set()  # of the locks that this process holds


class FolderLock:
    """The lock of a folder, held until `release`, or until this process ends, however it does.

    The lock belongs to the open file, so that it is gone with a process that was killed, and it holds between machines
    on network file systems that pass locks on. Where the file system has no locks, a note says so.

    Args:
        folder: The folder, which exists.
        setting: The setting that names the folder, for messages; empty if none does.

    Raises:
        ConfigError: If another process holds the lock; names it.
        OSError: If the folder cannot be written.
    """

    def __init__(self, folder: Path, setting: str = "run.dir") -> None:
        self.folder, self.setting = folder, setting
        self.handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        _handles.add(self.handle)
        try:
            self._lock()
        except BaseException:
            self.release()
            raise

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        import fcntl

        stop = time.monotonic() + _WAIT_S
        while True:
            try:
                return fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    where = f"the file system of {self.folder} has no locks"
                    return print_above(f"note: {where}: make sure that no other process uses this folder")
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if time.monotonic() > stop:
                    raise ConfigError([self._in_use()]) from None
            time.sleep(0.05)

    def sign(self) -> None:
        """Write who holds the lock, for the message of others."""
        os.ftruncate(self.handle, 0)
        os.pwrite(self.handle, json.dumps(this_process()).encode(), 0)

    def release(self) -> None:
        """Release the lock. Do nothing if it was released before."""
        if self.handle in _handles:
            _handles.discard(self.handle)
            os.close(self.handle)

    def _in_use(self) -> str:
        place = f"{self.setting}={self.folder}" if self.setting else str(self.folder)
        cure = "wait until it ends, or choose another directory" if self.setting else "wait until it ends"
        return f"{place} is in use by {holder_of(self.folder)}: {cure}"


def this_process() -> dict[str, Any]:
    """Return what a lock says about its holder."""
    started = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started}


def in_words(owner: object) -> str:
    """Return a holder in words, as far as its lock says it.

    >>> in_words({"host": "n1", "pid": 12, "started": "2026-05-04 12:30 UTC"}), in_words(None)
    ('process 12 on n1, which started at 2026-05-04 12:30 UTC', 'another process')
    """
    if not isinstance(owner, dict) or not {"host", "pid", "started"} <= owner.keys():
        return "another process"
    return f"process {owner['pid']} on {owner['host']}, which started at {owner['started']}"


def holder_of(folder: Path) -> str:
    """Return who holds the lock of a folder, in words, as far as the lock file says it."""
    with contextlib.suppress(OSError, ValueError), open_text(folder / LOCK_FILE) as stream:
        return in_words(json.load(stream))
    return in_words(None)


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a folder; False if that cannot be told."""
    if sys.platform == "win32":
        return False
    import fcntl

    with contextlib.suppress(OSError):
        handle = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
    return False


def _close_in_child() -> None:
    """Close the locks in a forked process, which would otherwise hold them on after its parent was killed."""
    for handle in _handles:
        with contextlib.suppress(OSError):
            os.close(handle)
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
