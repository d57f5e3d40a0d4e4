"""Startup time of the command line: help, lists and error messages, each in a new process.

python benchmarks/startup.py                                       # this checkout
python benchmarks/startup.py --command OLD/.venv/bin/eztorch-sce   # another checkout
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

COMMANDS = {
    "--help": "--help",
    "recipes": "recipes",
    "env": "env",
    "data --help": "data --help",
    "pretrain --help": "pretrain --help",
    "knn --help": "knn --help",
    "a mistyped command": "pretrian",
    "a mistyped key": "pretrain data.root=x trainer.max_epoch=3",
    "an invalid value": "pretrain data.root=x optimizer.lr=-1",
}


def seconds(command: list[str], repeats: int) -> float:
    """Return the median wall time of a command in a new process, after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=False)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write versions and rows to this file")
    parser.add_argument("--command", default=str(Path(sys.executable).with_name("eztorch-sce")), help="the executable")
    parser.add_argument("--name", default="eztorch_sce", help="name in the results")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for what, words in COMMANDS.items():
        taken = seconds([options.command, *words.split()], options.repeats)
        rows.append({"what": what, "who": options.name, "value": 1 / taken, "unit": "answers/s"})
        print(f"{what:<24} {taken:6.2f} s")
    if options.json is not None:
        versions = {name: metadata.version(name) for name in ("torch", "hydra-core", "omegaconf", "rich")}
        versions["python"] = platform.python_version()
        content = {"versions": versions, "rows": rows, "notes": []}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
