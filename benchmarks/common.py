"""Helpers of the benchmarks: arguments, medians, other checkouts, and the output as a table and as JSON."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch

Row = dict[str, str | float]


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with `--json` and `--device`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="file to write versions and rows to")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser


def row(what: str, who: str, value: float, unit: str) -> Row:
    """Return one measured value of `who` at `what`."""
    return {"what": what, "who": who, "value": value, "unit": unit}


def medians(calls: dict[str, Callable[[], object]], repeats: int, device: str = "cpu") -> dict[str, float]:
    """Return the median seconds of each call after one warm-up. Calls take turns so that noise affects all alike."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            _wait(device)
            started = time.perf_counter()
            call()
            _wait(device)
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def checkouts(baseline: Path | None) -> dict[str, Path]:
    """Return this checkout of the package, and another one as its baseline if one is given."""
    root = Path(__file__).resolve().parents[1]
    return {"eztorch_sce": root} | ({} if baseline is None else {"eztorch_sce before": baseline.resolve()})


def run_in(checkout: Path, code: str, *arguments: object) -> list[float]:
    """Run code on the package of a checkout, in a process of its own; return the numbers of the last line it prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    result = subprocess.run(command, capture_output=True, text=True, cwd=checkout, env=environment)
    if result.returncode:
        sys.exit(result.stderr)
    return [float(word) for word in result.stdout.splitlines()[-1].split()]


def finish(rows: list[Row], packages: list[str], json_file: Path | None, notes: list[str]) -> None:
    """Print versions, rows and notes, and write them to `json_file` unless it is None."""
    versions = {name: metadata.version(name) for name in packages}
    versions |= {"python": platform.python_version(), "cpu": cpu_name(), "threads": str(torch.get_num_threads())}
    if torch.cuda.is_available():
        versions["gpu"] = torch.cuda.get_device_name()
    print(json.dumps(versions))
    for entry in rows:
        print(f"{entry['what']:<60} {entry['who']:<28} {entry['value']:>12.4g} {entry['unit']}")
    for note in notes:
        print(note)
    if json_file is not None:
        json_file.write_text(json.dumps({"versions": versions, "rows": rows, "notes": notes}, indent=1) + "\n")


def cpu_name() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
