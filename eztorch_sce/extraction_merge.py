"""Features of the shards of an `extract` joined into those of its splits, with the records that could not be read."""

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch

from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.errors import ConfigError, MediaError, shorten
from eztorch_sce.evaluation.banks import bank_messages
from eztorch_sce.evaluation.base import ExtractConfig
from eztorch_sce.evaluation.features import bank_of
from eztorch_sce.evaluation.sharded_rows import Part, ShardedRows, write_index
from eztorch_sce.extraction_work import COMPUTED
from eztorch_sce.files import open_text, replacing
from eztorch_sce.jobs.job import OUTPUTS, Job
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


class Result(NamedTuple):
    """The features of the splits of a finished job.

    Attributes:
        job: The job.
        splits: The splits, train first.
        cards: Protocol of each split.
        failed: Records that have no features.
    """

    job: Job
    splits: Sequence[Manifest]
    cards: Sequence[dict[str, Any]]
    failed: Sequence[Failed]

    @property
    def is_present(self) -> npt.NDArray[np.bool_]:
        """Whether each record of the job has features, (N,)."""
        present = np.ones(sum(len(split.records) for split in self.splits), np.bool_)
        present[[each.row for each in self.failed]] = False
        return present

    @property
    def starts(self) -> list[int]:
        """Position of the first record of each split in the job, and the number of all records."""
        return [0, *np.cumsum([len(split.records) for split in self.splits]).tolist()]

    def card(self, split: int) -> dict[str, Any]:
        """Return the protocol of a split, with the precision that computed it and the number of unreadable records."""
        start, stop = self.starts[split : split + 2]
        card = {name: value for name, value in self.cards[split].items() if name != "precision"}
        if (precision := _precision_of(self.job)) != "32-true":
            card["precision"] = precision
        if count := sum(start <= each.row < stop for each in self.failed):
            card["unreadable"] = count
        return card


def merged_banks(result: Result) -> list[FeatureBank]:
    """Return the features of each split in memory, in the order of its records.

    Raises:
        ConfigError: If the outputs do not prove complete, machines of several kinds computed them, all records of a
            split have failed, or features are NaN or infinite.
    """
    is_present, banks, done = result.is_present, list[FeatureBank](), 0
    features = _joined(result.job, is_present)
    for number, split in enumerate(result.splits):
        start, stop = result.starts[number : number + 2]
        present = torch.from_numpy(np.flatnonzero(is_present[start:stop]))
        own = features[done : done + len(present)]
        banks.append(bank_of(own.clone(), present, split, result.card(number)))
        done += len(present)
    _check(banks, result)
    return banks


def stored_banks(result: Result, num_features: int) -> list[FeatureBank]:
    """Make the folder of a job one of features, which evaluations read, and return the splits, in the order of shards.

    Raises:
        ConfigError: As `merged_banks`.
    """
    parts: list[list[Part]] = [[] for _ in result.splits]
    rows: list[list[npt.NDArray[np.int64]]] = [[] for _ in result.splits]
    computed: dict[str, list[str]] = {}
    for receipt, table in proven_outputs(result.job):
        computed.setdefault(_computed(table), []).append(_name(receipt))
        of_job = table["row"].to_numpy()
        bounds = np.searchsorted(of_job, result.starts)
        first = _offset(table)
        name = f"{OUTPUTS}/{receipt.output}"
        for number, (start, stop) in enumerate(pairwise(bounds.tolist())):
            parts[number].append(Part(name, first + 4 * num_features * start, stop - start))
            rows[number].append(of_job[start:stop] - result.starts[number])
    check_alike(computed)
    banks = []
    for number, split in enumerate(result.splits):
        of_split = torch.from_numpy(np.concatenate(rows[number]))
        stored = cast(torch.Tensor, ShardedRows(result.job.store, parts[number], num_features))
        bank = bank_of(stored, of_split, split, result.card(number))
        banks.append(replace(bank, places=of_split.argsort().argsort()))
    _check(banks, result)
    write_index(result.job.store, parts, num_features, banks)
    return banks


def _check(banks: Sequence[FeatureBank], result: Result) -> None:
    """Raise ConfigError if a split has no records, or features that are NaN or infinite."""
    messages = [
        message
        for bank, split in zip(banks, result.splits, strict=True)
        for message in bank_messages(bank, split.source, labeled=False)
    ]
    if messages:
        raise ConfigError(messages)


def _offset(table: Any) -> int:
    """Return the byte at which the features begin in the file of an output, which its table points into."""
    column = table["features"]
    if not len(column):
        return 0
    assert column.num_chunks == 1  # as `Job.save` writes it
    values = column.chunk(0).flatten()
    buffer = whole = values.buffers()[1]
    while whole.parent is not None:
        whole = whole.parent
    return int(buffer.address + 4 * values.offset - whole.address)


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
    column, width = table["features"], table["features"].type.list_size
    if not len(column):
        return np.zeros((0, width), np.float32)
    values: npt.NDArray[np.float32] = column.chunk(0).flatten().to_numpy(zero_copy_only=True).reshape(-1, width)
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


def _precision_of(job: Job) -> str:
    """Return the precision that the first shard was computed in, as the others were, see `check_alike`."""
    import pyarrow as pa

    with job.store.open(f"{OUTPUTS}/{job.receipts()[0].output}") as file:
        metadata = pa.ipc.open_file(file).schema.metadata
    return str(json.loads(metadata[COMPUTED])["precision"])


def _computed(table: Any) -> str:
    content = json.loads((table.schema.metadata or {}).get(COMPUTED, b"{}"))
    return " ".join(map(str, content.values()))


def _name(receipt: Receipt) -> str:
    return f"shard {receipt.shard} on {receipt.host}"
