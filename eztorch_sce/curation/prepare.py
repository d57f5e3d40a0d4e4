"""Re-encoded copies of videos that decode fast: small, with frequent key frames and no sound; h264 or JPEG images."""

import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.copying import speedup
from eztorch_sce.curation.prepare_work import LIMIT_S, PrepareWork, is_current, target_of
from eztorch_sce.curation.settings import PrepareConfig
from eztorch_sce.curation.shared_folder import records_of_files, relative_paths
from eztorch_sce.curation.workers import for_each
from eztorch_sce.data.sources.media_kinds import Listing, all_media
from eztorch_sce.data.sources.records import KINDS, Records
from eztorch_sce.data.sources.summary import counts_in_words
from eztorch_sce.data.sources.walk import PREPARE_FOLDER, PREPARED_FILE
from eztorch_sce.errors import ConfigError, shorten
from eztorch_sce.files import remove_partials, write_text
from eztorch_sce.jobs.driver import check_new_job, rehearse_job, run_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.merge import Merged
from eztorch_sce.progress import print_above
from eztorch_sce.settings import invalid_settings

_PER_TASK = 256  # pairs that a thread compares in one go
_NUM_TIMED = 5  # copies whose speedup is measured


@dataclass
class Prepared:
    """Outcome of `prepare`.

    Attributes:
        num_written: Copies written by this call.
        num_kept: Copies that were already there.
        failed: Reason for each source that could not be copied, by path.
        seconds: Duration of the call.
        speedup: Median ratio of the times to read a clip from the source and from its copy, measured on a few files
            that this call has copied; None if no file was measured.
    """

    num_written: int = 0
    num_kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    speedup: float | None = None

    @property
    def num_copies(self) -> int:
        """Number of copies in the folder."""
        return self.num_written + self.num_kept


class _Pair(NamedTuple):
    source: str
    target: str


def prepare(root: Path, out: Path, config: PrepareConfig) -> Prepared:
    """Re-encode every video under `root` to the same relative path under `out`, skipping copies that already exist.

    A copy gets its final name only after it has been read back and its frames agree with the source in number, time,
    size and mean brightness. Images and frame folders are not copied. After an interruption, the same call continues.

    Raises:
        ConfigError: With all problems: invalid settings and folders, sources whose copies would have the same name,
            or copies made with other settings.
    """
    root, out, records, pairs = _open(root, out, config)
    started = time.perf_counter()
    try:
        check_new_job(str(out / PREPARE_FOLDER), config.runner.build(), config.workers)
        _record_settings(root, out, config)
        missing = _missing(pairs)
        merged = _copy_all(root, out, records, missing, config)
    except OSError as error:  # from the file system; an unreadable source is a failure
        cure = "finished copies are kept; run the same command again to continue"
        raise ConfigError([f"OUT={out} cannot be written to ({error}); {cure}"]) from error
    failed = {os.path.join(root, key): reason for key, reason in merged.failures.items()}
    written = [pair for pair in missing if pair.source not in failed]
    return Prepared(
        num_written=len(written),
        num_kept=len(pairs) - len(missing),
        failed=failed,
        seconds=time.perf_counter() - started,
        speedup=_median_speedup(written, config),
    )


def rehearse_copies(root: Path, out: Path, config: PrepareConfig) -> list[str]:
    """Return lines that tell what `prepare` would do, without writing or copying anything.

    Raises:
        ConfigError: As `prepare` does.
    """
    root, out, records, pairs = _open(root, out, config)
    _check_recorded(root, out, config)
    missing = _missing(pairs)
    work, table = PrepareWork(str(root), str(out), config), records_of_files(records, str(root))
    job = Job.planned(out / PREPARE_FOLDER, work, table, config.runner.shard_records)
    lines = [f"copies to write: {len(missing)} of {len(pairs)}, to {out}"]
    return [*lines, *rehearse_job(job, config.runner.build(), _keys(missing, root))]


def _open(root: Path, out: Path, config: PrepareConfig) -> tuple[Path, Path, Records, list[_Pair]]:
    """Return both folders as absolute paths, the videos, and the paths of each video and of its copy."""
    root, out = Path(os.path.abspath(root)), Path(os.path.abspath(out))
    if messages := invalid_settings(config) + _invalid_folders(root, out):
        raise ConfigError(messages)
    records = _videos(root)
    return root, out, records, _pairs(records, root, out, config)


def _copy_all(root: Path, out: Path, records: Records, missing: Sequence[_Pair], config: PrepareConfig) -> Merged:
    """Copy the videos that have no current copy."""
    work = PrepareWork(str(root), str(out), config)
    table = records_of_files(records, str(root))
    job = Job.create(out / PREPARE_FOLDER, work, table, config.runner.shard_records)
    remove_partials(Path(pair.target) for pair in missing)
    job.discard_shards_of(_keys(missing, root))
    return run_job(job, work, config.runner.build(), config.workers)


def _keys(pairs: Sequence[_Pair], root: Path) -> list[bytes]:
    keys: list[bytes] = relative_paths([pair.source for pair in pairs], str(root)).to_pylist()
    return keys


def _median_speedup(pairs: Sequence[_Pair], config: PrepareConfig) -> float | None:
    """Return how many times faster clips are read from a few copies than from their sources."""
    if config.to == "frames":
        return None
    num_workers = config.workers or num_usable_cores()
    measured = [ratio for _, ratio, _ in for_each(_speedup, pairs[:_NUM_TIMED], num_workers, LIMIT_S)]
    return statistics.median(known) if (known := [ratio for ratio in measured if ratio is not None]) else None


def _speedup(pair: _Pair) -> float:
    return speedup(pair.source, pair.target)


def _invalid_folders(root: Path, out: Path) -> list[str]:
    real_root, real_out = root.resolve(), out.resolve()
    if not root.is_dir():
        return [f"FOLDER={root} does not exist"]
    if real_root == real_out or real_root in real_out.parents or real_out in real_root.parents:
        return [f"OUT={out} must be outside FOLDER={root}, so that no source is overwritten or mistaken for a copy"]
    own = (PREPARE_FOLDER, PREPARED_FILE)
    foreign = [path for path in out.iterdir() if not path.name.startswith(own)] if out.is_dir() else []
    if foreign and not (out / PREPARED_FILE).is_file():  # last: another command may be writing it
        return [f"OUT={out} contains files not made by `data prepare`; choose a new or an empty folder"]
    return []


def _videos(root: Path) -> Records:
    records = all_media(Listing.of(str(root)), f"FOLDER={root}")
    counts = records.num_by_kind()
    if not counts["video"]:
        raise ConfigError([f"FOLDER={root} contains images but no video; choose a folder of videos"])
    others = Counter({kind: count for kind, count in counts.items() if kind != "video"})
    not_copied = f"; not copied: {counts_in_words(others)}" if others else ""
    print_above(f"data: {counts_in_words({'video': counts['video']})} to copy{not_copied}")
    return records.where(records.kind_codes == KINDS.index("video"))


def _pairs(records: Records, root: Path, out: Path, config: PrepareConfig) -> list[_Pair]:
    """Return the paths of each video and of its copy."""
    start = os.path.join(root, "")
    pairs = [_Pair(path, os.path.join(out, target_of(path.removeprefix(start), config.to))) for path in records.paths()]
    sources: dict[str, list[str]] = {}
    for pair in pairs:
        sources.setdefault(pair.target, []).append(pair.source)
    if collisions := [" and ".join(paths) for paths in sources.values() if len(paths) > 1]:
        message = "differ only in their suffix, so their copies would have the same name; rename them"
        raise ConfigError([f"{shorten(collisions)} {message}"])
    return pairs


def _record_settings(root: Path, out: Path, config: PrepareConfig) -> None:
    """Write the settings into the folder of the copies, or compare them with those recorded there."""
    _check_recorded(root, out, config)
    if not (file := out / PREPARED_FILE).is_file():
        _write_json(file, _settings(root, config))


def _check_recorded(root: Path, out: Path, config: PrepareConfig) -> None:
    """Raise ConfigError if the copies in a folder were made with other settings."""
    if not (file := out / PREPARED_FILE).is_file():
        return
    recorded = json.loads(file.read_text())
    changes = [
        f"{name}={recorded.get(name)} (now {value})"
        for name, value in _settings(root, config).items()
        if recorded.get(name) != value
    ]
    if changes:
        cure = "choose another folder, or the same settings"
        raise ConfigError([f"OUT={out} contains copies made with {', '.join(changes)}; {cure}"])


def _settings(root: Path, config: PrepareConfig) -> dict[str, object]:
    return {"source": str(root), **config.format_settings()}


def _write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(content, indent=2) + "\n")


def _missing(pairs: Sequence[_Pair]) -> list[_Pair]:
    """Return the videos that have no current copy; a network file system answers several threads at a time."""
    parts = [pairs[start : start + _PER_TASK] for start in range(0, len(pairs), _PER_TASK)]
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda part: [pair for pair in part if not is_current(*pair)], parts)
        return [pair for part in found for pair in part]
