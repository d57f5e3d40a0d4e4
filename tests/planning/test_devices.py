"""Tests of the measurements that ship with the package."""

import runpy
from pathlib import Path

import pytest

from eztorch_sce.planning.devices import DEVICES, find_measurement, load_measurements

ROOT = Path(__file__).resolve().parents[2]


def test_packaged_measurements_match_the_benchmark_results() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "measured.py"))
    current = script["as_json"](script["collect"](script["RESULTS"]))
    assert script["MEASURED"].read_text(encoding="utf-8") == current, "run: python benchmarks/measured.py"


def test_a_measurement_belongs_to_one_device_and_workload() -> None:
    measurement = find_measurement("cpu", "resnet50, 2 views of 224 px,", "float32")
    assert measurement in load_measurements()
    assert find_measurement("A100-80G", "resnet50, 2 views of 224 px,", "float32") is None
    assert find_measurement("cpu", "resnet50, 2 views of 2 px,", "float32") is None


@pytest.mark.parametrize("name", DEVICES)
def test_lower_precision_is_never_slower(name: str) -> None:
    device = DEVICES[name]
    assert device.fp32 <= device.peak("32-true") <= device.peak("16-mixed")
