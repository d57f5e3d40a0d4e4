"""Tests of runner=ray on a real cluster of two nodes on this machine, whose processes and nodes are killed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from faulty_jobs import DiesOfX, FullDisk
from toy_job import CountLetters, records_of, write_files

from eztorch_sce.curation.doctor import diagnose
from eztorch_sce.curation.settings import DoctorConfig
from eztorch_sce.errors import STOPPED, ConfigError
from eztorch_sce.jobs.driver import run_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.merge import Merged
from eztorch_sce.jobs.runners import ray_cluster
from eztorch_sce.jobs.runners.local import LocalRunner
from eztorch_sce.jobs.runners.ray import RayConfig
from eztorch_sce.settings import invalid_settings

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.filterwarnings("ignore")]  # Ray has its own

SUPPORT = Path(__file__).parents[1] / "support"
NODE: dict[str, Any] = {"object_store_memory": 80 << 20, "include_dashboard": False}


class TwoNodes(NamedTuple):
    """A cluster whose head has no CPU, and two nodes of one CPU each."""

    cluster: Any
    address: str


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(SUPPORT))
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **NODE})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, wait=False, **NODE)
            cluster.wait_for_nodes()
            yield TwoNodes(cluster, f"127.0.0.1:{cluster.address.rpartition(':')[2]}")
        finally:
            cluster.shutdown()


class Jobs(NamedTuple):
    """A job to work on by Ray, and what a single process returns for it."""

    job: Job
    work: CountLetters
    expected: Merged

    def run(self, address: str, **settings: Any) -> Merged:
        return run_job(self.job, self.work, RayConfig(address=address, **settings).build(), None)

    def assert_same(self, merged: Merged) -> None:
        assert merged.table.equals(self.expected.table)
        assert merged.failures == self.expected.failures


def make_jobs(folder: Path, kind: type[CountLetters] = CountLetters, wait_s: float = 0.0, count: int = 60) -> Jobs:
    """Return jobs of 5 records per shard."""
    paths = write_files(folder / "files", count)
    quick, work = CountLetters("a"), kind("a", wait_s)
    expected = run_job(Job.create(folder / "local", quick, records_of(paths), 5), quick, LocalRunner(), None)
    job = Job.create(folder / "ray", work, records_of(paths), 5)
    with job.held():
        pass  # the end of the block unlocks the job for other processes
    return Jobs(job, work, expected)


def when(condition: Callable[[], Any], action: Callable[[Any], None]) -> threading.Thread:
    """Start a thread that acts on what the condition returns, once that is true."""

    def wait() -> None:
        stop = time.monotonic() + 120
        while time.monotonic() < stop:
            if found := condition():
                action(found)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def workers(job: Job) -> list[int]:
    """Return the process of each receipt."""
    return [int(receipt.host.rpartition(":")[2]) for receipt in job.receipts().values()]


def is_child(process: int, parent: int) -> bool:
    try:
        return f"PPid:\t{parent}\n" in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def test_two_nodes_give_the_rows_of_one_process(two_nodes: TwoNodes, tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, wait_s=0.05)
    jobs.assert_same(jobs.run(two_nodes.address))
    assert len(set(workers(jobs.job))) == 2


def test_a_cluster_that_cannot_be_joined_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConfigError, match=rf"runner.address=127.0.0.1:{port} cannot be reached \(.*refused\)"):
        RayConfig(address=f"127.0.0.1:{port}").build().check(str(tmp_path), None)


def test_ray_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'eztorch-sce\[ray\]'"):
        RayConfig().build().check(str(tmp_path), None)


def test_settings_that_ray_would_refuse_are_named() -> None:
    config = RayConfig(address="head", min_workers=3, max_workers=2, gpus_per_worker=1.5)
    assert invalid_settings(config, "runner") == [
        "runner.address=head must be host:port, ray://host:port or auto",
        "runner.max_workers=2 must be at least runner.min_workers=3",
        "runner.gpus_per_worker=1.5 must be a whole number, or less than 1",
    ]
    for address in ("auto", "ray://head:10001", "10.0.0.1:6379", "[::1]:6379", None):
        assert not invalid_settings(RayConfig(address=address), "runner")


@pytest.mark.long
def test_data_doctor_finds_the_same_on_two_nodes(
    two_nodes: TwoNodes, tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    for number in range(12):
        write_video(tmp_path / "videos" / f"{number:02d}.mp4", num_frames=5 + number)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "copy").mkdir()
    for path in (tmp_path / "videos").iterdir():
        shutil.copy2(path, tmp_path / "copy")
    local = diagnose(tmp_path / "copy", DoctorConfig()).table
    by_ray = diagnose(
        tmp_path / "videos", DoctorConfig(runner=RayConfig(address=two_nodes.address, shard_records=4))
    ).table
    assert rows_of(by_ray).equals(rows_of(local))
    assert not ray.is_initialized()  # the command has left the cluster


def rows_of(table: Path) -> pa.Table:
    with pa.memory_map(str(table)) as file:
        return pa.ipc.open_file(file).read_all().replace_schema_metadata(None)  # which names the folder


@pytest.mark.long
def test_the_shard_of_a_killed_worker_is_done_again(two_nodes: TwoNodes, tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, wait_s=0.1, count=120)
    killed: list[int] = []

    def kill(processes: list[int]) -> None:
        os.kill(processes[0], signal.SIGKILL)
        killed.append(processes[0])

    thread = when(lambda: workers(jobs.job), kill)
    jobs.assert_same(jobs.run(two_nodes.address))
    thread.join()
    assert len(set(workers(jobs.job)) - set(killed)) == 2  # another process took its place


@pytest.mark.long
def test_a_shard_that_kills_its_workers_is_named_and_the_others_are_done(two_nodes: TwoNodes, tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, DiesOfX)
    (tmp_path / "files" / "0007.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"^- shard \d+ failed 3 times, at last on \S+: 3 workers died of it"):
        jobs.run(two_nodes.address)
    assert len(jobs.job.receipts()) == jobs.job.count - 1
    (tmp_path / "files" / "0007.txt").write_text("aa")
    jobs.assert_same(jobs.run(two_nodes.address))


@pytest.mark.long
def test_shards_of_a_removed_node_are_done_by_others(two_nodes: TwoNodes, tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, wait_s=0.1, count=120)
    node = two_nodes.cluster.add_node(num_cpus=1, **NODE)
    raylet = node.all_processes["raylet"][0].process.pid
    lost: list[int] = []

    def remove(processes: list[int]) -> None:
        lost.extend(processes)
        two_nodes.cluster.remove_node(node, allow_graceful=False)

    thread = when(lambda: [process for process in workers(jobs.job) if is_child(process, raylet)], remove)
    jobs.assert_same(jobs.run(two_nodes.address))
    thread.join()
    assert lost  # the node had done some of the work


@pytest.mark.long
def test_a_killed_driver_leaves_what_is_done_and_no_worker(two_nodes: TwoNodes, tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, wait_s=0.1, count=120)
    command = [sys.executable, str(SUPPORT / "faulty_jobs.py"), jobs.job.store.folder, two_nodes.address]
    driver = subprocess.Popen(command)
    when(lambda: len(jobs.job.receipts()) >= 3, lambda _: driver.kill()).join()
    assert driver.wait() == -signal.SIGKILL
    wait_for_end(workers(jobs.job))
    done = jobs.job.receipts()
    assert 3 <= len(done) < jobs.job.count
    jobs.assert_same(jobs.run(two_nodes.address))
    assert {number: jobs.job.receipts()[number] for number in done} == done  # nothing was done twice


def wait_for_end(processes: list[int]) -> None:
    stop = time.monotonic() + 60
    while any(Path(f"/proc/{process}").exists() for process in processes):
        assert time.monotonic() < stop, "workers outlived their driver"
        time.sleep(0.1)


@pytest.mark.long
def test_sigterm_ends_the_driver_with_a_line_and_its_workers(two_nodes: TwoNodes, tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, wait_s=0.1, count=120)
    command = [sys.executable, str(SUPPORT / "faulty_jobs.py"), jobs.job.store.folder, two_nodes.address]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    when(lambda: len(jobs.job.receipts()) >= 3, lambda _: driver.terminate()).join()
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == STOPPED
    assert not out
    assert "stopped by SIGTERM: finished shards are kept" in err
    for line in err.splitlines():
        assert "count letters" in line or "SIGTERM" in line  # Ray says nothing
    wait_for_end(workers(jobs.job))


@pytest.mark.long
def test_a_node_whose_disk_is_full_gets_no_more_shards(two_nodes: TwoNodes, tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, FullDisk, wait_s=0.05)
    node = two_nodes.cluster.add_node(num_cpus=1, env_vars={"FULL_DISK": "1"}, **NODE)
    try:
        jobs.assert_same(jobs.run(two_nodes.address))
    finally:
        two_nodes.cluster.remove_node(node)


@pytest.mark.long
def test_a_disk_that_is_full_everywhere_is_named_soon(
    two_nodes: TwoNodes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = make_jobs(tmp_path, FullDisk, count=300)
    node = two_nodes.cluster.add_node(num_cpus=2, env_vars={"FULL_DISK": "1"}, **NODE)
    try:
        with pytest.raises(ConfigError, match=r"File too large. Free some space"):
            jobs.run(two_nodes.address, cpus_per_worker=2)  # which only this node has
    finally:
        two_nodes.cluster.remove_node(node)
    assert "shards failed and will be tried again" in capsys.readouterr().err


@pytest.mark.long
def test_nodes_are_checked_before_work_starts(
    two_nodes: TwoNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_jobs(tmp_path)
    with pytest.raises(
        ConfigError, match=r"no node holds a worker of runner.cpus_per_worker=4, runner.gpus_per_worker"
    ):
        jobs.run(two_nodes.address, cpus_per_worker=4, gpus_per_worker=1.0)

    monkeypatch.chdir(tmp_path)
    unseen = Job.open("/proc/self/cwd/ray")  # another folder for each process
    with pytest.raises(
        ConfigError, match=r"/proc/self/cwd/ray is not there, or another folder: use a folder on a file"
    ):
        jobs._replace(job=unseen).run(two_nodes.address)

    (tmp_path / "older" / "eztorch_sce").mkdir(parents=True)
    (tmp_path / "older" / "eztorch_sce" / "__init__.py").write_text("__version__ = '0.0.1'\n")
    assert_node_is_refused(two_nodes, jobs, tmp_path / "older", "eztorch_sce 0.0.1 is installed, and this is")

    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / "eztorch_sce.py").write_text("raise ImportError('No module named eztorch_sce')\n")
    assert_node_is_refused(two_nodes, jobs, tmp_path / "lacking", "cannot import eztorch_sce")
    assert not jobs.job.receipts()


def assert_node_is_refused(two_nodes: TwoNodes, jobs: Jobs, packages: Path, message: str) -> None:
    """Check that a node which finds other packages is refused."""
    node = two_nodes.cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(packages)}, **NODE)
    try:
        with pytest.raises(ConfigError, match=f"^- on {socket.gethostname()}: {message}"):
            jobs.run(two_nodes.address)
    finally:
        two_nodes.cluster.remove_node(node)


@pytest.mark.long
def test_a_service_that_is_not_ray_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_JOIN_S", 10.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"runner.address={address} .*no answer of a Ray cluster within 10 s"):
            RayConfig(address=address).build().check(str(tmp_path), None)


@pytest.mark.long
def test_without_an_address_a_cluster_is_started_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    jobs = make_jobs(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    merged = run_job(jobs.job, jobs.work, RayConfig(max_workers=1).build(), None)
    jobs.assert_same(merged)
    assert signal.getsignal(signal.SIGTERM) is handler
    wait_for_end(workers(jobs.job))
