"""Tests of faults: whatever dies or is damaged, the same command ends with the undisturbed result, bit for bit."""

import json
import random
from pathlib import Path

import pytest
from job_faults import assert_same, damage_a_file, kill, start_driver, wait_for_receipts
from toy_job import CountLetters, records_of, write_files

from eztorch_sce.jobs.driver import run_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.merge import Merged, merge
from eztorch_sce.jobs.receipts import name_of
from eztorch_sce.jobs.runners.local import LocalRunner

NUM_FILES, NUM_SHARDS = 60, 12
FAULTS = ("driver killed", "file damaged", "disk full", "two drivers", "driver killed and file damaged")


def finish(folder: Path, files: list[str], wait_s: float) -> Merged:
    """Run the command again without waiting, and return its result and the proof of what it leaves."""
    work = CountLetters("a", wait_s)
    job = Job.create(folder, work, records_of(files), per_shard=5)
    work.wait_s = 0.0
    merged = run_job(job, work, LocalRunner(), None)
    assert_same(merge(job), merged)
    receipts = job.receipts()
    outputs = sorted(path.name for path in (folder / "outputs").iterdir())
    assert outputs == sorted(receipt.output for receipt in receipts.values())
    assert sum(receipt.num_inputs for receipt in receipts.values()) == NUM_FILES
    return merged


def check(fault: str, seed: int, folder: Path) -> None:
    """Let a fault happen while a driver works, finish the job, and compare it with an undisturbed one."""
    generator, files = random.Random(seed), write_files(folder / "files", NUM_FILES)
    job, wait_s = folder / "job", generator.choice([0.0, 0.002, 0.01])
    most_bytes = generator.choice([500, 1000]) if fault == "disk full" else 0
    num_receipts = generator.randrange(1, NUM_SHARDS)
    driver = start_driver(job, files, wait_s, most_bytes)
    if "killed" in fault:
        wait_for_receipts(job, num_receipts, driver)
        kill(driver)
    elif fault == "two drivers":
        other = start_driver(job, files, wait_s)
        errors = [process.communicate()[1] for process in (driver, other)]
        for process, error in zip((driver, other), errors, strict=True):
            assert process.returncode == 0 or "is in use by process" in error
        assert 0 in (driver.returncode, other.returncode)
    elif fault == "disk full":
        assert "File too large" in driver.communicate()[1]
        assert driver.returncode
        assert not list(job.glob("**/*.partial"))
    else:
        driver.communicate()
    if "damaged" in fault:
        for _ in range(generator.randrange(1, 4)):
            damage_a_file(job, generator)
    undisturbed_job = Job.create(folder / "alone", CountLetters("a"), records_of(files), per_shard=5)
    undisturbed = run_job(undisturbed_job, CountLetters("a"), LocalRunner(), None)
    assert_same(finish(job, files, wait_s), undisturbed)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_command_ends_with_the_undisturbed_result(fault: str, tmp_path: Path) -> None:
    check(fault, 0, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 9))
@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_command_ends_with_the_undisturbed_result_after_40_faults(
    fault: str, seed: int, tmp_path: Path
) -> None:
    check(fault, seed, tmp_path)


def test_finished_shards_survive_a_killed_driver(tmp_path: Path) -> None:
    files, job = write_files(tmp_path / "files", NUM_FILES), tmp_path / "job"
    driver = start_driver(job, files, wait_s=0.02)
    wait_for_receipts(job, 3, driver)
    kill(driver)
    done = {path.name: json.loads(path.read_text())["host"] for path in job.glob("receipts/*.json")}
    finish(job, files, wait_s=0.02)
    for number in map(int, (name.removesuffix(".json") for name in done)):
        assert json.loads((job / name_of(number)).read_text())["host"] == done[f"{number:06d}.json"]
