"""Work on the files of a data set by each runner: equal results, times, and what disturbances leave behind.

    python benchmarks/cluster.py DATA [--records 2000] [--commands doctor ...] [--faults 24] [--json FILE]

All videos below DATA are copied once and linked until there are as many records as asked for. `data doctor`, `data
prepare` and `extract` then run as commands, by `runner=local`, by `runner=ray` on a cluster of two nodes of one core
each, and by `runner=slurm` with submitit's executor for one machine, two tasks of one core. Their results must be
equal, row for row and bit for bit.

With --faults, each fault is drawn from a seed: a worker process, a node or the command itself is killed by SIGKILL, or
the disk of the job is full for a while. The command is run again until it has finished, and its result compared. A
fault that comes too late to find a process is repeated at half the time.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common import Row, arguments, finish, row

SUFFIXES = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".ts", ".mpg", ".flv", ".wmv", ".ogv", ".3gp"}
PER_SHARD = 100
COMMANDS = ["doctor", "prepare", "extract"]
NETWORK = [
    "backbone=r2plus1d_small",
    "backbone.width=8",
    "backbone.num_blocks=1",
    "untrained=true",
    "data.num_frames=4",
]
FEATURES = [*NETWORK, "data.clip_s=0.5", "test.num_clips=1", "accelerator=cpu", "unreadable=omit"]


def multiply(data: Path, folder: Path, num_records: int) -> int:
    """Copy the videos below a folder once and link them until there are enough; return their number."""
    videos = sorted(path for path in data.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    number = 0
    while number < num_records:
        for video in videos:
            name = f"{video.stem}-{video.suffix[1:]}{video.suffix}"  # prepare refuses names that only differ in suffix
            path = video.relative_to(data).with_name(name)
            copies = folder / "videos"  # not in folders of their own, which would give one file several labels
            target, first = copies / f"copy-{number // len(videos):03d}" / path, copies / "copy-000" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if target == first:
                shutil.copyfile(video, target)
            else:
                os.link(first, target)
            number += 1
    return number


def linked(source: Path, target: Path) -> Path:
    """Return a folder of links to the same files: each doctor writes its table into a folder of its own."""
    shutil.copytree(source, target, copy_function=os.link)
    return target


class Nodes:
    """A Ray cluster of two nodes of one core each, on this machine."""

    def __init__(self) -> None:
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}  # no token in the home folder
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster()
        self._cluster.add_node(num_cpus=1, object_store_memory=10**8, include_dashboard=False)
        self.second: Any = None
        self.add()

    @property
    def address(self) -> str:
        """Address to join."""
        return str(self._cluster.address)

    def add(self) -> None:
        """Add the second node, unless it is there."""
        if self.second is None:
            self.second = self._cluster.add_node(num_cpus=1, object_store_memory=10**8)

    def kill_second(self) -> None:
        """Kill the processes of the second node."""
        if self.second is not None:
            self._cluster.remove_node(self.second, allow_graceful=False)
            self.second = None

    def end(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


class Job:
    """A command on a set of files by a runner, which can be run again.

    Args:
        command: "doctor", "prepare" or "extract".
        runner: The words that choose the runner.
        files: Folder of the files.
        out: Folder for whatever the command writes elsewhere.
    """

    def __init__(self, command: str, runner: list[str], files: Path, out: Path) -> None:
        self.command, self.files, self.out = command, files, out
        words = {
            "doctor": ["data", "doctor", str(files), "workers=1" if len(runner) > 1 else "workers=2"],
            "prepare": ["data", "prepare", str(files), str(out / "copies"), "short_side=32", "gop=8"],
            "extract": ["extract", f"data.root={files}", "data.kind=video", f"run.dir={out / 'features'}", *FEATURES],
        }
        self.words = [*words[command], *runner, f"runner.shard_records={PER_SHARD}"]

    def start(self) -> "subprocess.Popen[str]":
        """Start the command."""
        self.out.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "eztorch_sce", *self.words]
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(words, text=True, start_new_session=True, env=environment, **pipe)  # type: ignore[call-overload, no-any-return]

    def finish(self) -> float:
        """Run the command until it has done everything, and return the seconds of the last run."""
        for _ in range(6):
            started = time.perf_counter()
            process = self.start()
            printed, _ = process.communicate()
            if self.is_done(process.returncode):
                return time.perf_counter() - started
        raise RuntimeError(f"{' '.join(self.words)} does not finish:\n{printed}")

    def is_done(self, code: int) -> bool:
        """Return whether a command is done: data commands exit with 1 if some files cannot be used."""
        return code in ((0,) if self.command == "extract" else (0, 1))

    def result(self) -> str:
        """Return a digest of everything that the command is for."""
        return {"doctor": self._table, "prepare": self._copies, "extract": self._features}[self.command]()

    def _table(self) -> str:
        import pyarrow as pa

        with pa.memory_map(str(self.files / "manifest.arrow")) as source:
            rows = pa.ipc.open_file(source).read_all().to_pylist()
        return f"{len(rows)} {hashlib.sha256(repr(rows).encode()).hexdigest()}"

    def _copies(self) -> str:
        copies = sorted(path for path in (self.out / "copies").rglob("*.mp4"))
        digest = hashlib.sha256()
        for path in copies:
            digest.update(str(path.relative_to(self.out)).encode() + path.read_bytes())
        return f"{len(copies)} {digest.hexdigest()}"

    def _features(self) -> str:
        import torch

        digest, num_records = hashlib.sha256(), 0
        for file in sorted((self.out / "features").glob("features_*.pt")):
            bank = torch.load(file, weights_only=True)
            num_records += len(bank["paths"])
            paths = [os.path.relpath(path, self.files) for path in bank["paths"]]
            digest.update(repr(paths).encode() + bank["features"].numpy().tobytes() + bank["labels"].numpy().tobytes())
        return f"{num_records} {digest.hexdigest()}"


class Runners:
    """The words that choose each runner, and the cluster of one of them."""

    def __init__(self) -> None:
        self.nodes = Nodes()

    def words(self, name: str) -> list[str]:
        """Return the words that choose a runner."""
        if name == "ray":
            return ["runner=ray", f"runner.address={self.nodes.address}"]
        if name == "slurm":
            return ["runner=slurm", "runner.executor=local", "runner.cpus_per_task=1", "runner.max_tasks=2"]
        return ["runner=local"]


def children(process: int) -> list[int]:
    """Return all descendants of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*"):
        try:
            own = [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
        found += [each for child in own for each in [child, *children(child)]]
    return found


def workers(process: int, runner: str) -> list[int]:
    """Return the processes that work on files, or write their results."""
    if runner == "local":
        return [each for each in children(process) if not children(each) and "resource_tracker" not in command_of(each)]
    if runner == "slurm":
        return [each for each in children(process) if "submitit" in command_of(each)]
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if "ray::MapWorker" in command_of(int(path.name))]


def command_of(process: int) -> str:
    """Return the command line of a process, "" if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@contextmanager
def small_files(process: int) -> Iterator[None]:
    """Let a process write no file of more than 512 bytes, as on a disk that is full."""
    import resource

    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (512, before[1]))
    try:
        yield
    finally:
        try:
            resource.prlimit(process, resource.RLIMIT_FSIZE, before)
        except ProcessLookupError:
            return  # which has ended


Fault = Callable[["subprocess.Popen[str]"], bool]


class Disturbance:
    """Faults of a job that runs. Each method returns whether it found a process before the command ended.

    Args:
        runners: The runners.
        name: The runner of the job.
        rng: Draws the process.
    """

    def __init__(self, runners: Runners, name: str, rng: random.Random) -> None:
        self.runners, self.name, self.rng = runners, name, rng

    def kinds(self) -> dict[str, Fault]:
        """Return the faults that a runner can have, by name."""
        kinds: dict[str, Fault] = {
            "worker killed": self.kill_worker,
            "command killed": self.kill_command,
            "disk full": self.fill_disk,
        }
        return kinds | ({"node removed": self.remove_node} if self.name == "ray" else {})

    def kill_worker(self, command: "subprocess.Popen[str]") -> bool:
        """Kill a worker process as soon as there is one."""
        found = self._wait_for_workers(command)
        return bool(found) and killed(self.rng.choice(found))

    def kill_command(self, command: "subprocess.Popen[str]") -> bool:
        """Kill the command itself."""
        return command.poll() is None and killed(command.pid)

    def fill_disk(self, command: "subprocess.Popen[str]") -> bool:
        """Let the processes that write results write none for ten seconds, or until the command ends."""
        with ExitStack() as limits:
            num_limited = 0
            found = self._wait_for_workers(command)
            for writer in [command.pid, *found] if self.name == "local" else found:
                try:
                    limits.enter_context(small_files(writer))
                    num_limited += 1
                except ProcessLookupError:
                    continue  # which has ended
            deadline = time.monotonic() + 10
            while command.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
        return num_limited > 0

    def _wait_for_workers(self, command: "subprocess.Popen[str]") -> list[int]:
        """Return the worker processes as soon as there are any, or none if the command ends first."""
        found: list[int] = []
        while command.poll() is None and not found:
            found = workers(command.pid, self.name)
            time.sleep(0.0 if found else 0.1)
        return found

    def remove_node(self, command: "subprocess.Popen[str]") -> bool:
        """Kill the second node, and add another after two seconds."""
        if command.poll() is not None:
            return False
        self.runners.nodes.kill_second()
        time.sleep(2)
        self.runners.nodes.add()
        return True


def killed(process: int) -> bool:
    """Kill a process, and return whether it was there."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def disturbed(job: Job, fault: Fault, after_s: float) -> bool:
    """Run a command, disturb it after a time, and run it again until it has finished; return whether the fault hit."""
    process = job.start()
    time.sleep(after_s)
    hit = fault(process)
    process.communicate()
    job.finish()
    return hit


def compare(folder: Path, files: Path, runners: Runners, commands: list[str], num_records: int) -> list[Row]:
    """Run commands by each runner on all files, and compare results and times."""
    rows = []
    for command in commands:
        results = {}
        for name in ("local", "ray", "slurm"):
            own = linked(files, folder / f"{command}-{name}")
            job = Job(command, runners.words(name), own, folder / f"out-{command}-{name}")
            seconds = job.finish()
            results[name] = job.result()
            rows.append(
                row(
                    f"{command} of {num_records} videos, runner={name}",
                    "eztorch_sce",
                    num_records / seconds,
                    "records/s",
                )
            )
            print(f"{command} {name}: {seconds:.1f} s, {results[name][:40]}", flush=True)
            shutil.rmtree(own)
        assert len(set(results.values())) == 1, f"{command}: results differ: {results}"
    return rows


def disturb_all(folder: Path, files: Path, runners: Runners, count: int, seed: int) -> list[Row]:
    """Run seeded faults, and compare what is left with the results of undisturbed commands."""
    rng, expected, typical_s = random.Random(seed), {}, {}
    for command in COMMANDS:
        own = linked(files, folder / f"whole-{command}")
        job = Job(command, runners.words("local"), own, folder / f"whole-out-{command}")
        typical_s[command] = job.finish()
        expected[command] = job.result()
    cases = [
        (command, name, kind)
        for command in COMMANDS
        for name in ("local", "ray", "slurm")
        for kind in Disturbance(runners, name, rng).kinds()
    ]
    rng.shuffle(cases)
    for number in range(count):
        command, name, kind = cases[number % len(cases)]
        after_s = rng.uniform(0.3, 1.2) * typical_s[command] + (4 if name == "ray" else 0)
        hit = False
        while not hit:
            own = linked(files, folder / f"fault-{number}")
            job = Job(command, runners.words(name), own, folder / f"fault-out-{number}")
            hit = disturbed(job, Disturbance(runners, name, rng).kinds()[kind], after_s)
            assert job.result() == expected[command], f"{command} by {name} after {kind}: the result differs"
            print(f"fault {number + 1}: {command}, {name}, {kind} after {after_s:.1f} s, {hit=}: equal", flush=True)
            runners.nodes.add()
            shutil.rmtree(own)
            shutil.rmtree(job.out, ignore_errors=True)
            after_s /= 2
    return [row("faults in mid-job after which the result was equal", "eztorch_sce", count, f"of {count}")]


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="folder of videos")
    parser.add_argument("--records", type=int, default=2000, help="records of the comparison; 0 leaves it out")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS, help="commands to compare")
    parser.add_argument("--faults", type=int, default=24, help="number of faults; 0 leaves them out")
    parser.add_argument("--fault-records", type=int, default=340, help="records while there are faults")
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults")
    parser.add_argument(
        "--folder", type=Path, default=Path("cluster-benchmark"), help="folder to work in; it must be new"
    )
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True)
    runners = Runners()
    rows: list[Row] = []
    try:
        if options.records:
            count = multiply(options.data.absolute(), folder / "files", options.records)
            rows += compare(folder, folder / "files", runners, options.commands, count)
        if options.faults:
            multiply(options.data.absolute(), folder / "few", options.fault_records)
            rows += disturb_all(folder, folder / "few", runners, options.faults, options.seed)
    finally:
        runners.nodes.end()
        shutil.rmtree(folder)
    finish(rows, ["torch", "ray", "submitit", "eztorch-sce"], options.json, [])


if __name__ == "__main__":
    main()
