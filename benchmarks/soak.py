"""A long pretraining on real files, broken ones too, whose memory, files and threads are watched.

    python benchmarks/soak.py DATA [--minutes 60] [--labeled FOLDER] [--json FILE] [--runs runs/soak] [key=value ...]

Two trainings run at the same time: one on all videos below DATA, one on all its images. Packed CIFAR-10 arrays
(`data`, `offsets`) are unpacked into files first. Files that cannot be read are skipped. With --labeled, a folder with
train.csv and test.csv, the training on videos is evaluated on those every tenth epoch. Every few seconds, the commands
and their loader workers are measured from /proc. When the time is over, SIGTERM asks the trainings to save and to end.

A number is flat if a line through the second half of its samples rises by less than 5% of their median in that half,
or by less than its noise.
"""

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from common import Row, arguments, finish, row

SETTINGS = [
    *("data.on_error=skip", "data.max_unreadable=0.5", "data.pretrain_on=all", "data.num_workers=2"),
    *("data.batch_size=16", "views.*.size=32", "method.queue_size=1024", "optimizer=sgd", "trainer.max_epochs=100000"),
    *("trainer.accelerator=cpu", "run.save_every_minutes=1", "run.log_every_n_steps=20", "schedule.warmup_epochs=0"),
    *("backbone=r2plus1d_small", "backbone.width=8", "backbone.num_blocks=1"),
]
VIDEOS = ["data.kind=video", "data.num_frames=8", "data.clip_s=2", "views=motion"]
IMAGES = ["data.kind=image", "views=image"]
SAMPLE_EVERY_S = 5.0
MIB = 2**20
RISES = "RISES"


@dataclass
class Watched:
    """A training, and what was measured of its processes: one list per number, one entry per sample."""

    name: str
    run_dir: Path
    process: "subprocess.Popen[bytes]"
    times_s: list[float] = field(default_factory=list)
    numbers: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, elapsed_s: float) -> None:
        """Add a sample."""
        main, workers = self.process.pid, descendants(self.process.pid)
        sample = {
            "resident memory of the command, MiB": resident(main) / MIB,
            "own memory of command and workers, MiB": sum(map(own, [main, *workers])) / MIB,
            "open files of the command": count(main, "fd"),
            "open files of the workers": sum(count(worker, "fd") for worker in workers),
            "threads of the command": count(main, "task"),
            "worker processes": len(workers),
            "files in /dev/shm": len(os.listdir("/dev/shm")),
            "files in the run directory": sum(1 for _ in self.run_dir.rglob("*")),
        }
        self.times_s.append(elapsed_s)
        for name, value in sample.items():
            self.numbers.setdefault(name, []).append(value)


def descendants(process: int) -> list[int]:
    """Return the descendants of a process."""
    children = []
    for task in entries(process, "task"):
        text = read(f"/proc/{process}/task/{task}/children")
        children += [int(child) for child in text.split()]
    return [each for child in children for each in [child, *descendants(child)]]


def entries(process: int, folder: str) -> list[str]:
    try:
        return os.listdir(f"/proc/{process}/{folder}")
    except OSError:  # it has ended
        return []


def count(process: int, folder: str) -> int:
    return len(entries(process, folder))


def read(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:  # the process has ended
        return ""


def bytes_of(text: str, name: str) -> int:
    """Return a number of kB in a file of /proc, in bytes."""
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(f"{name}:"))


def resident(process: int) -> int:
    return bytes_of(read(f"/proc/{process}/status"), "VmRSS")


def own(process: int) -> int:
    """Return the memory of a process in bytes without files, in which a page shared with others counts in parts.

    Pages of libraries are left out: how many programs share them depends on what else runs on the machine.
    """
    rollup = read(f"/proc/{process}/smaps_rollup")
    return bytes_of(rollup, "Pss_Anon") + bytes_of(rollup, "Pss_Shmem")


def unpack_images(source: Path, folder: Path) -> Path:
    """Link the images below a folder and unpack its arrays of encoded images, and return the folder of both."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "packed").mkdir(parents=True)
    for number, file in enumerate(sorted(source.rglob("*.npz"))):
        packed = np.load(file)
        data, offsets = packed["data"], packed["offsets"]  # each read decompresses the whole array
        for index, (start, stop) in enumerate(itertools.pairwise(offsets)):
            (folder / "packed" / f"{number}-{index}.jpg").write_bytes(data[start:stop].tobytes())
    for file in sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg", ".png")):
        (folder / file.name).symlink_to(file.resolve())
    return folder


def start(name: str, root: Path, runs: Path, words: list[str]) -> Watched:
    """Start a training, whose output goes to a file beside its run directory."""
    run_dir = runs / name
    line = [sys.executable, "-m", "eztorch_sce", "pretrain", f"data.root={root}", f"run.dir={run_dir}", *words]
    print(" ".join(line), flush=True)
    with (runs / f"{name}.txt").open("w") as stream:
        return Watched(name, run_dir, subprocess.Popen(line, stdout=stream, stderr=stream))


def watch(trainings: list[Watched], seconds: float) -> None:
    """Measure trainings until the time is over or one of them ends, saying how they are once a minute."""
    started = said = time.monotonic()
    while (elapsed_s := time.monotonic() - started) < seconds:
        for training in trainings:
            training.measure(elapsed_s)
            if training.process.poll() is not None:
                print(f"{training.name} ended with exit code {training.process.returncode}", flush=True)
                return
        if time.monotonic() - said > 60:
            said = time.monotonic()
            states = [f"{each.name} {each.numbers[next(iter(each.numbers))][-1]:.0f} MiB" for each in trainings]
            print(f"{elapsed_s / 60:.0f} min: {', '.join(states)}", flush=True)
        time.sleep(SAMPLE_EVERY_S)


def rise(times_s: list[float], values: list[float]) -> tuple[float, float, bool]:
    """Return the median of the second half, the rise of a line through it per hour, and whether it is flat."""
    half = [number for number, when in enumerate(times_s) if when >= times_s[-1] / 2]
    hours, numbers = np.array(times_s)[half] / 3600, np.array(values)[half]
    slope, start = np.polyfit(hours, numbers, 1)
    middle = float(np.median(numbers))
    rise_in_half = slope * (hours[-1] - hours[0])
    noise = float(np.std(numbers - (slope * hours + start)))
    return middle, float(slope), bool(rise_in_half <= max(0.05 * middle, noise))


def rows_of(training: Watched) -> list[Row]:
    """Return the summary of a training."""
    rows = []
    for name, values in training.numbers.items():
        middle, slope, is_flat = rise(training.times_s, values)
        rows.append(
            row(f"{training.name}: {name}", "median of the second half", middle, "flat" if is_flat else "RISES")
        )
        rows.append(row(f"{training.name}: {name}", "rise per hour", slope, "per hour"))
        rows.append(row(f"{training.name}: {name}", "largest", max(values), ""))
    return rows


def logged(training: Watched) -> list[Row]:
    """Return the steps, the speed in both halves and the number of unreadable files."""
    with (training.run_dir / "metrics.csv").open(newline="") as stream:
        entries = list(csv.DictReader(stream))
    speeds = [float(entry["views_per_s"]) for entry in entries if entry.get("views_per_s")]
    unreadable = training.run_dir / "unreadable.csv"
    half = len(speeds) // 2
    values: list[tuple[str, float, str]] = [
        ("steps", float(entries[-1]["step"]) + 1, ""),
        ("speed in the first half", float(np.median(speeds[:half])), "views/s"),
        ("speed in the second half", float(np.median(speeds[half:])), "views/s"),
        ("unreadable files", max(0, len(unreadable.read_text().splitlines()) - 1) if unreadable.exists() else 0, ""),
    ]
    return [row(f"{training.name}: {what}", "eztorch_sce", value, unit) for what, value, unit in values]


def end(training: Watched) -> Row:
    """Ask a training to save and to end, and return its exit code."""
    if training.process.poll() is None:
        training.process.send_signal(signal.SIGTERM)
    code = training.process.wait(timeout=300)
    return row(f"{training.name}: exit code after SIGTERM", "eztorch_sce", code, "")


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--labeled", type=Path, help="folder with train.csv and test.csv, for the online evaluation")
    parser.add_argument("--runs", type=Path, default=Path("runs/soak"))
    options, settings = parser.parse_known_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    images = unpack_images(options.data, options.runs / "image files")
    online = []
    if options.labeled is not None:
        lists = [f"online.list={options.labeled}/train.csv", f"online.test_list={options.labeled}/test.csv"]
        online = ["online.every_n_epochs=10", *lists]
    trainings = [
        start("videos", options.data, options.runs, [*SETTINGS, *VIDEOS, *online, *settings]),
        start("images", images, options.runs, [*SETTINGS, *IMAGES, *settings]),
    ]
    try:
        watch(trainings, 60 * options.minutes)
        rows = [end(training) for training in trainings]
    finally:
        for training in trainings:
            training.process.kill()
    for training in trainings:
        rows += logged(training) + rows_of(training)
        (options.runs / f"{training.name}.json").write_text(json.dumps([training.times_s, training.numbers]))
    notes = [f"{options.minutes:g} minutes, sampled every {SAMPLE_EVERY_S:g} s, both trainings at once"]
    finish(rows, ["torch", "pytorch-lightning", "eztorch-sce", "numpy", "av"], options.json, notes)
    sys.exit(any(entry["unit"] == RISES for entry in rows))


if __name__ == "__main__":
    main()
