"""The records of a study: divided once, without a leak, read once, and written to lists that all of its runs use."""

import csv
import hashlib
import os
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eztorch_sce.data.config import TEST_FRACTION, DataConfig
from eztorch_sce.data.dataset import EvaluationSampling
from eztorch_sce.data.loading import evaluation_loader
from eztorch_sce.data.sources.groups import group_codes, merge
from eztorch_sce.data.sources.holdout import can_hold_out, holdout
from eztorch_sce.data.sources.labels import check_labels
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import Records
from eztorch_sce.data.sources.splits import Draw, Splits
from eztorch_sce.errors import ConfigError, MediaError, shorten
from eztorch_sce.files import open_text, replacing
from eztorch_sce.progress import counting
from eztorch_sce.types import InputSpec

MIN_TRAIN = 4
"""Fewest records to pretrain on: a batch compares two, and there must be others."""
_MOST_UNREADABLE = 0.5
_BYTES = 1 << 20  # read at once


@dataclass
class StudyRecords:
    """What a study knows of its records, and where their lists are.

    Attributes:
        kind: "video" or "image".
        train, test: Number of records of each split that the study uses.
        all_train, all_test: Number of records that the data have.
        classes: Class names; empty if there is nothing to tell apart.
        unreadable: Number of records that could not be read, which are left out.
        read_s: Seconds that reading a record as for an evaluation takes, with all worker processes.
        has_groups: Whether the lists name groups of records that belong together.
        notes: Remarks, in words.
    """

    kind: str
    train: int
    test: int
    all_train: int
    all_test: int
    classes: list[str]
    unreadable: int
    read_s: float
    has_groups: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def is_subset(self) -> bool:
        """Whether there was not enough time to read all records."""
        return self.train + self.test + self.unreadable < self.all_train + self.all_test

    def data(self, directory: Path, settings: DataConfig, all_records: bool = False) -> DataConfig:
        """Return the data of the runs: the lists of the study, read with the settings of the user.

        Args:
            directory: Directory of the study.
            settings: The settings of the study.
            all_records: Take the whole train split, also if the study uses a subset.
        """
        train = directory / ("train_all.csv" if all_records and self.is_subset else "train.csv")
        test = str(directory / "test.csv") if self.test else None
        group = "group" if self.has_groups else None
        return replace(
            settings, root=None, test_root=None, annotations=None, layout="auto", frames_pattern=None, split=1,
            list=str(train), test_list=test, group=group, test_fraction=None, duplicates="keep",
        )  # fmt: skip

    def as_dict(self) -> dict[str, object]:
        """Return the content for the state of the study."""
        return asdict(self)


def divide(data: DataConfig, seed: int) -> Splits:
    """Return the splits of the data, so that nothing that belongs together is in both.

    What belongs together: the groups of `data.group`, the segments of a video, links to one file, and files with the
    same content. If the data define a test split, train records with the content of a test record are left out.
    Without labels, or with a single class, all records are for training.

    Raises:
        ConfigError: If files are missing or labels are incomplete.
    """
    if data.pretrain_on != "train":
        raise ConfigError([f"data.pretrain_on={data.pretrain_on} would train on the records to test on: remove it"])
    data.check_no_label_subset()
    splits = data.open_in_groups()
    if splits.train.records.has_source:
        raise ConfigError(["study reads files, not a source or tar shards: unpack them into a folder first"])
    if len(splits.train.classes) < 2:
        parts = [splits.train.records] if splits.test is None else [splits.train.records, splits.test.records]
        found = f"1 class ({splits.train.classes[0]})" if splits.train.classes else "no labels"
        manifest = Manifest(Records.concatenate(parts).with_labels(None), [], splits.train.source)
        return Splits(manifest, None, splits.origin, notes=(*splits.notes, f"{found}: nothing to test"))
    if splits.test is not None:
        check_labels(splits)
        return _without_copies(_with_test_groups(splits, data))
    contents, num_copies = _contents(splits.train.records)
    groups = splits.train.records.groups
    if num_copies:
        own = groups if groups is not None else np.arange(-len(contents), 0, dtype=np.int64)
        groups = merge(own, contents)
        manifest = splits.train.with_records(splits.train.records.with_groups(groups), splits.train.source)
        splits = splits._replace(train=manifest, notes=(*splits.notes, _copies_note(num_copies, "kept in one split")))
    if not can_hold_out(splits.train):
        note = "no class has two records to divide: nothing to test"
        manifest = Manifest(splits.train.records.with_labels(None), [], splits.train.source)
        return splits._replace(train=manifest, notes=(*splits.notes, note))
    splits = holdout(splits, Draw(data.test_fraction or TEST_FRACTION, seed, data.group), groups)
    check_labels(splits)
    return splits


def _with_test_groups(splits: Splits, data: DataConfig) -> Splits:
    """Attach the groups of `data.group` to the test records, which are drawn in whole groups for intervals."""
    test = splits.labeled_test
    if data.group is None:
        return splits
    groups = group_codes(test, data.group, data.folder())
    return splits._replace(test=test.with_records(test.records.with_groups(groups), test.source))


def _without_copies(splits: Splits) -> Splits:
    """Leave out train records whose content is in the test split too."""
    train, test = splits.train.records, splits.labeled_test.records
    contents, num_copies = _contents(Records.concatenate([train, test]))
    if not num_copies:
        return splits
    is_copy = np.isin(contents[: len(train)], contents[len(train) :])
    if not is_copy.any():
        return splits
    kept = splits.train.with_records(train.where(~is_copy), splits.train.source)
    note = _copies_note(int(is_copy.sum()), "left out of the train split")
    return splits._replace(train=kept, notes=(*splits.notes, note))


def _copies_note(count: int, what: str) -> str:
    return f"{count} file{'s' if count > 1 else ''} with the content of another one: {what}"


def _contents(records: Records) -> tuple[npt.NDArray[np.int64], int]:
    """Return a number for the content of each record, the same for the same content, and how many are copies.

    Only files of the same size are read. Folders of frames, and segments of a video, count as different.
    """
    numbers = np.arange(len(records), dtype=np.int64)
    by_size: dict[int, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        if record.kind != "frames" and record.start_s is None and record.end_s is None:
            try:
                by_size[os.stat(record.path).st_size].append(index)
            except OSError:
                continue  # reading it will say so
    same_size = [index for indices in by_size.values() if len(indices) > 1 for index in indices]
    first: dict[bytes, int] = {}
    with counting(len(same_size), "comparing files") as advance:
        for index in same_size:
            digest = _digest(records.path(index))
            if digest is not None:
                numbers[index] = first.setdefault(digest, index)
            advance()
    return numbers, int((numbers != np.arange(len(records))).sum())


def _digest(path: str) -> bytes | None:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while block := file.read(_BYTES):
                digest.update(block)
    except OSError:
        return None
    return digest.digest()


def read_records(
    splits: Splits, data: DataConfig, spec: InputSpec, sampling: EvaluationSampling, seconds: float, directory: Path
) -> StudyRecords:
    """Read every record once as an evaluation will, and write the lists of those that can be read.

    Records are read in random order. If the time is up first, those that were read are the data of the study.

    Args:
        splits: The data, divided.
        data: Settings of the loader.
        spec: The input of the networks.
        sampling: Clips and crops of the evaluations.
        seconds: Seconds to read.
        directory: Directory of the study.

    Raises:
        ConfigError: If too few records are left to train on.
        MediaError: If more than half of the records cannot be read.
    """
    parts = [split.records for split in (splits.train, splits.test) if split is not None]
    joined = Records.concatenate(parts)
    order = np.random.default_rng(0).permutation(len(joined))
    shuffled = splits.train.with_records(joined.take(order), splits.train.source)
    done, failures, read_s = _read(shuffled, data, spec, sampling, seconds)
    if len(failures) > _MOST_UNREADABLE * max(1, len(done) + len(failures)):
        path, reason = failures[0]
        raise MediaError(path, f"{reason}. {len(failures)} of {len(done) + len(failures)} files could not be read")
    rows = np.sort(order[done])
    train, test = rows[rows < len(parts[0])], rows[rows >= len(parts[0])] - len(parts[0])
    if splits.test is not None:  # a class that only test records have cannot be recognized
        test = test[np.isin(splits.test.records.labels[test], parts[0].labels[train])]
    if len(train) < MIN_TRAIN:
        cure = "pretraining compares records and needs more"
        raise ConfigError([f"{len(train)} records can be trained on, and a study needs at least {MIN_TRAIN}: {cure}"])
    notes = [*splits.notes, *splits.train.notes]
    if failures:
        names = shorten([f"{path} ({reason})" for path, reason in failures])
        notes.append(f"{len(failures)} unreadable, left out: {names}")
    kind = "image" if joined.all_images() else "video"
    all_test = len(parts[1]) if len(parts) > 1 else 0
    classes = splits.train.classes if splits.test is not None else []
    found = StudyRecords(
        kind, len(train), len(test), len(parts[0]), all_test, classes, len(failures), read_s, notes=notes
    )
    found.has_groups = any(part.groups is not None for part in parts)
    if found.is_subset:
        notes.append(f"{len(train) + len(test)} of {len(joined)} records are used: there was no time to read more")
    group_of = "train" if found.has_groups else ""
    _write_list(directory / "train.csv", splits.train, train, group_of)
    if found.is_subset:
        _write_list(directory / "train_all.csv", splits.train, np.arange(len(parts[0])), group_of)
    if splits.test is not None:
        _write_list(directory / "test.csv", splits.test, test, "test" if found.has_groups else "")
    return found


def _read(
    manifest: Manifest, data: DataConfig, spec: InputSpec, sampling: EvaluationSampling, seconds: float
) -> tuple[list[int], list[tuple[str, str]], float]:
    """Return the rows that were read, the path and reason of those that could not be, and the seconds per record."""
    loader = evaluation_loader(data, manifest, spec, sampling)
    started, done, failures = time.monotonic(), list[int](), list[tuple[str, str]]()
    with counting(len(loader), "reading every record once, batches") as advance:
        for batch in loader:
            done += batch.record.tolist()
            failures += [(failure.path, failure.reason) for failure in batch.failures]
            advance()
            if time.monotonic() - started > seconds:
                break
    loader.end_workers(at_once=True)
    return done, failures, (time.monotonic() - started) / max(1, len(done) + len(failures))


def _write_list(file: Path, manifest: Manifest, rows: npt.NDArray[np.int64], group_of: str) -> None:
    """Write a list of some records, with all that their manifest knows of them.

    Args:
        file: The list.
        manifest: The records.
        rows: Indices of those to list.
        group_of: What the groups of records without one are called; "" leaves out the column.
    """
    records = manifest.records.take(rows)
    columns = {"path": list(records.paths())}
    if manifest.classes:
        columns |= {"label": list(map(str, records.labels.tolist()))}
        columns |= {"class": [manifest.classes[label] for label in records.labels.tolist()]}
    if records.segments is not None:
        starts, ends = np.where(np.isnan(records.segments), -1, records.segments).T.tolist()
        columns |= {"start": [_seconds(time_s) for time_s in starts], "end": [_seconds(time_s) for time_s in ends]}
    if group_of:
        own = [f"{group_of} {row}" for row in rows.tolist()]
        columns |= {"group": own if records.groups is None else list(map(str, records.groups.tolist()))}
    with replacing(file) as partial, open_text(partial, "w") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _seconds(time_s: float) -> str:
    return "" if time_s < 0 else f"{time_s:.6f}"
