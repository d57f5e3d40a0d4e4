"""Tests of `data plan`: laws that hold for any speeds."""

from dataclasses import replace
from pathlib import Path

import pytest

from eztorch_sce import cli
from eztorch_sce.curation.rates import MergeSpeed, NetworkSpeed, Rates, Reading, Speed, write_rates
from eztorch_sce.errors import ConfigError
from eztorch_sce.planning.data_plan import Stage, plan_data
from eztorch_sce.planning.data_settings import DataPlanConfig

RATES = Rates(
    version="0",
    date="2026-01-01",
    machine="a CPU",
    cores=4,
    num_gpus=0,
    folder_records=1000,
    num_records=24,
    videos=0.5,
    bytes_per_record=1e6,
    duration_s=10.0,
    open_s=1e-4,
    scaling=1.0,
    doctor=Speed(10.0, 1e6, 0.0, 24),
    prepare=Speed(0.5, 1.1e6, 2e5, 12),
    reading=Reading(Speed(5.0, 3e5, 0.0, 24), Speed(2.0, 1e6, 0.0, 24), num_clips=10, num_crops=3),
    network=NetworkSpeed("r3d18", 512, 16, 112, "cpu", threads=4, views_per_s=40.0),
    merge=MergeSpeed(1e6, 150.0, 50.0, 20_000),
)
LARGE = DataPlanConfig(
    records=64_000_000, nodes=16, cores=10, shard_records=1000, storage_gbps=1000.0, requests_per_s=1e5
)
"""64,000 shards, so that each of up to thousands of nodes has as many."""


def stages_of(config: DataPlanConfig, rates: Rates = RATES) -> dict[str, Stage]:
    return {stage.name: stage for stage in plan_data(config, rates).stages}


def hours_of(stage: Stage, resource: str) -> float:
    return next(load.hours for load in stage.loads if load.resource == resource)


def test_a_single_node_takes_the_measured_time_of_each_record() -> None:
    stages = stages_of(DataPlanConfig(records=36_000, nodes=1, cores=1))
    assert hours_of(stages["doctor"], "cores") == pytest.approx(1)  # 36,000 files at 10 files/s
    assert hours_of(stages["prepare"], "cores") == pytest.approx(10)  # 18,000 videos at 0.5 videos/s
    assert hours_of(stages["extract"], "cores") == pytest.approx(5 + 30)  # at 2 files/s, and 30 views at 10 views/s


def test_one_clip_and_ten_clips_take_what_was_measured() -> None:
    config = DataPlanConfig(records=36_000, nodes=1, cores=1, gpus=1, views_per_s=1e9)
    assert hours_of(stages_of(replace(config, num_clips=1))["extract"], "cores") == pytest.approx(2)
    assert hours_of(stages_of(replace(config, num_clips=10))["extract"], "cores") == pytest.approx(5)
    between = hours_of(stages_of(replace(config, num_clips=4))["extract"], "cores")
    assert between == pytest.approx(3)


@pytest.mark.parametrize("name", ["doctor", "prepare", "extract"])
def test_twice_the_nodes_halve_the_hours_until_the_storage_is_the_limit(name: str) -> None:
    one, two = (stages_of(replace(LARGE, nodes=nodes))[name] for nodes in (16, 32))
    assert hours_of(two, "cores") == pytest.approx(hours_of(one, "cores") / 2)
    assert hours_of(two, "storage") == pytest.approx(hours_of(one, "storage"))
    enough = one.enough_nodes(16)
    assert 32 < enough < 64_000
    there, beyond = (stages_of(replace(LARGE, nodes=nodes))[name] for nodes in (enough, 64_000))
    assert beyond.hours == pytest.approx(there.hours, rel=0.15)  # shards do not divide evenly among `enough` nodes
    assert stages_of(replace(LARGE, nodes=enough // 2))[name].hours > 1.2 * (beyond.hours - beyond.driver.hours)


def test_twice_the_records_take_twice_the_hours_bytes_and_shards() -> None:
    one, two = (plan_data(replace(LARGE, records=count), RATES) for count in (32_000_000, 64_000_000))
    assert two.num_shards == 2 * one.num_shards
    for half, whole in zip(one.stages, two.stages, strict=True):
        for field in ("hours", "bytes_read", "bytes_written", "num_requests", "output_bytes", "driver_bytes"):
            assert getattr(whole, field) == pytest.approx(2 * getattr(half, field)), (whole.name, field)


@pytest.mark.parametrize(
    ("settings", "stage", "resource"),
    [
        ({}, "extract", "cores"),
        ({"network_gbps": 0.001}, "extract", "network"),
        ({"storage_gbps": 0.001}, "extract", "storage"),
        ({"requests_per_s": 1.0}, "prepare", "requests"),
        ({"gpus": 1, "views_per_s": 20.0}, "extract", "GPUs"),
        ({"gpus": 8, "views_per_s": 2e4}, "extract", "cores"),
    ],
)
def test_the_scarce_resource_is_the_bottleneck(settings: dict[str, float], stage: str, resource: str) -> None:
    config = replace(LARGE, **settings)  # type: ignore[arg-type]
    assert stages_of(config)[stage].bottleneck.resource == resource


def test_slow_opening_takes_its_time_for_each_record() -> None:
    config = DataPlanConfig(records=36_000, nodes=1, cores=1)
    fast, slow = (stages_of(replace(config, open_ms=open_ms))["doctor"] for open_ms in (0.1, 100.1))
    assert hours_of(slow, "cores") - hours_of(fast, "cores") == pytest.approx(1)  # 36,000 times 0.1 s
    assert slow.driver.hours > fast.driver.hours


def test_processes_that_slow_each_other_down_take_longer() -> None:
    alone, together = (stages_of(replace(LARGE, scaling=scaling))["doctor"] for scaling in (1.0, 0.5))
    assert hours_of(together, "cores") == pytest.approx(2 * hours_of(alone, "cores"))


def test_nodes_without_a_shard_do_not_help_and_are_named() -> None:
    config = DataPlanConfig(records=4000, nodes=8, cores=4, shard_records=1000)
    plan = plan_data(config, RATES)
    assert plan.num_shards == 4
    assert any("4 of 8 nodes have no shard: set runner.shard_records=500" in line for line in plan.advice)
    assert plan.stages[0].hours == pytest.approx(stages_of(replace(config, nodes=4))["doctor"].hours)


def test_images_are_not_copied_and_have_one_clip() -> None:
    reading = replace(RATES.reading, clips=None)
    stages = stages_of(LARGE, replace(RATES, prepare=None, videos=0.0, duration_s=0.0, reading=reading))
    assert list(stages) == ["doctor", "extract"]
    one_clip = stages_of(replace(LARGE, num_clips=1))["extract"]
    assert stages["extract"].hours == pytest.approx(one_clip.hours)


@pytest.mark.parametrize(
    ("settings", "measured_on", "message"),
    [
        ({"gpus": 8}, "cpu", "gpus=8: the network was measured on a CPU; set views_per_s="),
        ({"views_per_s": 100.0}, "cpu", "views_per_s=100 is the speed of a GPU, and gpus=0: set gpus="),
        ({"gpus": 0}, "NVIDIA H100", "gpus=0: the network was measured on a GPU"),
    ],
)
def test_the_speed_of_other_hardware_is_not_invented(
    settings: dict[str, float], measured_on: str, message: str
) -> None:
    threads = 4 if measured_on == "cpu" else 0
    network = replace(RATES.network, device=measured_on, threads=threads)
    with pytest.raises(ConfigError, match=message):
        plan_data(replace(LARGE, **settings), replace(RATES, network=network))  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", [60, 100])
def test_the_tables_fit_the_terminal(
    columns: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rates(tmp_path, RATES)
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "plan", str(tmp_path), "records=100000000", "nodes=512", "cores=64"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= columns
    for number in ("100,000,000", "50,000,000", "50,000", "512 nodes of 64 cores"):
        assert number in printed
    assert "…" not in printed


def test_a_plan_needs_measurements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "plan", str(tmp_path), "nodes=2"])
    assert ended.value.code == 2
    assert "run `eztorch-sce data bench" in capsys.readouterr().err
