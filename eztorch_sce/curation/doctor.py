"""Inspection of the files of a data set before training, and the table that lets runs start without opening files."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.contents import digests_of_similar
from eztorch_sce.curation.doctor_work import DoctorWork
from eztorch_sce.curation.media_rows import MediaRows, findings_as_text, with_findings
from eztorch_sce.curation.settings import DoctorConfig
from eztorch_sce.curation.shared_folder import records_of_files
from eztorch_sce.data.frame_names import split_frames_path
from eztorch_sce.data.sources.list_file import from_list
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.media_kinds import Listing, all_media, shorten_ignored
from eztorch_sce.data.sources.media_table import (
    TABLE_NAME,
    MediaRow,
    check_writable,
    folder_times,
    location_columns,
    write_columns,
)
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.summary import counts_in_words, ignored_in_words
from eztorch_sce.data.sources.walk import DOCTOR_FOLDER, OWN_FILES, Skipped, walk
from eztorch_sce.errors import ConfigError
from eztorch_sce.jobs.driver import check_new_job, rehearse_job, run_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.progress import print_above
from eztorch_sce.settings import invalid_settings


class Diagnosis(NamedTuple):
    """Outcome of `diagnose`.

    Attributes:
        rows: One row of the table per file, sorted by path; then one per unreadable folder, which the table lacks.
        seconds: Duration of the scan.
        skipped: Files that are neither videos nor images by suffix; no command reads them.
        table: Path of the table.
    """

    rows: MediaRows
    seconds: float
    skipped: list[str]
    table: Path

    @property
    def num_unusable(self) -> int:
        """Number of files from which not every clip can be read."""
        return self.rows.num_unusable

    def counts(self) -> list[tuple[str, int, str]]:
        """Return (kind of finding, number of files, first file), most frequent kind first."""
        return self.rows.counts()


def diagnose(root: Path, config: DoctorConfig | None = None) -> Diagnosis:
    """Inspect every video, image and frame folder under a folder, and write its table.

    Files that have the size and the modification time of an earlier inspection with the same settings are not inspected
    again.

    Args:
        root: Folder to inspect.
        config: Settings; paths in its lists are relative to `root`.

    Raises:
        ConfigError: If a setting is invalid, the folder has no media, or a list names missing files.
    """
    config = config or DoctorConfig()
    root, listing, records = _open(root, config)
    paths = list(records.paths())
    times_ns = folder_times(root, paths)
    lists = [from_list(Path(file), root, setting="lists") for file in config.lists]
    started = time.perf_counter()
    rows = _inspect_all(root, records, config)
    num_threads = config.workers or num_usable_cores()
    digests = digests_of_similar(paths, rows, root / DOCTOR_FOLDER, num_threads, fresh=config.full)
    rows = _with_digests(rows, digests)
    rows = with_findings(rows, _findings_about_content(paths, rows["key"].to_pylist(), digests, lists))
    seconds = time.perf_counter() - started
    skipped, unreadable = _skipped_files(root, paths, rows)
    table = _write_table(root, rows, times_ns, listing)
    return Diagnosis(MediaRows(rows, unreadable), seconds, skipped, table)


def rehearse_diagnosis(root: Path, config: DoctorConfig) -> list[str]:
    """Return lines that tell what `diagnose` would do, without writing or inspecting anything."""
    root, _, records = _open(root, config)
    for file in config.lists:
        from_list(Path(file), root, setting="lists")
    work, table = DoctorWork(str(root), config.full), records_of_files(records, str(root))
    job = Job.planned(root / DOCTOR_FOLDER, work, table, config.runner.shard_records)
    return [f"writes {root / TABLE_NAME}", *rehearse_job(job, config.runner.build())]


def _open(root: Path, config: DoctorConfig) -> tuple[Path, Listing, Records]:
    """Return the absolute folder, its content and its media, after printing what it holds."""
    if messages := invalid_settings(config):
        raise ConfigError(messages)
    root = Path(os.path.abspath(root))
    check_writable(root)
    listing = Listing.of(str(root))
    records = all_media(listing, f"FOLDER={root}")
    ignored = shorten_ignored(sum(listing.ignored().values(), Counter()))
    for line in (f"data: {counts_in_words(records.num_by_kind())}", *ignored_in_words(ignored)):
        print_above(line)
    return root, listing, records


def _inspect_all(root: Path, records: Records, config: DoctorConfig) -> Any:
    """Return the row of each file, an Arrow table in the order of the records."""
    work, runner = DoctorWork(str(root), config.full), config.runner.build()
    folder = root / DOCTOR_FOLDER
    try:
        check_new_job(str(folder), runner, config.workers)
        job = Job.create(folder, work, records_of_files(records, str(root)), config.runner.shard_records)
        return run_job(job, work, runner, config.workers).table
    except OSError as error:
        cure = "finished shards are kept; run the same command again to continue"
        raise ConfigError([f"FOLDER={root} cannot be written to ({error}); {cure}"]) from error


def _with_digests(rows: Any, digests: dict[int, str]) -> Any:
    import pyarrow as pa

    column = [""] * len(rows)
    for index, digest in digests.items():
        column[index] = digest
    return rows.append_column("digest", pa.array(column, pa.string()))


def _findings_about_content(
    paths: Sequence[str], keys: Sequence[bytes], digests: dict[int, str], lists: Sequence[Manifest]
) -> dict[int, list[str]]:
    """Return findings by row: the content is that of an earlier file, or is named by more than one list."""
    findings: dict[int, list[str]] = {}
    first: dict[str, int] = {}
    for index, digest in digests.items():
        original = first.setdefault(digest, index)
        if digest and original != index:
            findings[index] = [f"duplicate: same content as {os.fsdecode(keys[original])}"]
    if lists:
        contents = {path: digests.get(index) or path for index, path in enumerate(paths)}
        num_lists: Counter[str] = Counter()
        for manifest in lists:
            num_lists.update({contents.get(record.path, record.path) for record in manifest.records})
        for index, path in enumerate(paths):
            if num_lists[contents[path]] > 1:
                findings.setdefault(index, []).append("in two lists")
    return findings


def _write_table(root: Path, rows: Any, times_ns: dict[str, int], listing: Listing) -> Path:
    import pyarrow as pa

    columns = location_columns(list(map(os.fsdecode, rows["key"].to_pylist())), rows["kind"].to_pylist())
    for name in ("usable", *MediaRow._fields[4:]):
        columns[name] = rows[name]
    columns["findings"] = findings_as_text(rows["findings"])
    return write_columns(root, pa.table(columns), times_ns, listing.ignored())


def _relative(root: Path, path: str) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def _skipped_files(root: Path, paths: Sequence[str], rows: Any) -> tuple[list[str], list[MediaRow]]:
    """Return the files that were not inspected, except those written by `data` commands, and the unreadable folders."""
    skipped, left_out, inspected = [], Skipped(), set(paths)
    kinds = rows["kind"].to_pylist()
    frame_folders = {split_frames_path(path)[0] for path, kind in zip(paths, kinds, strict=True) if kind == "frames"}
    for folder, subfolders, files in walk(str(root), left_out):
        # the images of a frame folder were inspected with the folder
        subfolders[:] = [name for name in subfolders if os.path.join(folder, name) not in frame_folders]
        others = [os.path.join(folder, name) for name in files if name not in OWN_FILES]
        skipped += [_relative(root, path) for path in others if path not in inspected]
    unreadable = [
        _unreadable_folder(_relative(root, path), reason) for path, reason in sorted(left_out.unreadable.items())
    ]
    return skipped, unreadable


def _unreadable_folder(path: str, reason: str) -> MediaRow:
    return MediaRow(
        path=path,
        kind="frames",
        usable=False,
        findings=[f"unreadable folder: {reason}"],
        bytes=0,
        digest="",
        duration_s=0.0,
        fps=0.0,
        width=0,
        height=0,
        codec="",
        num_frames=0,
        num_keys=0,
    )
