"""Worker processes of a loader, and what ends the run if one of them dies or hangs: an error that names the file."""

import atexit
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from torch._C import _remove_worker_pids
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from eztorch_sce import signals
from eztorch_sce.data.heartbeat import Heartbeat, Reading
from eztorch_sce.data.parcel import Channels, Parcel
from eztorch_sce.errors import LoadingError, first_line
from eztorch_sce.types import Failure, Sample

T = TypeVar("T")

_POLL_S = 0.5  # time between two looks at the workers while none delivers
_GRACE_S = 1.0  # time in which a worker that broke a connection may turn out to have died
_CRASH_CURE = "if it happens again, look at the file with `eztorch-sce data doctor`, or remove it"
_DEATHS: dict[int, tuple[str, str]] = {  # what a signal means, and the cure
    signal.SIGKILL: ("was killed (SIGKILL)", "if the system ran out of memory, set a smaller data.num_workers or "
     "data.prefetch=1"),
    signal.SIGBUS: ("died of a bus error (SIGBUS)", "shared memory (/dev/shm) is full, or a file changed while it was "
     "read; set data.prefetch=1 or data.num_workers=0, or enlarge it (docker run --shm-size=...)"),
}  # fmt: skip
_NO_ROOM = {  # what an error says, and what it means
    "No space left on device": "shared memory (/dev/shm) is full: set data.prefetch=1 or data.num_workers=0, or a "
    "smaller data.batch_size, or enlarge it (docker run --shm-size=...)",
    "Cannot allocate memory": "memory is full: set a smaller data.num_workers, data.prefetch or data.batch_size",
    "Too many open files": "too many files are open: raise the limit (ulimit -n), set a smaller data.num_workers, or "
    "keep fewer batches",
}


_running: "weakref.WeakSet[WatchedIterator]" = weakref.WeakSet()


class WatchedDataset(Dataset[Sample | Failure]):
    """Dataset whose worker processes note what they read, and send their batches as parcels.

    Args:
        dataset: The records; an item is (epoch, record index), see `EpochSampler`.
        num_workers: Number of worker processes.
    """

    def __init__(self, dataset: Any, num_workers: int) -> None:
        self.dataset, self.heartbeat, self._channels = dataset, Heartbeat(num_workers), Channels(num_workers)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: list[tuple[int, int]]) -> "Parcel | LoadingError":
        """Return the samples of a batch as a parcel, or the error that the main process shall raise."""
        worker = get_worker_info()
        assert worker is not None
        try:
            return Parcel(self._read(keys, worker.id), len(keys), self._channels, worker.id)
        except (RuntimeError, OSError) as error:
            if (message := _no_room(str(error))) is None:
                raise
            return LoadingError(message)
        finally:
            self.heartbeat.end(worker.id)

    def _read(self, keys: list[tuple[int, int]], worker: int) -> Iterator[Sample | Failure]:
        for key in keys:
            self.heartbeat.begin(worker, key[1])
            yield self.dataset[key]

    def path(self, record: int) -> str:
        """Return the file of a record."""
        return str(self.dataset.manifest.records.path(record))


class WatchedIterator(_MultiProcessingDataLoaderIter):
    """Iterator over the batches of worker processes that raises a LoadingError if one of them dies or hangs.

    torch alone waits for a hung worker for ever, and for one whose batch was lost on its way, as in a shared memory
    that is too small. It reports a death from a signal handler, which may interrupt any line of the main process, and
    without the file.

    Args:
        loader: The loader, with workers.
        timeout_s: Seconds that a worker may take for one record.
        may_stop: A signal may end the command while a batch is awaited.
    """

    def __init__(self, loader: DataLoader[Any], timeout_s: float, may_stop: bool) -> None:
        assert isinstance(loader.dataset, WatchedDataset)
        self._may_stop = may_stop
        self._watched, self._limit_s = loader.dataset, timeout_s
        self._quiet_since: float | None = None  # time since which no worker has read, while a batch is awaited
        super().__init__(loader)
        _remove_worker_pids(id(self))  # deaths are found below
        self._worker_pids_set = False
        _running.add(self)

    def _try_get_data(self, timeout: float = _POLL_S) -> tuple[bool, Any]:
        """Return (True, the next message of any worker), or (False, None) if none has come for a while."""
        try:
            arrived, data = super()._try_get_data(_POLL_S)  # type: ignore[no-untyped-call]
            if arrived:
                self._quiet_since = None
                return True, (data[0], _opened(data[1]))
        except (RuntimeError, OSError, EOFError) as error:
            if isinstance(error, LoadingError):
                raise
            self._raise_death(_GRACE_S)
            raise LoadingError(_no_room(str(error)) or f"a batch did not arrive: {first_line(error)}") from error
        if self._may_stop:
            signals.poll()
        self._raise_death(0.0)
        self._raise_hang()
        return False, None

    def _raise_death(self, wait_s: float) -> None:
        """Raise LoadingError if a worker has died, or dies within a time."""
        until = time.monotonic() + wait_s
        while True:
            for number, process in enumerate(self._workers):
                if not process.is_alive():
                    raise LoadingError(self._death(number, process))
            if time.monotonic() >= until:
                return
            time.sleep(0.01)

    def _death(self, number: int, process: BaseProcess) -> str:
        code = process.exitcode or 0
        how, cure = f"ended with exit code {code}", _CRASH_CURE
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            how, cure = _DEATHS.get(-code, (f"crashed ({name})", _CRASH_CURE))
        place = self._place(self._watched.heartbeat.reading(number))
        return f"{self._name(number)} {how}{place}: {cure}"

    def _raise_hang(self) -> None:
        """Raise LoadingError if a worker takes too long for a record, or if none works and still no batch comes."""
        is_reading = False
        for number in range(len(self._workers)):
            reading = self._watched.heartbeat.reading(number)
            if reading is not None and reading.elapsed_s > self._limit_s * reading.factor:
                cure = "check that its disk answers, or raise data.timeout_s if the file takes that long to read"
                hung = f"has not answered for {reading.elapsed_s:.0f} s{self._place(reading)}"
                raise LoadingError(f"{self._name(number)} {hung}: {cure}")
            is_reading = is_reading or reading is not None
        now = time.monotonic()
        if is_reading or self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since > self._limit_s:
            awaited = self._task_info.get(self._rcvd_idx)  # none at the beginning of an epoch
            pids = ", ".join(str(process.pid) for process in self._workers)
            name = f"one of the worker processes {pids} of the loader" if awaited is None else self._name(awaited[0])
            raise LoadingError(f"{name} has not answered for {now - self._quiet_since:.0f} s, between files")

    def _name(self, number: int) -> str:
        return f"worker process {self._workers[number].pid} of the loader"

    def _place(self, reading: Reading | None) -> str:
        return " between files" if reading is None else f" while reading {self._watched.path(reading.record)}"

    def end(self, at_once: bool) -> None:
        """End the workers; `at_once` kills them, even those that are stopped or hang."""
        if at_once:
            for process in self._workers:
                process.kill()
            for process in self._workers:
                process.join(_GRACE_S)
        self._shutdown_workers()

    def _shutdown_workers(self) -> None:
        """End the workers, killing those that do not end within seconds: Python would wait for them at its exit."""
        super()._shutdown_workers()
        for process in getattr(self, "_workers", []):  # none if their start failed
            if process.pid is not None and process.is_alive():
                process.kill()


def begin_worker(number: int) -> None:
    """Let this worker process ignore the signals that ask the command to end: it is needed until the command has."""
    signals.ignore()


@atexit.register
def _kill_workers() -> None:
    """Kill the workers that are left at the end: torch and multiprocessing would send SIGTERM, and wait."""
    for iterator in list(_running):
        for process in getattr(iterator, "_workers", []):
            process.kill()


def starting(start: Callable[[], T]) -> T:
    """Return the result of `start`, which starts worker processes.

    Raises:
        LoadingError: If the system does not allow as many processes, or has no room for them.
    """
    try:
        with signals.sheltered():
            return start()
    except OSError as error:
        cure = _no_room(str(error)) or "set a smaller data.num_workers, or raise the limit of processes (ulimit -u)"
        raise LoadingError(f"worker processes cannot be started ({first_line(error)}): {cure}") from None


def _opened(content: object) -> object:
    """Return the batch of a parcel, and any other content as it is.

    Raises:
        LoadingError: If a worker sent one, or page-locked memory or open files ran out.
    """
    if isinstance(content, Parcel):
        return content.open()
    if isinstance(content, LoadingError):
        raise content
    if isinstance(content, ExceptionWrapper) and "pin memory" in content.where:
        raise LoadingError(_no_room(content.exc_msg) or content.exc_msg)
    return content


def _no_room(text: str) -> str | None:
    """Return what ran out, and the cure, or None if the text of an error says nothing of it."""
    return next((message for words, message in _NO_ROOM.items() if words in text), None)
