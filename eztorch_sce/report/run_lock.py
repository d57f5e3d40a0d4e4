"""The lock of a run directory, which one process holds while its run lives."""

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
"""Name of the lock file in a run directory. It stays there; the lock on it ends with the process that holds it."""

_WAIT_S = 2.0  # for a process that only looks, or that is about to end
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of file systems that have none

_handles: set[int] = set()  # of the locks that this process holds


class RunLock:
    """The lock of a run directory, held until `release`, or until this process ends, however it does.

    The lock belongs to the open file, so that it is gone with a process that was killed, and it holds between machines
    on network file systems that pass locks on. Where the file system has no locks, a note says so.

    Args:
        run_dir: The run directory, which exists.

    Raises:
        ConfigError: If another process holds the lock; names it.
        OSError: If the directory cannot be written.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.handle = run_dir, os.open(run_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
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
                    where = f"the file system of {self.run_dir} has no locks"
                    return print_above(f"note: {where}: make sure that no other process uses this run directory")
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if time.monotonic() > stop:
                    raise ConfigError([self._in_use()]) from None
            time.sleep(0.05)

    def sign(self) -> None:
        """Write who holds the lock, for the message of others."""
        started = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
        os.ftruncate(self.handle, 0)
        os.pwrite(self.handle, json.dumps(owner).encode(), 0)

    def release(self) -> None:
        """Release the lock. Do nothing if it was released before."""
        if self.handle in _handles:
            _handles.discard(self.handle)
            os.close(self.handle)

    def _in_use(self) -> str:
        cure = "wait until it ends, or choose another directory"
        return f"run.dir={self.run_dir} is in use by {holder_of(self.run_dir)}: {cure}"


def holder_of(run_dir: Path) -> str:
    """Return who holds the lock of a run directory, in words, as far as the lock file says it."""
    owner: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError), open_text(run_dir / LOCK_FILE) as stream:
        owner = json.load(stream)
    if not isinstance(owner, dict) or not {"host", "pid", "started"} <= owner.keys():
        return "another process"
    return f"process {owner['pid']} on {owner['host']}, which started at {owner['started']}"


def is_locked(run_dir: Path) -> bool:
    """Return whether a process holds the lock of a run directory; False if that cannot be told."""
    if sys.platform == "win32":
        return False
    import fcntl

    with contextlib.suppress(OSError):
        handle = os.open(run_dir / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
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
