"""Tests of jobs: shards, receipts, interruption, merging."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from toy_job import CountLetters, records_of, write_files

from eztorch_sce.jobs.driver import run_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.runners.local import LocalRunner
from eztorch_sce.jobs.sharding import shard_of
from eztorch_sce.jobs.work import Work


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return write_files(tmp_path / "files", 50)


def test_records_keep_their_shard_when_others_are_added() -> None:
    keys = [f"class {number % 7}/{number}.mp4".encode() for number in range(20_000)]
    counts = [0] * 10
    for key in keys:
        counts[shard_of(key, 10)] += 1
    assert min(counts) > 1800  # a hash spreads them evenly
    assert shard_of(keys[0], 10) == shard_of(keys[0], 10)


def test_a_job_does_each_record_once_and_only_what_has_changed_again(tmp_path: Path, files: list[str]) -> None:
    work = CountLetters("a")
    job = Job.create(tmp_path / "job", work, records_of(files), per_shard=10)
    merged = run_job(job, work, LocalRunner(), None)
    assert sorted(work.calls) == files
    assert [os.fsdecode(key) for key in merged.table["key"].to_pylist()] == [f for f in files if Path(f).read_text()]
    assert merged.table["count"].to_pylist() == [number % 5 for number in range(50) if number % 5]
    assert set(merged.failures) == {file for file in files if not Path(file).read_text()}

    Path(files[7]).write_text("aaaaaaa")
    again = CountLetters("a")
    job = Job.create(tmp_path / "job", again, records_of(files), per_shard=10)
    merged = run_job(job, again, LocalRunner(), None)
    assert set(again.calls) == {file for file in files if shard_of(file.encode(), 5) == shard_of(files[7].encode(), 5)}
    assert 7 in merged.table["count"].to_pylist()

    other = CountLetters("ab")
    job = Job.create(tmp_path / "job", other, records_of(files), per_shard=10)
    run_job(job, other, LocalRunner(), None)
    assert sorted(other.calls) == files


class KeepsCounts(CountLetters):
    keeps_rows = True


def test_rows_of_unchanged_records_are_kept_when_others_of_their_shard_change(
    tmp_path: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def counts(work: Work, paths: Sequence[str]) -> dict[str, int]:
        job = Job.create(tmp_path / "job", work, records_of(paths), per_shard=50)
        table = run_job(job, work, LocalRunner(), None).table
        return dict(zip(map(os.fsdecode, table["key"].to_pylist()), table["count"].to_pylist(), strict=True))

    first = counts(KeepsCounts("a"), files)
    Path(files[7]).write_text("aaaaaaa")
    Path(files[9]).unlink()
    second = KeepsCounts("a")
    capsys.readouterr()
    assert counts(second, [*files[:9], *files[10:]]) == {
        file: 7 if file == files[7] else count for file, count in first.items() if file != files[9]
    }
    assert set(second.calls) - {file for file in files if int(Path(file).stem) % 5 == 0} == {files[7]}  # and failures
    assert "38 of 49 records are done and unchanged" in capsys.readouterr().err


def test_a_job_that_has_grown_is_divided_anew(tmp_path: Path, files: list[str]) -> None:
    numbers = []
    for count in (10, 40, 50):
        work = CountLetters("a")
        job = Job.create(tmp_path / "job", work, records_of(files[:count]), per_shard=10)
        numbers.append(job.count)
        merged = run_job(job, work, LocalRunner(), None)
        assert len(merged.table) + len(merged.failures) == count
    assert numbers == [1, 1, 5]
