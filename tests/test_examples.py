"""Tests that run each example as a user would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))


def run_python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return run


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs(example: Path, tmp_path: Path) -> None:
    run = run_python(str(example), folder=tmp_path)
    assert run.stdout.strip(), "an example must print its result"
    if example.stem == "minimal":
        untrained, pretrained = (float(number) for number in re.findall(r"kNN (0\.\d+)", run.stdout))
        assert pretrained > untrained + 0.1


def test_the_loop_runs_on_two_processes(tmp_path: Path) -> None:
    example = next(path for path in EXAMPLES if path.stem == "own_loop")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = run_python(*torchrun, str(example), folder=tmp_path)
    results = re.findall(r"records \d+, kNN [\d.]+", run.stdout)
    assert len(results) == 2
    assert results[0] == results[1]  # both have the features of all records
    assert results[0].startswith("records 32,")
