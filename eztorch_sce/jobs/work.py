"""The interface between a job and what it does with the records of its shards: inspect, copy or embed them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

Settings = dict[str, Any]

LOADING = "loading"
"""Key of the settings that a worker needs, but that do not decide the output, such as the time that a file may take."""


class Shard(NamedTuple):
    """The records of a shard.

    Attributes:
        number: Number of the shard, from 0.
        rows: Arrow table of its records, in the order of the job. The column `key` (large_binary) names each.
    """

    number: int
    rows: Any


class Output(NamedTuple):
    """The result for a shard.

    Attributes:
        number: Number of the shard.
        table: Arrow table with a row per record, in the order of the shard, without those that failed. It has the
            column `key`.
        failures: Reason by key of each record without a row.
    """

    number: int
    table: Any
    failures: dict[str, str]


class Advance(Protocol):
    """Function that is told of progress."""

    def __call__(self, num_records: int, num_failures: int = 0) -> None:
        """Add records that are done and, once their shard is finished, how many of them have failed."""


class Work(ABC):
    """A pure function of (shard, settings): the same records and settings give the same output on every machine.

    Attributes:
        command: The command that starts such jobs, such as "data doctor".
        keeps_rows: Whether the row of a record depends on nothing but this record and the settings, bit for bit, so
            that it is kept when other records of the shard change. Its shard then has only the changed ones.
    """

    command: str
    keeps_rows: bool = False

    @abstractmethod
    def settings(self) -> Settings:
        """Return the settings that decide the output, as JSON stores them; others are below the key `LOADING`."""

    @classmethod
    @abstractmethod
    def load(cls, settings: Settings) -> "Work":
        """Return the work of these settings, in a worker process on any machine."""

    @abstractmethod
    def process(self, shards: Iterable[Shard], num_workers: int | None, advance: Advance) -> Iterator[Output]:
        """Yield the output of each shard as it completes, in any order.

        The shards are read one after the other, so that no worker process is idle between them. A record that cannot
        be read is a failure with a reason; an error that is raised (such as a full disk) leaves the shards that have
        not been yielded undone.

        Args:
            shards: The shards.
            num_workers: Worker processes; None starts one per core.
            advance: To be called with the number of records that are done since the last call.
        """
