"""The work of `data prepare` on shards of videos: a copy of each, unless a current one exists."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.copying import encode, write_frame_folder
from eztorch_sce.curation.settings import PrepareConfig
from eztorch_sce.curation.shard_tasks import Task, finished_shards
from eztorch_sce.curation.shared_folder import check_visible
from eztorch_sce.errors import MediaError
from eztorch_sce.jobs.work import LOADING, Advance, Output, Settings, Shard, Work

LIMIT_S = 3600.0
"""Seconds after which a copy counts as hung."""


class _Copy(NamedTuple):
    source: str
    target: str
    config: PrepareConfig


class _Copied(NamedTuple):
    """Size of a copy in bytes, or the reason why there is none."""

    num_bytes: int = 0
    failure: str = ""


class PrepareWork(Work):
    """Copies the videos of a folder.

    Args:
        folder: Absolute path of the folder, to which the keys of the records are relative.
        out: Absolute path of the folder of the copies.
        config: Format of the copies.
    """

    command = "data prepare"

    def __init__(self, folder: str, out: str, config: PrepareConfig) -> None:
        self.folder, self.out, self.config = folder, out, config

    def settings(self) -> Settings:
        """See `Work.settings`."""
        return {**self.config.format_settings(), LOADING: {"folder": self.folder, "out": self.out}}

    @classmethod
    def load(cls, settings: Settings) -> "PrepareWork":
        """See `Work.load`."""
        config = PrepareConfig(**{name: value for name, value in settings.items() if name != LOADING})
        return cls(settings[LOADING]["folder"], settings[LOADING]["out"], config)

    def process(self, shards: Iterable[Shard], num_workers: int | None, advance: Advance) -> Iterator[Output]:
        """See `Work.process`. A copy is named by `target`, relative to the folder of the copies, and has `bytes`.

        Raises:
            ConfigError: If this machine does not see the folder.
            OSError: If a copy cannot be written.
        """
        import pyarrow as pa

        def copies(shard: Shard) -> list[_Copy]:
            keys = list(map(os.fsdecode, shard.rows["key"].to_pylist()))
            check_visible(self.folder, keys)
            return [self.copy_of(key) for key in keys]

        num_processes = num_workers or num_usable_cores()
        for done in finished_shards(_copy, shards, copies, num_processes, LIMIT_S, advance):
            keys = done.shard.rows["key"].to_pylist()
            outcomes = [
                copied or _Copied(failure=death) for copied, death in zip(done.results, done.deaths, strict=True)
            ]
            copied = [(key, outcome) for key, outcome in zip(keys, outcomes, strict=True) if not outcome.failure]
            targets = [os.fsencode(target_of(os.fsdecode(key), self.config.to)) for key, _ in copied]
            columns = {
                "key": pa.array([key for key, _ in copied], pa.large_binary()),
                "target": pa.array(targets, pa.large_binary()),
                "bytes": pa.array([outcome.num_bytes for _, outcome in copied], pa.int64()),
            }
            failed = zip(map(os.fsdecode, keys), outcomes, strict=True)
            failures = {key: outcome.failure for key, outcome in failed if outcome.failure}
            yield Output(done.shard.number, pa.table(columns), failures)

    def copy_of(self, key: str) -> _Copy:
        """Return the task of a video, by its path relative to the folder."""
        target = os.path.join(self.out, target_of(key, self.config.to))
        return _Copy(os.path.join(self.folder, key), target, self.config)


def target_of(key: str, to: str) -> str:
    """Return the path of the copy of a video, relative to the folder of the copies.

    >>> target_of("a/one.avi", to="h264"), target_of("a/one.avi", to="frames")
    ('a/one.mp4', 'a/one')
    """
    return os.path.splitext(key)[0] + (".mp4" if to == "h264" else "")


def is_current(source: str, target: str) -> bool:
    """Return whether a copy exists and is not older than its source."""
    if not os.path.exists(target):
        return False
    return not os.path.exists(source) or os.path.getmtime(target) >= os.path.getmtime(source)


def _copy(task: Task) -> _Copied:
    """Write a copy, unless there is a current one, in a worker process."""
    source, target, config = task.content
    if not is_current(source, target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            if config.to == "frames":
                write_frame_folder(source, Path(target), config)
            else:
                encode(source, Path(target), config)
        except MediaError as error:
            return _Copied(failure=error.reason)
    if config.to == "frames":
        return _Copied(sum(entry.stat().st_size for entry in os.scandir(target)))
    return _Copied(os.path.getsize(target))
