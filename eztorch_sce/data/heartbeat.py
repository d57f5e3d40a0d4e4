"""Record that each worker process of a loader is reading, in memory that the main process sees."""

import time
from multiprocessing.sharedctypes import RawArray
from typing import NamedTuple

_CLIPS_PER_TIMEOUT = 10  # more clips of one record may take longer in proportion
_IDLE = -1.0
_RECORD, _SINCE_S, _FACTOR = range(3)
_WIDTH = 3  # numbers per worker: each is written as a whole, so no lock is needed


class Reading(NamedTuple):
    """What a worker process is reading.

    Attributes:
        record: Index of the record in its manifest.
        elapsed_s: Seconds since it began.
        factor: Multiple of the usual time that it may take.
    """

    record: int
    elapsed_s: float
    factor: float


class Heartbeat:
    """Board on which each worker process writes the record that it is reading.

    Args:
        num_workers: Number of worker processes.
    """

    def __init__(self, num_workers: int) -> None:
        self._numbers = RawArray("d", [_IDLE, 0.0, 1.0] * num_workers)

    def begin(self, worker: int, record: int) -> None:
        """Note that a worker begins to read a record."""
        global _own
        _own = (self, worker)
        first = worker * _WIDTH
        self._numbers[first + _SINCE_S] = time.monotonic()  # one clock for all processes of a machine
        self._numbers[first + _FACTOR] = 1.0
        self._numbers[first + _RECORD] = record

    def end(self, worker: int) -> None:
        """Note that a worker reads nothing."""
        self._numbers[worker * _WIDTH + _RECORD] = _IDLE

    def expect_clips(self, worker: int, num_clips: int) -> None:
        """Allow the present record more time if it has many clips."""
        self._numbers[worker * _WIDTH + _FACTOR] = max(1.0, num_clips / _CLIPS_PER_TIMEOUT)

    def reading(self, worker: int) -> Reading | None:
        """Return what a worker is reading, or None if nothing."""
        first = worker * _WIDTH
        record, since_s, factor = self._numbers[first : first + _WIDTH]
        return None if record == _IDLE else Reading(int(record), time.monotonic() - since_s, factor)


_own: tuple[Heartbeat, int] | None = None  # the board and the number of this process, if it is a worker


def expect_clips(num_clips: int) -> None:
    """Note how many clips of the present record are read, if this process is a worker of a loader."""
    if _own is not None:
        board, worker = _own
        board.expect_clips(worker, num_clips)
