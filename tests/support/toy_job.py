"""A job on text files that needs no decoder: it counts letters. Processes of other tests import it by its name."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from eztorch_sce.jobs.job import file_states
from eztorch_sce.jobs.work import Output, Shard, Work


class CountLetters(Work):
    """Counts the letters of files; a file without letters is a failure.

    Args:
        letters: The letters to count.
        wait_s: Seconds to wait before each file.
    """

    command = "count letters"

    def __init__(self, letters: str, wait_s: float = 0.0) -> None:
        self.letters, self.wait_s = letters, wait_s
        self.calls: list[str] = []

    def settings(self) -> dict[str, str | float]:
        return {"letters": self.letters, "wait_s": self.wait_s}

    @classmethod
    def load(cls, settings: dict[str, str | float]) -> "CountLetters":
        return cls(str(settings["letters"]), float(settings["wait_s"]))

    def process(
        self, shards: Iterable[Shard], num_workers: int | None, advance: Callable[[int], None]
    ) -> Iterator[Output]:
        for number, rows in shards:
            counts: dict[str, int] = {}
            for key in rows["key"].to_pylist():
                time.sleep(self.wait_s)
                path = os.fsdecode(key)
                self.calls.append(path)
                counts[path] = sum(map(Path(path).read_text().count, self.letters))
                advance(1)
            kept = [path for path, count in counts.items() if count]
            columns = {"key": pa.array(map(os.fsencode, kept), pa.large_binary(), size=len(kept))}
            columns["count"] = pa.array([counts[path] for path in kept], pa.int64())
            yield Output(number, pa.table(columns), {path: "no letters" for path, count in counts.items() if not count})


def write_files(folder: Path, count: int) -> list[str]:
    """Write files of 0 to 4 letters "a", and return their paths."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04d}.txt").write_text("a" * (number % 5))
    return sorted(map(str, folder.iterdir()))


def records_of(paths: Sequence[str]) -> pa.Table:
    """Return the records of files."""
    sizes, times = zip(*file_states(list(paths)), strict=True)
    keys = pa.array(map(os.fsencode, paths), pa.large_binary(), size=len(paths))
    return pa.table({"key": keys, "size": pa.array(sizes), "time_ns": pa.array(times)})
