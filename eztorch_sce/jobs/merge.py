"""Merging the outputs of a job, and the proof that each record is present once, or named as failed."""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from eztorch_sce.errors import ConfigError, shorten
from eztorch_sce.jobs.job import OUTPUTS, ROW, Job, output_name
from eztorch_sce.jobs.receipts import Receipt


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
        ConfigError: If a shard has no valid receipt, an output is damaged, or its rows are not its records.
    """
    import pyarrow as pa

    tables = []
    failures: dict[str, str] = {}
    for receipt, table in proven_outputs(job):
        tables.append(table)
        failures |= receipt.failures
    table = pa.concat_tables(tables)
    return Merged(table.take(pa.compute.sort_indices(table[ROW])), failures)


def proven_outputs(job: Job) -> Iterator[tuple[Receipt, Any]]:
    """Yield the receipt and the output of each shard, see `proven_output`, so that one is in memory at a time.

    Raises:
        ConfigError: As `merge`.
    """
    receipts = job.receipts()
    if missing := [str(number) for number in range(job.count) if number not in receipts]:
        cure = "run the same command again"
        raise ConfigError([f"{len(missing)} of {job.count} shards are not done ({shorten(missing)}): {cure}"])
    for number in range(job.count):
        yield receipts[number], proven_output(job, receipts[number])


def proven_output(job: Job, receipt: Receipt) -> Any:
    """Return the output of a shard with the column `row`, after comparing it with the records of the shard.

    Raises:
        ConfigError: If it is damaged, or a record is missing, double, foreign, or present and failed.
    """
    import pyarrow as pa

    where = f"shard {receipt.shard} of {job.store.folder}"
    cure = f"delete {job.store.address(f'receipts/{receipt.shard:06d}.json')} and run the same command again"
    with job.store.open(f"{OUTPUTS}/{receipt.output}") as file:
        content = file.read_buffer()
        if receipt.output != output_name(receipt.shard, content):
            raise ConfigError([f"{where}: the output {receipt.output} is damaged; {cure}"])
        table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
    rows = job.shard(receipt.shard).rows
    failed = {os.fsencode(key) for key in receipt.failures}
    keys = rows["key"].to_pylist()
    is_present = [key not in failed for key in keys]
    expected = [key for key, present in zip(keys, is_present, strict=True) if present]
    if table["key"].to_pylist() != expected or not failed <= set(keys):
        counts = f"{len(table)} rows and {len(failed)} failures for {len(keys)} records"
        raise ConfigError([f"{where}: the output does not hold each record once ({counts}); {cure}"])
    return table.append_column(ROW, rows[ROW].filter(pa.array(is_present, pa.bool_())))
