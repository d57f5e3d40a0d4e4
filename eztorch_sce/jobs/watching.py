"""Waiting for tasks on other machines: their progress, read from the receipts that they write."""

import time
from collections.abc import Callable, Sequence

from eztorch_sce import signals
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.receipts import FOLDER, ReceiptReader
from eztorch_sce.jobs.work import Advance

_EVERY_S = 1.0
_POLL_S = 0.2  # between two looks for a signal
_LOOKING = 0.1  # at most this fraction of the time is spent on reading receipts


def watch_receipts(job: Job, shards: Sequence[int], advance: Advance, is_running: Callable[[], bool]) -> None:
    """Report shards as their receipts appear, until all have one or none of their tasks is running.

    Args:
        job: The job.
        shards: Numbers of the shards that tasks work on.
        advance: Called with the number of records and of failures of each shard that is done.
        is_running: Returns whether a task is running or will run. It may raise, which ends the waiting.

    Raises:
        Stopped: If a signal asks the command to end.
    """
    reader, waiting = ReceiptReader(job.store), set(shards)
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
        if waiting and goes_on:
            advance(0)
            _wait(max(_EVERY_S, (time.monotonic() - started) / _LOOKING))


def _wait(seconds: float) -> None:
    """Wait, and raise Stopped if a signal comes."""
    stop = time.monotonic() + seconds
    while (left_s := stop - time.monotonic()) > 0:
        signals.poll()
        time.sleep(min(left_s, _POLL_S))
