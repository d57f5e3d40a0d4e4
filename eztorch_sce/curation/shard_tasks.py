"""The records of shards in worker processes, none of which waits for the end of a shard."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from eztorch_sce.curation.workers import for_each
from eztorch_sce.jobs.work import Advance, Shard

R = TypeVar("R")


class Task(NamedTuple):
    """A record, as it is sent to a worker process.

    Attributes:
        shard: Number of its shard.
        row: Index of the record in the shard.
        content: What the function takes.
    """

    shard: int
    row: int
    content: Any


@dataclass
class Finished(Generic[R]):
    """A shard of which every record has been a task.

    Attributes:
        shard: The shard.
        contents: What the function took, for each record.
        results: What it returned, None where its process died.
        deaths: Why the process died, "" where it did not.
    """

    shard: Shard
    contents: list[Any]
    results: list[R | None]
    deaths: list[str]


def finished_shards(
    work: Callable[[Task], R],
    shards: Iterable[Shard],
    contents_of: Callable[[Shard], list[Any]],
    num_workers: int,
    limit_s: float,
    advance: Advance,
) -> Iterator[Finished[R]]:
    """Yield each shard as its last record completes.

    Args:
        work: Function of a task that pickle can import by name.
        shards: The shards.
        contents_of: Function that returns the content of the task of each record of a shard.
        num_workers: Number of processes.
        limit_s: Seconds per record, after which its process is killed.
        advance: Called with 1 for each record.
    """
    begun: dict[int, Finished[R]] = {}
    num_left: dict[int, int] = {}

    def tasks() -> Iterator[Task]:
        for shard in shards:
            contents = contents_of(shard)
            begun[shard.number] = Finished(shard, contents, [None] * len(contents), [""] * len(contents))
            num_left[shard.number] = len(contents)
            for row, content in enumerate(contents):
                yield Task(shard.number, row, content)

    def take_finished() -> Iterator[Finished[R]]:
        for number in [number for number, left in num_left.items() if not left]:
            del num_left[number]
            yield begun.pop(number)

    for task, result, death in for_each(work, tasks(), num_workers, limit_s):
        begun[task.shard].results[task.row] = result
        begun[task.shard].deaths[task.row] = death
        num_left[task.shard] -= 1
        advance(1)
        yield from take_finished()
    yield from take_finished()
