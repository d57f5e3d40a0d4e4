"""Trainings that are killed and started again, and what is compared with a training that was left alone."""

import csv
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from image_files import write_noisy_classes
from sessions import members
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from warm_commands import FullDisk, Kill, WarmCommands

from eztorch_sce.curation.video_writer import write_video
from eztorch_sce.models.weights import load_weights

_TIMES = re.compile(r"views_per_s|steps_per_s|data_wait|\w+_s|\w*memory\w*|\w+_gb")  # differ from run to run
_PATIENCE_S = 240.0  # for a training of a few steps, on a machine that is busy
_LAUNCHER_WAITS_S = 20.0  # after the death of a process, until the others get SIGTERM


class Outcome(NamedTuple):
    """What a finished training leaves, without times.

    Attributes:
        rows: The rows of `metrics.csv`.
        curves: Tag, step and value of each scalar of TensorBoard, in this order.
        metrics: The metrics of `report.json`.
        weights: SHA-256 of the tensors of the weights file.
        leftovers: Temporary files.
    """

    rows: list[dict[str, str]]
    curves: list[tuple[str, int, float]]
    metrics: dict[str, Any]
    weights: str
    leftovers: list[str]


def outcome(run_dir: Path) -> Outcome:
    """Read what a training has left in its run directory."""
    with (run_dir / "metrics.csv").open(newline="") as stream:
        rows = [_without_times(row) for row in csv.DictReader(stream)]
    metrics = _without_times(json.loads((run_dir / "report.json").read_text())["metrics"])
    names = [str(file.relative_to(run_dir)) for file in run_dir.rglob("*")]
    leftovers = sorted(name for name in names if name.endswith((".partial", ".tmp")))
    return Outcome(rows, sorted(_curves(run_dir / "tensorboard")), metrics, _hash_of_weights(run_dir), leftovers)


def _without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not _TIMES.fullmatch(name) and value != ""}


def _curves(folder: Path) -> Iterator[tuple[str, int, float]]:
    for file in sorted(folder.glob("events.*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tensor.float_val and not _TIMES.fullmatch(value.tag):
                    yield value.tag, event.step, value.tensor.float_val[0]


def _hash_of_weights(run_dir: Path) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(load_weights(str(run_dir)).state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_videos(folder: Path, num_train: int = 32, num_test: int = 8) -> Path:
    """Write videos of one second, of two classes that differ in what they show, and return the folder."""
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", num_train), ("test", num_test)):
        for number in range(count):
            file = folder / split / "ab"[number % 2] / f"{number}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            frames = torch.randint(0, 256, (12, 32, 32, 3), dtype=torch.uint8, generator=generator)
            frames[..., number % 2] //= 2
            write_video(file, frames, fps=12)
    return folder


def write_images(folder: Path) -> Path:
    """Write 32 training and 8 test images of two classes, and return the folder."""
    write_noisy_classes(folder, {"train": 32, "test": 8}, size=24)
    return folder


@dataclass
class Trainings:
    """Trainings of one command, each in a run directory below a folder.

    Args:
        commands: The server that starts processes.
        words: The command, without `run.dir`.
        folder: Folder of the run directories, and of what the processes print.
        num_processes: Number of processes, started as by torchrun.
    """

    commands: WarmCommands
    words: list[str]
    folder: Path
    num_processes: int = 1

    def alone(self) -> Outcome:
        """Train without being disturbed."""
        return self.killed("alone", [])

    def killed(self, name: str, kills: Sequence[Kill], *words: str, clock_shift_s: float = 0.0) -> Outcome:
        """Train to the end, starting the same command again after each kill.

        Args:
            name: Name of the run directory.
            kills: When and how each start but the last is ended. A training that has finished before is left as it is.
            words: Settings added to the command.
            clock_shift_s: Seconds by which the clock of the processes is wrong.
        """
        for number, kill in enumerate([*kills, None]):
            codes = self.start(name, number, kill, *words, clock_shift_s=clock_shift_s)
            if not any(codes):
                return outcome(self.folder / name)
            assert kill is not None, self.printed(name, number)
            assert -signal.SIGKILL in codes or kill.whom == "worker", self.printed(name, number)
        raise AssertionError("the last start has ended")

    def start(
        self, name: str, number: int, event: Kill | FullDisk | None, *words: str, clock_shift_s: float = 0.0
    ) -> list[int]:
        """Start the command, let an event happen to it, wait for its processes, and return their exit codes."""
        run_dir = self.folder / name
        settings = [*self.words, *words, f"run.dir={run_dir}"]
        files = [self._file(name, number, rank) for rank in range(self.num_processes)]
        port = _free_port()
        processes = [
            self.commands.start(
                settings, file, run_dir, event if rank == 0 else None, self._environment(rank, port), clock_shift_s
            )
            for rank, file in enumerate(files)
        ]
        return self._follow(processes, files, event if isinstance(event, Kill) else None)

    def printed(self, name: str, number: int) -> str:
        """Return what the processes of a start have printed."""
        files = [self._file(name, number, rank) for rank in range(self.num_processes)]
        return "\n".join(file.read_text(errors="replace") for file in files)

    def _file(self, name: str, number: int, rank: int) -> Path:
        return self.folder / f"{name}-start{number}-process{rank}.txt"

    def _environment(self, rank: int, port: int) -> dict[str, str]:
        if self.num_processes == 1:
            return {}
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self.num_processes}
        variables |= {"LOCAL_WORLD_SIZE": self.num_processes, "MASTER_PORT": port}
        return {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in variables.items()}

    def _follow(self, processes: list[int], files: list[Path], kill: Kill | None) -> list[int]:
        started, is_over = time.monotonic(), kill is None or kill.change is not None
        is_over_since = 0.0
        codes: list[int | None] = [None] * len(processes)
        while None in codes:
            codes = [self.commands.ended(process) for process in processes]
            if kill is not None and kill.whom == "all" and -signal.SIGKILL in codes:
                for process in processes:
                    _kill_session(process)
            elif kill is not None and not is_over and kill.is_due(time.monotonic() - started, files[0]):
                is_over = _kill(processes, kill.whom)
            if -signal.SIGKILL in codes and not is_over_since:
                is_over_since = time.monotonic()
            if is_over_since and time.monotonic() - is_over_since > _LAUNCHER_WAITS_S:  # as launchers do
                for process in processes:
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGTERM)
            if time.monotonic() - started > _PATIENCE_S:
                for process in processes:
                    _kill_session(process)
                raise AssertionError(f"the processes do not end: {[file.read_text() for file in files]}")
            time.sleep(0.002)
        for process in processes:
            _wait_for_session(process)
        return [code for code in codes if code is not None]


def _free_port() -> int:
    """Return a port below those that the system gives to the connections of other programs."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as candidate, suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            return port


def _kill(processes: list[int], whom: str) -> bool:
    """Kill what is asked for, and return whether it was there."""
    if whom == "all":
        for process in processes:
            _kill_session(process)
    elif whom == "worker":
        workers = [each for each in members(processes[0]) if each != processes[0]]
        if not workers:
            return False
        with suppress(ProcessLookupError):
            os.kill(workers[-1], signal.SIGKILL)
    else:
        os.kill(processes[0 if whom == "first" else -1], signal.SIGKILL)
    return True


def _kill_session(leader: int) -> None:
    for process in members(leader):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _wait_for_session(leader: int) -> None:
    """Wait until the loader workers of a process that has ended have ended too."""
    stop = time.monotonic() + _PATIENCE_S
    while left := members(leader):
        assert time.monotonic() < stop, f"processes {left} outlive the command that started them"
        time.sleep(0.01)


def copy_of(run_dir: Path, name: str) -> Path:
    """Copy a run directory to one beside it."""
    return Path(shutil.copytree(run_dir, run_dir.with_name(name)))
