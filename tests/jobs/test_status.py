"""Tests of `data status`: what receipts tell while a job runs, after it was interrupted, and when it is finished."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
from toy_job import CountLetters, records_of, write_files

from eztorch_sce.curation.command import DATA_COMMANDS
from eztorch_sce.curation.settings import StatusConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.jobs.driver import run_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.receipts import name_of
from eztorch_sce.jobs.runners.local import LocalRunner
from eztorch_sce.jobs.status import find_jobs

RUNS = """
import sys
sys.path.insert(0, sys.argv[1])
from toy_job import CountLetters, records_of
from eztorch_sce.jobs.driver import run_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.runners.local import LocalRunner
work = CountLetters("a", wait_s=0.1)
run_job(Job.create(sys.argv[2], work, records_of(sys.argv[3:]), per_shard=5), work, LocalRunner(), None)
"""


def status(out: Path | str, capsys: pytest.CaptureFixture[str]) -> tuple[bool, str]:
    run = DATA_COMMANDS["status"].run
    assert run is not None
    is_complete = run(str(out), StatusConfig())
    return is_complete, " ".join(capsys.readouterr().out.split())


def test_a_running_an_interrupted_and_a_finished_job_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, folder = write_files(tmp_path / "files", 60), tmp_path / "out" / ".doctor"
    command = [sys.executable, "-c", RUNS, str(Path(__file__).parents[1] / "support"), str(folder), *files]
    with subprocess.Popen(command) as driver:
        stop = time.monotonic() + 60
        while len(list(folder.glob("receipts/*.json"))) < 3 and time.monotonic() < stop:
            time.sleep(0.02)
        is_complete, text = status(tmp_path / "out", capsys)
        driver.send_signal(signal.SIGKILL)
    assert not is_complete
    line = r"count letters \(.*/out/\.doctor\): \d of 12 shards, \d+ of 60 records, \d+ failed, (\d+\.\d) records/s, "
    match = re.search(rf"{line}about \d+ s left, 1 host \(.*\), last receipt \d s ago, in use by process (\d+)", text)
    assert match, text
    assert 4 < float(match[1]) <= 10  # the work waits 0.1 s for each
    assert match[2] == str(driver.pid)

    is_complete, text = status(folder, capsys)
    assert not is_complete
    assert "no command waits for it" in text
    work = CountLetters("a", wait_s=0.1)
    job = Job.create(folder, work, records_of(files), per_shard=5)
    work.wait_s = 0.0
    run_job(job, work, LocalRunner(), None)
    is_complete, text = status(tmp_path / "out", capsys)
    assert is_complete
    assert ": 12 of 12 shards, 60 of 60 records, 12 failed, " in text
    assert text.endswith("complete")


def test_stale_and_damaged_receipts_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, folder = write_files(tmp_path / "files", 50), tmp_path / "job"
    job = Job.create(folder, CountLetters("a"), records_of(files), per_shard=10)
    run_job(job, CountLetters("a"), LocalRunner(), None)
    (folder / name_of(1)).write_text("{")
    (folder / "outputs" / job.receipts()[4].output).unlink()
    is_complete, text = status(folder, capsys)
    assert not is_complete
    assert "to be done again, receipt damaged: shard 1 to be done again, output missing: shard 4" in text
    Job.create(folder, CountLetters("b"), records_of(files), per_shard=10)
    assert "0 of 5 shards, 0 of 50 records" in (text := status(folder, capsys)[1])
    assert "to be done again, settings differ: shard 0, 2, 3, 4" in text


def test_a_job_behind_a_url_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"memory://{tmp_path.name}/run"
    work = CountLetters("a")
    job = Job.create(f"{url}/.extract", work, records_of(write_files(tmp_path / "files", 20)), per_shard=10)
    run_job(job, work, LocalRunner(), None)
    is_complete, text = status(url, capsys)
    assert is_complete
    assert f"({url}/.extract): 2 of 2 shards" in text
    fsspec.filesystem("memory").rm(url, recursive=True)


def test_a_folder_without_a_job_is_refused_with_the_places_of_jobs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no job, and neither has .doctor or .prepare or .extract in it; set"):
        find_jobs(str(tmp_path))
    shutil.rmtree(tmp_path)
    with pytest.raises(ConfigError, match=r"OUT=.* does not exist"):
        find_jobs(str(tmp_path))


def test_status_answers_without_torch() -> None:
    code = "import sys; import eztorch_sce.jobs.status; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
