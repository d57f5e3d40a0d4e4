"""Benchmark of jobs of 1,000,000 records: dividing them into shards, and merging the outputs with their proof.

python benchmarks/merge.py --json benchmarks/results/merge.json

The outputs have the columns of `data doctor`. They are written by the code that workers use, and are not timed. Each
step runs in a process of its own, whose peak memory is reported; the files are in the page cache.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from common import Row, arguments, finish, row

from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.merge import merge
from eztorch_sce.jobs.work import Output, Shard, Work
from eztorch_sce.jobs.worker import finish_shards

NUM_RECORDS = 1_000_000
US = "eztorch_sce"
_FAILED_EVERY = 1000  # one record of so many has failed


class Inspected(Work):
    """Yields rows like those of `data doctor`, without reading a file."""

    command = "benchmark"

    def settings(self) -> dict[str, Any]:
        return {}

    @classmethod
    def load(cls, settings: dict[str, Any]) -> "Inspected":
        return cls()

    def process(
        self, shards: Iterable[Shard], num_workers: int | None, advance: Callable[[int], None]
    ) -> Iterator[Output]:
        for number, rows in shards:
            index = rows["row"].to_numpy()
            is_failed = index % _FAILED_EVERY == 0
            failed = [key.decode() for key in rows["key"].filter(pa.array(is_failed)).to_pylist()]
            kept, index = rows.filter(pa.array(~is_failed)), index[~is_failed]
            columns = {
                "key": kept["key"],
                "kind": pa.array(np.zeros(len(index), np.int8)),
                "usable": pa.array(index % 50 > 0),
                "findings": pa.array([["no sound", "variable frame rate: 24 to 30"][: n % 3] for n in index.tolist()]),
                "bytes": kept["size"],
                "digest": pa.array([f"{n:032x}" if n % 100 == 0 else "" for n in index.tolist()]),
                "duration_s": pa.array(index % 977 / 97.7),
                "fps": pa.array(np.full(len(index), 29.97)),
                "width": pa.array(np.full(len(index), 340)),
                "height": pa.array(np.full(len(index), 256)),
                "codec": pa.array(["h264"] * len(index)),
                "num_frames": pa.array(index % 300),
                "num_keys": pa.array(index % 25),
            }
            yield Output(number, pa.table(columns), dict.fromkeys(failed, "no video stream"))


def records() -> Any:
    """Return a table of records as `data doctor` makes it."""
    names = [f"class {number % 700:03d}/{number:011x}_000012_000022.mp4".encode() for number in range(NUM_RECORDS)]
    sizes = pa.array(np.arange(NUM_RECORDS) % 999_983 + 100_000)
    return pa.table({"key": pa.array(names, pa.large_binary()), "size": sizes, "time_ns": sizes})


def step(name: str, folder: str, per_shard: int) -> None:
    """Do one step in this process, and print its seconds and the peak memory of the process in bytes."""
    table = records() if name == "create" else None
    started = time.perf_counter()
    if name == "create":
        Job.create(folder, Inspected(), table, per_shard)
    elif name == "work":
        job = Job.open(folder)
        assert not finish_shards(job, Inspected(), range(job.count), None, lambda num_records, num_failures=0: None)
    else:
        merged = merge(Job.open(folder))
        assert len(merged.table) + len(merged.failures) == NUM_RECORDS
        assert np.all(np.diff(merged.table["row"].to_numpy()) > 0)
    seconds = time.perf_counter() - started
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def measured(name: str, folder: str, per_shard: int) -> tuple[float, float]:
    """Return the seconds and the peak memory in bytes of a step in a process of its own."""
    command = [sys.executable, __file__, name, folder, str(per_shard)]
    seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), float(peak)


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    rows: list[Row] = []
    for per_shard in (2000, 1000):
        with tempfile.TemporaryDirectory() as folder:
            job = str(Path(folder) / "job")
            shards = f"{NUM_RECORDS:,} records in {NUM_RECORDS // per_shard} shards"
            for name, words in (("create", "dividing"), ("work", ""), ("merge", "merging with proof")):
                seconds, peak = measured(name, job, per_shard)
                if words:
                    rows.append(row(f"{words} {shards}", US, NUM_RECORDS / seconds, "records/s"))
                    rows.append(row(f"peak memory of {words} {shards}", US, peak / 1e6, "MB"))
    notes = ["The process of a merge must take at most 60 s (16,667 records/s) and 2 GB."]
    finish(rows, ["eztorch_sce", "pyarrow", "numpy"], options.json, notes)


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in ("create", "work", "merge"):
        step(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main()
