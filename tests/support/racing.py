"""Two processes that open the same run directory at the same instant, again and again.

`python racing.py NUMBER ROUNDS` is one of them, in the folder of the race. It prints one line of JSON per round: the
directory that it got, or an empty text, and why it got none.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.report.run_directory import check_run, open_run
from eztorch_sce.report.run_session import in_run_directory
from eztorch_sce.types import Report


def race(folder: Path, rounds: int) -> list[list[tuple[str, str]]]:
    """Return what each of two processes got in each round. Every second round, the command chooses the directory."""
    commands = [[sys.executable, __file__, str(number), str(rounds)] for number in range(2)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) for command in commands]
    outputs = [process.communicate()[0].splitlines() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    return [[tuple(json.loads(line)) for line in pair] for pair in zip(*outputs, strict=True)]


@in_run_directory
def hold(config: PretrainConfig, number: int, meeting: str) -> Report:
    """Open a run, and stay in it until the other process has opened one, or has given up."""
    config = check_run("pretrain", config)
    run_dir = open_run("pretrain", config)
    meet(number, f"{meeting}-opened")
    return Report("pretrain", {}, {}, run_dir)


def meet(number: int, name: str) -> None:
    """Wait until the other process has come here too."""
    Path(f"{name}-{number}").touch()
    stop = time.monotonic() + 60
    while not Path(f"{name}-{1 - number}").exists() and time.monotonic() < stop:
        time.sleep(0.0005)


def main(number: int, rounds: int) -> None:
    """Take part in a race."""
    for each in range(rounds):
        config = PretrainConfig()
        config.run.dir = f"run-{each}" if each % 2 == 0 else None
        got, why = "", ""
        meet(number, f"round-{each}")
        try:
            got = str(hold(config, number, f"round-{each}").run_dir)
        except ConfigError as error:
            why = str(error)
            meet(number, f"round-{each}-opened")
        print(json.dumps([got, why]), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
