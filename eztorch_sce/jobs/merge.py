"""Merging the outputs of a job, and the proof that each record is present once, or named as failed."""

import os
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from eztorch_sce.errors import ConfigError, counted, first_messages, shorten
from eztorch_sce.jobs.job import OUTPUTS, ROW, Job, output_name
from eztorch_sce.jobs.receipts import Receipt


class UnprovenError(ConfigError):
    """Outputs that are missing, or do not hold each record once; their shards will be done again."""


class Merged(NamedTuple):
    """The outputs of all shards.

    Attributes:
        table: Arrow table with a row per record that has not failed, in the order of the records, with the column
            `row`, the position of the record.
        failures: Reason by key of each record that has failed.
    """

    table: Any
    failures: dict[str, str]


def merge(job: Job) -> Merged:
    """Return the outputs of all shards in the order of the records, after proving that none is missing or double.

    Raises:
        UnprovenError: If a shard has no valid receipt, an output is damaged, or its rows are not its records.
    """
    import numpy as np
    import pyarrow as pa

    tables = []
    failures: dict[str, str] = {}
    for receipt, table in proven_outputs(job):
        tables.append(table)
        failures |= receipt.failures
    table = pa.concat_tables(tables, promote_options="default")
    return Merged(table.take(pa.array(np.argsort(table[ROW].to_numpy()))), failures)


def proven_outputs(job: Job) -> Iterator[tuple[Receipt, Any]]:
    """Yield the receipt and the output of each shard, see `proven_output`, so that one is in memory at a time.

    Receipts of outputs without proof are removed, so that the same command does their shards again.

    Raises:
        UnprovenError: As `merge`; about outputs without proof after the last shard, all at once.
    """
    receipts, reasons = job.state()
    if reasons:
        raise UnprovenError(_missing(job, reasons))
    messages = []
    for number in range(job.count):
        try:
            table = proven_output(job, receipts[number])
        except UnprovenError as error:
            messages += error.problems
            job.discard(number)
            continue
        yield receipts[number], table
    if messages:
        raise UnprovenError(first_messages([f"{message}; run the same command again" for message in messages]))


def proven_output(job: Job, receipt: Receipt) -> Any:
    """Return the output of a shard with the column `row`, after comparing it with the records of the shard.

    Raises:
        UnprovenError: If it is damaged, or a record is missing, double, foreign, or present and failed.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    where = f"shard {receipt.shard} of {job.store.folder}"
    with job.store.open(f"{OUTPUTS}/{receipt.output}") as file:
        content = file.read_buffer()
    if receipt.output != output_name(receipt.shard, content):
        raise UnprovenError([f"{where}: its output {receipt.output} is damaged"])
    table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
    rows = job.shard(receipt.shard).rows
    failed = pa.array(map(os.fsencode, receipt.failures), rows["key"].type, size=len(receipt.failures))
    is_failed = pc.is_in(rows["key"], value_set=failed)
    expected = rows.filter(pc.invert(is_failed)) if len(failed) else rows
    num_failed = pc.sum(is_failed).as_py() or 0
    if not table["key"].equals(expected["key"]) or num_failed != len(failed):
        raise UnprovenError([f"{where}: {_difference(table['key'], expected['key'], rows['key'], failed)}"])
    return table.append_column(ROW, expected[ROW])


def _missing(job: Job, reasons: dict[int, str]) -> list[str]:
    """Return one message per reason why shards have no valid receipt."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for number, reason in reasons.items():
        by_reason[reason].append(str(number))
    cure = "run the same command again"
    return [
        f"{len(numbers)} of {job.count} shards of {job.store.folder}: {reason} (shard {shorten(numbers)}); {cure}"
        for reason, numbers in by_reason.items()
    ]


def _difference(present: Any, expected: Any, keys: Any, failed: Any) -> str:
    """Return in words how the keys of an output and of its failures differ from those of its records."""
    import pyarrow.compute as pc

    def without(these: Any, others: Any) -> list[bytes]:
        return [key for key in these.filter(pc.invert(pc.is_in(these, value_set=others))).to_pylist()]

    present, expected = (column.cast(keys.type).combine_chunks() for column in (present, expected))
    counts = pc.value_counts(present).to_pylist()
    kinds = {
        "missing": without(expected, present),
        "there twice": [each["values"] for each in counts if each["counts"] > 1],
        "not of this shard": without(present, keys.combine_chunks()) + without(failed, keys.combine_chunks()),
        "both there and failed": present.filter(pc.is_in(present, value_set=failed)).to_pylist(),
    }
    words = [
        f"{counted(len(names), 'record')} {kind} ({shorten([os.fsdecode(name) for name in names], 2)})"
        for kind, names in kinds.items()
        if names
    ]
    return f"its output does not hold each record once: {'; '.join(words) or 'they are in another order'}"
