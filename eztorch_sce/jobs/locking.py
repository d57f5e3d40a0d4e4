"""The lock of a job, which one driver holds while it works: a lock of the folder, or an object behind a URL."""

import json
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from eztorch_sce.errors import ConfigError, disk_cure, first_line
from eztorch_sce.jobs.store import Store
from eztorch_sce.locks import FolderLock, holder_of, in_words, is_locked, this_process
from eztorch_sce.progress import print_above

LOCK_OBJECT = "lock.json"
_BEAT_S = 5.0  # between two signs of life of the holder of an object
_DEAD_S = 20.0  # without one, the holder has been killed


class JobLock(Protocol):
    """The lock of a job, held until `release` or until this process ends, however it does."""

    def confirm(self) -> None:
        """Raise ConfigError if the lock is no longer held, as after a long pause of this process."""

    def release(self) -> None:
        """Release the lock. Do nothing if it was released before."""


def lock_job(store: Store) -> JobLock:
    """Return the lock of a job.

    Raises:
        ConfigError: If another process holds it, which the message names, or the folder cannot be written.
    """
    try:
        return _ObjectLock(store) if store.path is None else _PathLock(store.path)
    except OSError as error:
        if store.path is None:  # the words name the URL and the cure
            raise ConfigError([first_line(error)]) from error
        reason = error.strerror or first_line(error)
        raise ConfigError([f"{store.folder} cannot be written ({reason}). {disk_cure(error)}"]) from None


def driver_of(store: Store) -> str:
    """Return which process holds the lock of a job, in words; empty if none does."""
    if store.path is not None:
        return holder_of(store.path) if is_locked(store.path) else ""
    owner = _owner(store)
    return in_words(owner) if owner and time.time() - owner.get("alive", 0.0) < _DEAD_S else ""


class _PathLock(FolderLock):
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, setting="")
        self.sign()

    def confirm(self) -> None:
        """The lock of a folder is held as long as this process lives."""


class _ObjectLock:
    """An object that its holder writes anew every few seconds, so that others see whether it is alive."""

    def __init__(self, store: Store) -> None:
        self.store, self.is_lost = store, False
        self.owner: dict[str, Any] = {**this_process(), "token": secrets.token_hex(8)}
        self.ended = threading.Event()
        self._take()
        self.thread = threading.Thread(target=self._beat, name="eztorch_sce keeps a lock", daemon=True)
        self.thread.start()

    def confirm(self) -> None:
        """See `JobLock.confirm`."""
        if self.is_lost:
            holder = in_words(_owner(self.store))
            cure = "wait until it ends, then run the same command again"
            raise ConfigError([f"{self.store.folder} was taken over by {holder}, since this process paused: {cure}"])

    def release(self) -> None:
        """See `JobLock.release`."""
        if not self.ended.is_set():
            self.ended.set()
            self.thread.join()
            with suppress(OSError):
                if self._is_mine():
                    self.store.remove(LOCK_OBJECT)

    def _take(self) -> None:
        while not self.store.create(LOCK_OBJECT, self._content()):
            owner = _owner(self.store)
            if owner is not None and self._is_dead(owner):
                self.store.remove(LOCK_OBJECT)

    def _is_dead(self, owner: dict[str, Any]) -> bool:
        """Return whether a holder shows no sign of life, rather than having released the lock meanwhile.

        Raises:
            ConfigError: If it shows one.
        """
        print_above(f"waiting up to {_DEAD_S:.0f} s to see whether {in_words(owner)} is still working on the job")
        stop = time.monotonic() + _DEAD_S
        while time.monotonic() < stop:
            time.sleep(_BEAT_S / 5)
            now = _owner(self.store)
            if now is None:
                return False
            if now != owner:
                raise ConfigError([f"{self.store.folder} is in use by {in_words(now)}: wait until it ends"])
        return True

    def _beat(self) -> None:
        while not self.ended.wait(_BEAT_S):
            with suppress(OSError):  # the network may answer again in time
                if not self._is_mine():
                    self.is_lost = True
                    return
                self.store.write(LOCK_OBJECT, self._content())

    def _is_mine(self) -> bool:
        owner = _owner(self.store)
        return owner is not None and owner.get("token") == self.owner["token"]

    def _content(self) -> bytes:
        return json.dumps({**self.owner, "alive": time.time()}).encode()


def _owner(store: Store) -> dict[str, Any] | None:
    """Return what the lock object says, or None if there is none."""
    try:
        owner = json.loads(store.read(LOCK_OBJECT))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}
