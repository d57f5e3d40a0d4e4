"""The state of a job, from its receipts alone, while other processes work on it or after they have ended."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from eztorch_sce.errors import ConfigError, counted, shorten
from eztorch_sce.jobs.job import JOB_FILE, NOT_DONE, Job
from eztorch_sce.jobs.locking import driver_of
from eztorch_sce.jobs.receipts import Receipt
from eztorch_sce.jobs.store import Store
from eztorch_sce.progress import in_digits, in_words

JOB_FOLDERS = (".doctor", ".prepare", ".extract")
"""Where commands keep their jobs, in the folder that they write to."""
_RECENT_S = 60.0  # a receipt that is younger shows that workers are alive, even without their driver


class JobStatus(NamedTuple):
    """The state of a job.

    Attributes:
        folder: Folder of the job.
        command: The command, such as "data doctor".
        num_shards: Number of shards.
        num_records: Number of records.
        receipts: The valid receipts, by shard.
        reasons: Why each of the other shards has none, by number.
        driver: The process that works on the job, in words; empty if there is none.
    """

    folder: str
    command: str
    num_shards: int
    num_records: int
    receipts: Mapping[int, Receipt]
    reasons: Mapping[int, str]
    driver: str

    @property
    def is_complete(self) -> bool:
        """Whether all shards are done."""
        return not self.reasons

    def lines(self) -> list[str]:
        """Return one line about the job, and one for each kind of stale or damaged receipts."""
        num_done = sum(receipt.num_inputs for receipt in self.receipts.values())
        num_failed = sum(len(receipt.failures) for receipt in self.receipts.values())
        per_s = records_per_s(self.receipts.values())
        shards = f"{len(self.receipts)} of {counted(self.num_shards, 'shard')}"
        parts = [shards, f"{num_done} of {counted(self.num_records, 'record')}", f"{num_failed} failed"]
        if per_s:
            parts.append(f"{in_digits(per_s)} records/s")
        last = max((receipt.finished for receipt in self.receipts.values()), default=0.0)
        age_s = max(0.0, time.time() - last)
        is_active = bool(self.driver) or age_s < _RECENT_S
        if per_s and is_active and not self.is_complete:
            parts.append(f"about {in_words((self.num_records - num_done) / per_s)} left")
        if hosts := sorted({receipt.host.partition(":")[0] for receipt in self.receipts.values()}):
            parts += [f"{counted(len(hosts), 'host')} ({shorten(hosts)})", f"last receipt {in_words(age_s)} ago"]
        parts.append(self._ending(is_active))
        stale: dict[str, list[str]] = defaultdict(list)
        for number, reason in self.reasons.items():
            if reason != NOT_DONE:
                stale[reason].append(str(number))
        kinds = [f"  to be done again, {reason}: shard {shorten(numbers, 10)}" for reason, numbers in stale.items()]
        return [f"{self.command} ({self.folder}): {', '.join(parts)}", *kinds]

    def _ending(self, is_active: bool) -> str:
        if self.driver:
            return f"in use by {self.driver}"
        if self.is_complete:
            return "complete"
        return "no command waits for it" if is_active else "interrupted; run the same command again to go on"


def find_jobs(out: str) -> list[JobStatus]:
    """Return the state of each job in a folder or behind a URL: of `out` itself, and of the folders of commands in it.

    Raises:
        ConfigError: If there is none.
    """
    places = [out, *(f"{out.rstrip('/')}/{name}" for name in JOB_FOLDERS)]
    folders = [folder for folder in places if Store(folder).has(JOB_FILE)]
    if not folders:
        store = Store(out)
        if store.path is not None and not store.path.exists():
            raise ConfigError([f"OUT={out} does not exist"])
        cure = "set OUT to the folder that `data doctor`, `data prepare` or `extract` writes to"
        note = "`extract` removes its job when it has written the features"
        raise ConfigError([f"OUT={out} has no job, and neither has {' or '.join(JOB_FOLDERS)} in it; {cure}; {note}"])
    return [status_of(Job.read(folder)) for folder in folders]


def status_of(job: Job) -> JobStatus:
    """Return the state of a job."""
    receipts, reasons = job.state()
    return JobStatus(job.store.folder, job.command, job.count, job.num_records, receipts, reasons, driver_of(job.store))


def records_per_s(receipts: Iterable[Receipt]) -> float:
    """Return the records per second of the time in which shards were worked on, 0 without receipts.

    >>> shards = [(100.0, 10.0), (102.0, 10.0), (500.0, 4.0)]  # two at once, and one after a pause
    >>> records_per_s([Receipt(0, "", "", "", 8, 8, "", {}, "n1", took, end) for end, took in shards])
    1.5
    """
    intervals = sorted((each.finished - each.seconds, each.finished, each.num_inputs) for each in receipts)
    worked_s, until, num_records = 0.0, float("-inf"), 0
    for start, end, count in intervals:
        worked_s += max(0.0, end - max(start, until))
        until = max(until, end)
        num_records += count
    return num_records / worked_s if worked_s else 0.0
