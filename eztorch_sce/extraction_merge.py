"""Features of the shards of an `extract` joined into those of its splits, with the records that could not be read."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.errors import ConfigError, MediaError, shorten
from eztorch_sce.evaluation.banks import bank_messages
from eztorch_sce.evaluation.base import ExtractConfig
from eztorch_sce.evaluation.features import bank_of
from eztorch_sce.extraction_work import COMPUTED
from eztorch_sce.files import open_text, replacing
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.merge import proven_outputs
from eztorch_sce.jobs.receipts import Receipt
from eztorch_sce.progress import print_above
from eztorch_sce.types import FeatureBank

FAILED_FILE = "failed.csv"


class Failed(NamedTuple):
    """A record that could not be read.

    Attributes:
        row: Its position in the job.
        path: Its path.
        reason: Why it could not be read.
    """

    row: int
    path: str
    reason: str


def merged_banks(
    job: Job, splits: Sequence[Manifest], cards: Sequence[dict[str, Any]], config: ExtractConfig, run_dir: Path
) -> list[FeatureBank]:
    """Return the features of each split in the order of its records.

    Args:
        job: The finished job.
        splits: The splits.
        cards: Protocol of each split.
        config: The settings of the command.
        run_dir: Gets failed.csv if records could not be read.

    Raises:
        ConfigError: If the outputs do not prove complete, machines of several kinds computed them, all records of a
            split have failed, or features are NaN or infinite.
        MediaError: If records could not be read, and are not omitted.
    """
    failed = failed_records(job)
    report_failed(failed, job.num_records, config, run_dir)
    sizes = [len(split.records) for split in splits]
    is_present = np.ones(sum(sizes), np.bool_)
    is_present[[each.row for each in failed]] = False
    features = _joined(job, is_present)
    banks, start, done = [], 0, 0
    for split, card, size in zip(splits, cards, sizes, strict=True):
        present = np.flatnonzero(is_present[start : start + size])
        count = len(present)
        own = features[done : done + count]
        card = card | ({"unreadable": size - count} if count < size else {})
        banks.append(bank_of(own.clone() if count < len(features) else own, torch.from_numpy(present), split, card))
        start, done = start + size, done + count
    messages = [
        message
        for bank, split in zip(banks, splits, strict=True)
        for message in bank_messages(bank, split.source, labeled=False)
    ]
    if messages:
        raise ConfigError(messages)
    return banks


def failed_records(job: Job) -> list[Failed]:
    """Return the records of a finished job that could not be read, in the order of the records."""

    failed = []
    for number, receipt in job.receipts().items():
        if receipt.failures:
            rows = job.shard(number).rows
            for row, key, path in zip(*(rows[name].to_pylist() for name in ("row", "key", "path")), strict=True):
                if (reason := receipt.failures.get(os.fsdecode(key))) is not None:
                    failed.append(Failed(row, os.fsdecode(path), reason))
    return sorted(failed)


def report_failed(failed: Sequence[Failed], num_records: int, config: ExtractConfig, run_dir: Path) -> None:
    """Write failed.csv, and say or raise that records could not be read.

    Raises:
        MediaError: If there are such records, and they are not omitted.
    """
    (run_dir / FAILED_FILE).unlink(missing_ok=True)
    if not failed:
        return
    with replacing(run_dir / FAILED_FILE) as partial, open_text(partial, "w") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "reason"])
        writer.writerows((each.path, each.reason) for each in failed)
    count = f"{len(failed)} of {num_records} records could not be read"
    if config.unreadable == "omit":
        print_above(f"warning: {count} and have no features; {run_dir / FAILED_FILE} names them")
        return
    first, more = failed[0], ""
    if len(failed) > 1:
        more = f" ({count}: {run_dir / FAILED_FILE} names them)"
    cure = "repair it, leave it out of the data, or set unreadable=omit, and run the same command again"
    raise MediaError(first.path, f"{first.reason}{more}. Evaluation requires every record: {cure}")


def _joined(job: Job, is_present: npt.NDArray[np.bool_]) -> torch.Tensor:
    """Return the features of the records that are present, float32 (N, F), in the order of the records."""
    places = np.cumsum(is_present) - 1
    features: npt.NDArray[np.float32] | None = None
    computed: dict[str, list[str]] = {}
    for receipt, table in proven_outputs(job):
        computed.setdefault(_computed(table), []).append(_name(receipt))
        rows = features_of(table)
        if features is None:
            features = np.empty((int(is_present.sum()), rows.shape[1]), np.float32)
        features[places[table["row"].to_numpy()]] = rows
    check_alike(computed)
    assert features is not None  # a job has at least one shard
    return torch.from_numpy(features)


def features_of(table: Any) -> npt.NDArray[np.float32]:
    """Return the features of an output, float32 (n, F), without a copy."""
    column = table["features"]
    width = column.type.list_size
    if not len(column):
        return np.zeros((0, width), np.float32)
    chunk = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    values: npt.NDArray[np.float32] = chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, width)
    return values


def check_alike(computed: dict[str, list[str]]) -> None:
    """Raise ConfigError if shards were computed by different kinds of devices or in different precisions.

    Args:
        computed: Names of the shards by what computed them.
    """
    if len(computed) > 1:
        kinds = "; ".join(f"{kind}: {shorten(names)}" for kind, names in computed.items())
        cure = "set accelerator and precision, and another run.dir"
        raise ConfigError([f"the shards were computed in several ways, which differ in their digits ({kinds}): {cure}"])


def _computed(table: Any) -> str:
    content = json.loads((table.schema.metadata or {}).get(COMPUTED, b"{}"))
    return " ".join(map(str, content.values()))


def _name(receipt: Receipt) -> str:
    return f"shard {receipt.shard} on {receipt.host}"
