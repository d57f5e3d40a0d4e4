"""Tests of the number of CPU cores of a process: affinity, quotas, and processes beside it."""

import os
from pathlib import Path

import pytest

from eztorch_sce import cores
from eztorch_sce.cores import cores_per_process, num_usable_cores
from eztorch_sce.data.config import DataConfig

SRUN = {"SLURM_NTASKS": "16", "SLURM_NTASKS_PER_NODE": "8", "SLURM_PROCID": "3", "SLURM_CPUS_ON_NODE": "96"}
TORCHRUN = {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8", "RANK": "3"}


def affinities(monkeypatch: pytest.MonkeyPatch, own: int, parent: int) -> None:
    sizes = {0: own, os.getppid(): parent}
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(sizes[pid])))
    monkeypatch.setattr("os.cpu_count", lambda: 128)


@pytest.mark.parametrize(
    ("environ", "own", "parent", "expected"),
    [
        ({}, 96, 96, 96),  # a process of its own
        (TORCHRUN, 128, 128, 16),  # unbound: all cores in each process
        (TORCHRUN, 64, 64, 8),  # torchrun itself is bound, and its processes inherit that
        (TORCHRUN, 16, 128, 16),  # bound one by one
        (TORCHRUN, 64, 128, 16),  # bound to the half of the machine that is near the GPU, with three others
        (SRUN, 12, 128, 12),  # bound by SLURM
        (SRUN, 96, 128, 12),  # not bound within the job
        ({name: SRUN[name] for name in SRUN if name != "SLURM_CPUS_ON_NODE"}, 12, 128, 12),
        (TORCHRUN | SRUN | {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1"}, 96, 96, 12),  # torchrun under srun
        ({"WORLD_SIZE": "4", "LOCAL_RANK": "1"}, 48, 48, 12),  # Lightning
        (TORCHRUN, 4, 4, 1),  # more processes than cores
    ],
)
def test_bound_processes_have_their_cores_and_others_divide_them(
    environ: dict[str, str], own: int, parent: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    affinities(monkeypatch, own, parent)
    assert cores_per_process(num_usable_cores(), environ=environ) == expected


def test_the_affinity_of_this_process_counts() -> None:
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(own)})
    try:
        assert num_usable_cores() == 1
    finally:
        os.sched_setaffinity(0, own)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"cpu.max": "200000 100000"}, 2),  # a container: docker --cpus=2
        ("0::/", {"cpu.max": "max 100000"}, 96),
        ("0::/pod/app", {"pod/cpu.max": "650000 100000", "pod/app/cpu.max": "max 100000"}, 6),  # of a parent group
        ("0::/not/mounted", {"cpu.max": "50000 100000"}, 1),
        (
            "4:cpu,cpuacct:/docker/1",
            {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "1e5"},
            96,
        ),
        ("4:cpu,cpuacct:/docker/1", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 96),
    ],
)
def test_a_quota_of_a_control_group_counts(
    groups: str, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    affinities(monkeypatch, 96, 96)
    own = tmp_path / "own"
    own.write_text(f"9:memory:/x\n{groups}\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "_OWN_CGROUP", own)
    assert num_usable_cores() == expected
    assert cores_per_process(num_usable_cores(), 2, environ={}) == max(1, expected // 2)


def test_workers_leave_a_core_to_the_process_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    affinities(monkeypatch, 12, 128)
    assert DataConfig(root="x").workers() == 11
    affinities(monkeypatch, 2, 128)
    assert DataConfig(root="x").workers() == 2
