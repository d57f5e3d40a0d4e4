"""Tests of runner=slurm: the job script, and tasks that the executor of submitit for one machine starts.

The tasks are real processes that real signals end. What only a cluster does, such as preemption, is not tested here.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_job import CountLetters, records_of, write_files

from eztorch_sce.errors import ConfigError
from eztorch_sce.jobs.driver import run_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.runners.local import LocalRunner
from eztorch_sce.jobs.runners.slurm import SlurmConfig, SlurmRunner, spread
from eztorch_sce.settings import invalid_settings

SUPPORT = str(Path(__file__).parents[1] / "support")
LOCAL = SlurmConfig(executor="local", cpus_per_task=1)


@pytest.fixture(autouse=True)
def tasks_import_toy_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", SUPPORT)


def job_of(folder: Path, files: list[str], wait_s: float = 0.0, letters: str = "a") -> tuple[Job, CountLetters]:
    work = CountLetters(letters, wait_s)
    return Job.create(folder, work, records_of(files), per_shard=10), work


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "outputs").iterdir()}


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_tasks_give_the_outputs_of_this_machine(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", 60)
    job, work = job_of(tmp_path / "here", files)
    expected = run_job(job, work, LocalRunner(), None)
    job, work = job_of(tmp_path / "there", files)
    merged = run_job(job, work, SlurmRunner(LOCAL), None)
    assert merged.table.equals(expected.table)
    assert merged.failures == expected.failures
    assert outputs(tmp_path / "here") == outputs(tmp_path / "there")
    assert work.calls == []  # not in this process
    assert not list((tmp_path / "there" / "slurm").glob("tasks-*.json"))


DRIVER = """
import sys
from pathlib import Path
from toy_job import CountLetters, records_of
from eztorch_sce import signals
from eztorch_sce.errors import ConfigError
from eztorch_sce.jobs.driver import run_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.runners.slurm import SlurmConfig
folder, files, wait_s = sys.argv[1], sorted(map(str, Path(sys.argv[2]).iterdir())), float(sys.argv[3])
work = CountLetters("a", wait_s)
job = Job.create(folder, work, records_of(files), per_shard=10)
with signals.watched("driver"):
    run_job(job, work, SlurmConfig(executor="local", cpus_per_task=1).build(), None)
print("merged")
"""


def start_driver(folder: Path, files: Path, wait_s: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", DRIVER, str(folder), str(files), str(wait_s)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def notes(folder: Path) -> dict[int, list[int]]:
    """Return the shards of each task that is noted, by the process that controls it."""
    tasks: dict[int, list[int]] = {}
    for file in (folder / "slurm").glob("tasks-*.json"):
        tasks |= {int(number): shards for number, shards in json.loads(file.read_text())["tasks"].items()}
    return tasks


def task_of(controller: int) -> int:
    """Return the process that works for a controller."""
    return int(Path(f"/proc/{controller}/task/{controller}/children").read_text().split()[0])


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def num_receipts(folder: Path) -> int:
    return len(list((folder / "receipts").glob("*.json")))


def test_a_killed_task_loses_only_its_shard(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", 60)
    job, work = job_of(tmp_path / "job", files, wait_s=0.02)

    def kill() -> None:
        wait_for(lambda: num_receipts(tmp_path / "job") >= 2)
        os.kill(task_of(min(notes(tmp_path / "job"))), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    merged = run_job(job, work, SlurmRunner(LOCAL), None)
    killer.join()
    assert len(merged.table) + len(merged.failures) == 60
    hosts = [receipt.host for receipt in job.receipts().values()]
    assert len(set(hosts)) > 2  # a further task has finished what the killed one has not


@pytest.mark.long
def test_a_preempted_task_goes_on_with_what_it_has_not_finished(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", 60)
    job, work = job_of(tmp_path / "job", files, wait_s=0.02)
    first: dict[str, float] = {}

    def preempt() -> None:
        wait_for(lambda: num_receipts(tmp_path / "job") >= 2)
        first.update({path.name: path.stat().st_mtime for path in (tmp_path / "job" / "receipts").iterdir()})
        for controller in notes(tmp_path / "job"):
            os.kill(task_of(controller), signal.SIGTERM)  # SLURM sends it first; submitit passes it over
            os.kill(task_of(controller), signal.SIGUSR2)

    sender = threading.Thread(target=preempt)
    sender.start()
    merged = run_job(job, work, SlurmRunner(LOCAL), None)
    sender.join()
    assert len(merged.table) + len(merged.failures) == 60
    assert len(first) < 6
    assert (
        first.items() <= {path.name: path.stat().st_mtime for path in (tmp_path / "job" / "receipts").iterdir()}.items()
    )
    logs = [path.read_text() for path in (tmp_path / "job" / "slurm").glob("*_log.out")]
    assert any("Requeued job" in log for log in logs)
    assert len(logs) == 2  # no further task was submitted


@pytest.mark.long
def test_a_driver_that_starts_again_follows_the_tasks_of_a_killed_one(tmp_path: Path) -> None:
    write_files(tmp_path / "files", 80)
    with start_driver(tmp_path / "job", tmp_path / "files", wait_s=0.05) as driver:
        wait_for(lambda: notes(tmp_path / "job"))
        driver.kill()
    tasks = set(notes(tmp_path / "job"))
    with start_driver(tmp_path / "job", tmp_path / "files", wait_s=0.05) as driver:
        out, error = driver.communicate(timeout=60)
    assert out == "merged\n", error
    assert f"{len(tasks)} tasks of an earlier command still run" in error
    logs = {int(path.name.split("_")[0]) for path in (tmp_path / "job" / "slurm").glob("*_log.out")}
    assert logs == tasks


@pytest.mark.long
def test_tasks_of_other_settings_end(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", 40)
    with start_driver(tmp_path / "job", tmp_path / "files", wait_s=60) as driver:
        wait_for(lambda: notes(tmp_path / "job"))
        driver.kill()
    tasks = list(notes(tmp_path / "job"))
    job, work = job_of(tmp_path / "job", files)
    merged = run_job(job, work, SlurmRunner(LOCAL), None)
    assert len(merged.table) + len(merged.failures) == 40
    assert not any(map(is_alive, tasks))


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_driver_ends_the_tasks_of_this_machine(tmp_path: Path, number: int) -> None:
    write_files(tmp_path / "files", 40)
    with start_driver(tmp_path / "job", tmp_path / "files", wait_s=60) as driver:
        wait_for(lambda: notes(tmp_path / "job"))
        processes = list(notes(tmp_path / "job"))
        wait_for(lambda: all(Path(f"/proc/{each}/task/{each}/children").read_text() for each in processes))
        processes += [task_of(each) for each in processes]
        driver.send_signal(number)
        driver.communicate(timeout=60)
    assert driver.returncode != 0
    wait_for(lambda: not any(map(is_alive, processes)))


def test_another_version_ends_the_job_at_once(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", 40)
    job, work = job_of(tmp_path / "job", files)
    description = json.loads((tmp_path / "job" / "job.json").read_text())
    (tmp_path / "job" / "job.json").write_text(json.dumps({**description, "version": "0.0.1"}))
    with pytest.raises(ConfigError, match=r"on .*: the job was started by eztorch_sce 0\.0\.1, and this is") as caught:
        run_job(job, work, SlurmRunner(LOCAL), None)
    assert len(caught.value.problems) == 1
    assert not list((tmp_path / "job" / "slurm").glob("tasks-*.json"))


def test_the_script_asks_for_what_the_settings_say(tmp_path: Path) -> None:
    config = SlurmConfig(partition="gpu", account="vision", qos="low", time_min=90, cpus_per_task=4, mem_gb=12.5)
    config.gpus_per_node, config.max_parallel, config.max_tasks = 1, 20, 100
    config.options = "--constraint='a100&nvlink' --exclusive --mail-type=END"
    first, *script = SlurmRunner(config).describe(str(tmp_path), 250)
    assert first == "runner=slurm: 100 tasks with at most 3 shards each, at most 20 at once, by this job script:"
    wanted = ["partition=gpu", "account=vision", "qos=low", "time=90", "cpus-per-task=4", "mem=12800MB", "exclusive"]
    wanted += ["gpus-per-node=1", "array=0-99%20", "signal=USR2@90", "constraint='a100&nvlink'", "mail-type=END"]
    assert {f"#SBATCH --{option}" for option in wanted} <= set(script)
    assert any(sys.executable in line and line.startswith("srun ") for line in script)
    assert not list(tmp_path.iterdir())


def test_one_task_needs_no_array(tmp_path: Path) -> None:
    assert not any("--array" in line for line in SlurmRunner(SlurmConfig()).describe(str(tmp_path), 1))


def test_tasks_are_at_most_what_an_array_takes() -> None:
    runner = SlurmRunner(SlurmConfig())
    assert (runner.num_tasks(7), runner.num_tasks(50_000)) == (7, 1000)
    parts = spread(range(2500), runner.num_tasks(2500))
    assert sorted(number for part in parts for number in part) == list(range(2500))
    assert {len(part) for part in parts} == {2, 3}


def test_options_that_settings_write_are_mistakes() -> None:
    options = "-C a100 --time=30 --cpus-per-task=3 --nodes=2 --nice=100"
    assert invalid_settings(SlurmConfig(options=options), "runner") == [
        "runner.options: -C must be of the long form, such as --constraint=a100",
        "runner.options: a100 must be of the long form, such as --constraint=a100",
        "runner.options: use runner.time_min in place of --time=30",
        "runner.options: use runner.cpus_per_task in place of --cpus-per-task=3",
        "runner.options: a task is one process on one node with a log of its own: remove --nodes=2",
    ]
    assert invalid_settings(SlurmConfig(options="--comment='x"), "runner") == [
        "runner.options=--comment='x: No closing quotation"
    ]


def test_a_machine_without_slurm_is_told_before_work_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        SlurmRunner(SlurmConfig()).check(str(tmp_path / "job"), None)
    assert caught.value.problems == [
        "runner=slurm: this machine has no SLURM (sbatch, srun, squeue, scontrol, scancel not found): run the same "
        "command on a login node of the cluster, or set runner=local; runner.executor=local tries the tasks on this "
        "machine"
    ]
    assert SlurmRunner(SlurmConfig()).describe(str(tmp_path), 3)[-1] == caught.value.problems[0]
    SlurmRunner(LOCAL).check(str(tmp_path / "job"), None)
    assert not list(tmp_path.iterdir())


def test_a_job_behind_a_url_needs_a_folder_for_its_logs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runner\.folder is needed, since the job is at s3://bucket/job"):
        SlurmRunner(LOCAL).check("s3://bucket/job", None)
    SlurmRunner(SlurmConfig(executor="local", folder=str(tmp_path))).check("s3://bucket/job", None)


def test_without_submitit_the_command_to_install_it_is_told() -> None:
    program = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "submitit" else find(name, *rest)
from eztorch_sce.errors import ConfigError
from eztorch_sce.jobs.runners.slurm import SlurmConfig
try:
    SlurmConfig().build().check("job", None)
except ConfigError as error:
    print(*error.problems, sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ("runner=slurm needs submitit, which is not installed: pip install 'eztorch-sce[slurm]'\n")


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_full_disk_is_named_and_what_is_done_is_kept(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", 60)
    job, work = job_of(tmp_path / "job", files)
    (tmp_path / "job" / "outputs").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12k", "none", tmp_path / "job" / "outputs"], check=True)
    try:
        with pytest.raises(
            ConfigError,
            match=r"shards? \d(, \d)*( and \d more)? failed 3 times, at last on .*: "
            r"cannot write to .*: No space left on device",
        ):
            run_job(job, work, SlurmRunner(LOCAL), None)
        done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "job" / "receipts").iterdir()}
        assert 0 < len(done) < 6
        subprocess.run(["mount", "-o", "remount,size=64m", tmp_path / "job" / "outputs"], check=True)
        job, work = job_of(tmp_path / "job", files)
        merged = run_job(job, work, SlurmRunner(LOCAL), None)
        assert len(merged.table) + len(merged.failures) == 60
        now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "job" / "receipts").iterdir()}
        assert done.items() <= now.items()
    finally:
        subprocess.run(["umount", tmp_path / "job" / "outputs"], check=True)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("sbatch") is None, reason="this machine has no SLURM")
def test_an_array_of_slurm_gives_the_outputs_of_this_machine(tmp_path: Path) -> None:
    files = write_files(tmp_path / "files", 60)
    job, work = job_of(tmp_path / "here", files)
    expected = run_job(job, work, LocalRunner(), None)
    job, work = job_of(tmp_path / "there", files)
    merged = run_job(job, work, SlurmRunner(SlurmConfig(cpus_per_task=1)), None)
    assert merged.table.equals(expected.table)
    assert merged.failures == expected.failures
    assert outputs(tmp_path / "here") == outputs(tmp_path / "there")
