"""Waiting for tasks on other machines: their progress, read from the receipts that they write."""

import time
from collections.abc import Callable, Collection, Sequence

from eztorch_sce import signals
from eztorch_sce.errors import shorten
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.receipts import FOLDER, ReceiptReader
from eztorch_sce.jobs.work import Advance
from eztorch_sce.progress import in_words, print_above

_EVERY_S = 1.0
_POLL_S = 0.2  # between two looks for a signal
_LOOKING = 0.1  # at most this fraction of the time is spent on reading receipts
_SLOW = 3.0  # times as long as the slowest shard so far without a receipt: what is left waits for a slow node
_SLOW_S = 60.0  # at least, so that short shards are not called slow


def watch_receipts(job: Job, shards: Sequence[int], advance: Advance, is_running: Callable[[], bool]) -> None:
    """Report shards as their receipts appear, until all have one or none of their tasks is running.

    Shards that take much longer than all others are named: Ray and SLURM start no second copy of a slow task.

    Args:
        job: The job.
        shards: Numbers of the shards that tasks work on.
        advance: Called with the number of records and of failures of each shard that is done.
        is_running: Returns whether a task is running or will run. It may raise, which ends the waiting.

    Raises:
        Stopped: If a signal asks the command to end.
    """
    reader, waiting, stall = ReceiptReader(job.store), set(shards), _Stall()
    goes_on = True
    while waiting and goes_on:
        goes_on = is_running()
        if not goes_on:
            job.store.refresh(FOLDER)
        started = time.monotonic()
        for receipt in reader.changed():
            if receipt.shard in waiting and job.is_valid(receipt):
                waiting.remove(receipt.shard)
                advance(receipt.num_inputs, len(receipt.failures))
                stall.end(receipt.seconds)
        if waiting and goes_on:
            advance(0)
            stall.report(waiting)
            _wait(max(_EVERY_S, (time.monotonic() - started) / _LOOKING))


class _Stall:
    """Notices that no receipt has come for long, and says so once."""

    def __init__(self) -> None:
        self._slowest_s, self._since, self._is_told = 0.0, time.monotonic(), False

    def end(self, seconds: float) -> None:
        """Note a receipt, of a shard that took so many seconds."""
        self._slowest_s, self._since, self._is_told = max(self._slowest_s, seconds), time.monotonic(), False

    def report(self, waiting: Collection[int]) -> None:
        """Name the shards that have no receipt, if none has come for much longer than any shard has taken."""
        waited_s = time.monotonic() - self._since
        if self._is_told or not self._slowest_s or waited_s < max(_SLOW_S, _SLOW * self._slowest_s):
            return
        self._is_told = True
        others = f"no other took more than {in_words(self._slowest_s)}"
        cure = "if a machine is slow or hangs, end its task, and the shard is done again"
        names = shorten([str(number) for number in sorted(waiting)])
        print_above(f"nothing has come for {in_words(waited_s)} from shard {names}; {others}; {cure}")


def _wait(seconds: float) -> None:
    """Wait, and raise Stopped if a signal comes."""
    stop = time.monotonic() + seconds
    while (left_s := stop - time.monotonic()) > 0:
        signals.poll()
        time.sleep(min(left_s, _POLL_S))
