"""Tests of the merge: what is missing, double, stale, foreign or damaged is named with its number, and done again."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from toy_job import CountLetters, records_of, write_files

from eztorch_sce.jobs import job as job_module
from eztorch_sce.jobs.driver import run_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.merge import UnprovenError, merge
from eztorch_sce.jobs.receipts import Receipt, name_of, read_receipt, write_receipt
from eztorch_sce.jobs.runners.local import LocalRunner
from eztorch_sce.jobs.work import Output


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return write_files(tmp_path / "files", 50)


def create(folder: Path, files: list[str], letters: str = "a") -> Job:
    return Job.create(folder / "job", CountLetters(letters), records_of(files), per_shard=10)


@pytest.fixture
def job(tmp_path: Path, files: list[str]) -> Job:
    job = create(tmp_path, files)
    run_job(job, CountLetters("a"), LocalRunner(), None)
    return job


def edit(job: Job, number: int, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the output of a shard as a mistake in a work would, with a valid digest."""
    receipt = job.receipts()[number]
    with job.store.open(f"outputs/{receipt.output}") as file:
        table = pa.ipc.open_file(file).read_all()
    job.save(Output(number, change(table), {}), receipt)


CHANGES = [
    (lambda table: table.slice(1), "1 record missing"),
    (lambda table: pa.concat_tables([table, table.slice(0, 2)]), "2 records there twice"),
    (
        lambda table: table.set_column(0, "key", pa.array([b"z"] * len(table), pa.large_binary())),
        r"missing \(.*there twice \(z\); \d+ records not of this shard",
    ),
    (lambda table: table.take(list(range(len(table)))[::-1]), "in another order"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_an_output_that_does_not_hold_each_record_once_is_refused_and_then_done_again(
    job: Job, change: Callable[[pa.Table], pa.Table], words: str
) -> None:
    whole = merge(job)
    edit(job, 2, change)
    with pytest.raises(UnprovenError, match=rf"shard 2 .* does not hold each record once: .*{words}"):
        merge(job)
    assert job.pending() == [2]
    assert run_job(job, CountLetters("a"), LocalRunner(), None).table.equals(whole.table)


def test_a_record_that_is_both_there_and_failed_is_refused(job: Job) -> None:
    receipt = job.receipts()[1]
    key = next(key for key in map(os.fsdecode, job.shard(1).rows["key"].to_pylist()) if key not in receipt.failures)
    write_receipt(job.store, replace(receipt, failures={**receipt.failures, key: "damaged"}))
    with pytest.raises(UnprovenError, match=r"shard 1 .* 1 record both there and failed \("):
        merge(job)


def damaged(content: bytes) -> bytes:
    return content[:100] + bytes([content[100] ^ 1]) + content[101:]


@pytest.mark.parametrize("damage", [damaged, lambda content: content[:200], lambda content: b""])
def test_damaged_outputs_and_receipts_are_named_and_done_again(
    tmp_path: Path, job: Job, capsys: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    whole = merge(job)
    output = tmp_path / "job" / "outputs" / job.receipts()[3].output
    output.write_bytes(damage(output.read_bytes()))
    again = CountLetters("a")
    merged = run_job(job, again, LocalRunner(), None)
    assert merged.table.equals(whole.table)
    assert merged.failures == whole.failures
    assert len(again.calls) == job.num_inputs(3)
    assert f"done again: shard 3 of {tmp_path / 'job'}: its output {output.name} is damaged" in capsys.readouterr().err

    receipt = tmp_path / "job" / name_of(4)
    receipt.write_bytes(damage(receipt.read_bytes()).replace(b'"shard": 4', b'"shard": 3'))
    if read_receipt(job.store, 4) is None:
        with pytest.raises(UnprovenError, match=r"1 of 5 shards of .*: receipt damaged \(shard 4\)"):
            merge(job)
    assert run_job(job, CountLetters("a"), LocalRunner(), None).table.equals(whole.table)


def test_missing_and_stale_shards_are_counted_with_the_reason(
    tmp_path: Path, job: Job, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job" / "outputs" / job.receipts()[0].output).unlink()
    (tmp_path / "job" / name_of(2)).unlink()
    with pytest.raises(UnprovenError) as error:
        merge(job)
    assert [line.split(": ", 1)[1] for line in error.value.problems] == [
        "output missing (shard 0); run the same command again",
        "not done (shard 2); run the same command again",
    ]
    run_job(job, CountLetters("a"), LocalRunner(), None)

    with pytest.raises(UnprovenError, match=r"5 of 5 shards of .*: settings differ \(shard 0, 1, 2 and 2 more\)"):
        merge(create(tmp_path, files, letters="b"))
    shard = next(number for number in range(5) if files[7].encode() in job.shard(number).rows["key"].to_pylist())
    Path(files[7]).write_text("aaaaaaaa")
    with pytest.raises(UnprovenError, match=rf"1 of 5 shards of .*: records changed \(shard {shard}\)"):
        merge(create(tmp_path, files))
    monkeypatch.setattr(job_module, "version", lambda: "99.0")
    with pytest.raises(UnprovenError, match=r"shards of .*: (records changed and )?done by eztorch_sce \d"):
        merge(create(tmp_path, files))


def test_leftovers_of_killed_workers_and_of_earlier_settings_are_removed(
    tmp_path: Path, job: Job, files: list[str]
) -> None:
    folder = tmp_path / "job"
    (folder / "outputs" / ".000001-1234.arrow.1a2b3c4d.partial").write_bytes(b"half")
    (folder / "outputs" / "000001-1234.arrow").write_bytes(b"whole, but its worker died before the receipt")
    receipt: Receipt = job.receipts()[1]
    write_receipt(job.store, replace(receipt, shard=77))
    run_job(create(tmp_path, files, letters="b"), CountLetters("b"), LocalRunner(), None)
    job = Job.open(folder)
    assert sorted(path.name for path in (folder / "outputs").iterdir()) == sorted(
        receipt.output for receipt in job.receipts().values()
    )
    assert len(list((folder / "receipts").iterdir())) == 5
