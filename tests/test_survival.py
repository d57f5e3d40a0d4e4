"""Trainings that are killed by SIGKILL and started again end exactly as one that was left alone.

The short form runs with the other tests. `make survival` runs the long one: 40 seeded cases with one to three kills.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from killed_runs import Outcome, Trainings, copy_of, outcome, write_images, write_videos
from warm_commands import FullDisk, Kill, WarmCommands

from eztorch_sce.training.checkpoint_files import checkpoint_files

pytestmark = pytest.mark.xdist_group("survival")
LONG = pytest.mark.long

PLUGIN = Path(__file__).parent / "support/drawing_network.py"
STEPS_PER_EPOCH = 8
COMMON = [
    *("views.*.size=16", "data.num_frames=4", "data.batch_size=4", "optimizer=sgd", "schedule.warmup_epochs=0"),
    *("trainer.max_epochs=3", "trainer.accelerator=cpu", "run.log_every_n_steps=1", f"plugins={PLUGIN}"),
    "data.num_workers=0",
]
SCE = [
    *("backbone=drawing", "online.every_n_epochs=1", "method.queue_size=24"),
    *("method.projector.hidden_dim=16", "method.projector.output_dim=8"),
]
TRAININGS = {  # three epochs of eight steps
    "videos": ["pretrain", *COMMON, *SCE],
    "accumulated": ["pretrain", *COMMON, *SCE, "trainer.accumulate=2"],
    "images": ["pretrain", *COMMON, *SCE, "views=image"],
    "finetune": ["finetune", *COMMON, "mixup=0.5", "dropout=0.5", "test.num_clips=1", "test.num_crops=1"],
}


@pytest.fixture(scope="module")
def commands() -> Iterator[WarmCommands]:
    with WarmCommands() as server:
        yield server


Undisturbed = Callable[..., tuple[Trainings, Outcome]]


@pytest.fixture(scope="module")
def undisturbed(commands: WarmCommands, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Return a function from a name in TRAININGS and a number of processes to what a training leaves.

    It was left alone. The first result starts further trainings of the same command.
    """
    folder = tmp_path_factory.mktemp("survival")
    data = {"images": write_images(folder / "images")}
    videos = write_videos(folder / "videos")

    @cache
    def train(name: str, num_processes: int) -> tuple[Trainings, Outcome]:
        below = folder / f"{name} {num_processes}"
        below.mkdir()
        words = [*TRAININGS[name], f"data.root={data.get(name, videos)}"]
        if name == "finetune":
            words.append(f"weights={train('videos', 1)[0].folder / 'alone'}")
        trainings = Trainings(commands, words, below, num_processes)
        return trainings, trainings.alone()

    return lambda name="videos", num_processes=1: train(name, num_processes)


class Case(NamedTuple):
    """A training, and the kills that end all of its starts but the last."""

    kills: list[Kill]
    num_workers: int = 0
    save_every_n_steps: int | None = 2
    num_processes: int = 1

    @property
    def words(self) -> list[str]:
        every = "null" if self.save_every_n_steps is None else self.save_every_n_steps
        return [f"data.num_workers={self.num_workers}", f"run.save_every_n_steps={every}"]


def line_of_step(step: int) -> str:
    """Return the regular expression of the line that a training prints after a step, counted from 1."""
    return rf"step {step} "


SHORT = {
    "twice in an epoch": Case([Kill(line=line_of_step(3)), Kill(line=line_of_step(6))], save_every_n_steps=1),
    "in the first write": Case([Kill(change="open checkpoints/", later_s=0.002)], num_workers=1),
    "between write and rename": Case([Kill(change="os.rename checkpoints/", count=3)]),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_killed_training_ends_like_one_that_was_left_alone(name: str, undisturbed: Undisturbed) -> None:
    trainings, alone = undisturbed()
    case = SHORT[name]
    assert trainings.killed(name, case.kills, *case.words) == alone


# Damage to the newest checkpoint of a training that was killed, after which the one before it is used.
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped bit": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
}


@pytest.fixture(scope="module")
def killed(undisturbed: Undisturbed) -> Path:
    """Return the run directory of a training that was killed in its second epoch."""
    trainings, _ = undisturbed()
    trainings.start("killed", 0, Kill(line=line_of_step(12)), "run.save_every_n_steps=2")
    return trainings.folder / "killed"


@pytest.mark.parametrize(
    "damage", ["flipped bit", *(pytest.param(name, marks=LONG) for name in ("truncated", "empty", "missing"))]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    damage: str, killed: Path, undisturbed: Undisturbed
) -> None:
    trainings, alone = undisturbed()
    newest = checkpoint_files(copy_of(killed, damage))[0]
    if damage == "missing":
        newest.unlink()
    else:
        newest.write_bytes(DAMAGE[damage](newest.read_bytes()))
    assert trainings.killed(damage, [], "run.save_every_n_steps=2") == alone
    assert (newest.name in trainings.printed(damage, 0)) == (damage != "missing")


def test_a_run_directory_may_be_copied_and_moved(killed: Path, undisturbed: Undisturbed) -> None:
    trainings, alone = undisturbed()
    moved = copy_of(killed, "copied").rename(trainings.folder / "moved")
    assert trainings.killed(moved.name, []) == alone


def test_the_clock_may_be_set_back(killed: Path, undisturbed: Undisturbed) -> None:
    trainings, alone = undisturbed()
    copy_of(killed, "yesterday")
    assert trainings.killed("yesterday", [], clock_shift_s=-86400) == alone


# Stages of a training at which the disk becomes full, by the first change that fails, and the report at its end.
FULL = ["open config", "open .history", "open .views", "open .metrics", "open checkpoints/", "open .backbone"]


@pytest.mark.parametrize("change", ["open .report", *(pytest.param(change, marks=LONG) for change in FULL)])
def test_a_full_disk_ends_a_training_in_words_and_the_same_command_goes_on(
    change: str, undisturbed: Undisturbed
) -> None:
    trainings, alone = undisturbed()
    name = f"full at {re.sub(r'[^a-z]', '', change)}"
    codes = trainings.start(name, 0, FullDisk(change), "run.save_every_n_steps=2")
    printed = trainings.printed(name, 0)
    assert codes != [0]
    assert "No space left on device" in printed
    assert "Traceback" not in printed
    assert trainings.killed(name, []) == alone


@pytest.mark.parametrize("name", [pytest.param(name, marks=LONG) for name in ("accumulated", "images", "finetune")])
def test_other_trainings_survive_too(name: str, undisturbed: Undisturbed) -> None:
    trainings, alone = undisturbed(name)
    kills = [Kill(line=line_of_step(step)) for step in (3, 6, 13)] + [Kill(change="os.rename", count=6)]
    assert trainings.killed("killed", kills, "run.save_every_n_steps=1") == alone


@pytest.mark.long
def test_a_command_of_a_shell_is_killed_and_leaves_what_one_from_the_server_leaves(undisturbed: Undisturbed) -> None:
    trainings, alone = undisturbed()
    run_dir, printed = trainings.folder / "shell", trainings.folder / "shell.txt"
    command = [sys.executable, "-m", "eztorch_sce", *trainings.words, f"run.dir={run_dir}", "run.save_every_n_steps=1"]
    environment, kill = os.environ | {"OMP_NUM_THREADS": "1"}, Kill(line=line_of_step(5))
    with printed.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        while process.poll() is None and not kill.is_due(0, printed):
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        subprocess.run(command, stdout=stream, stderr=stream, env=environment, check=True)
    assert "going on" in printed.read_text()
    assert outcome(run_dir) == alone


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
@pytest.mark.parametrize("size_kib", [pytest.param(size, marks=LONG) for size in (16, 64, 96, 128, 160, 192)])
def test_a_small_disk_that_fills_loses_nothing(size_kib: int, undisturbed: Undisturbed) -> None:
    trainings, alone = undisturbed()
    run_dir = trainings.folder / f"disk of {size_kib} KiB"
    run_dir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "none", run_dir], check=True)
    try:
        assert trainings.start(run_dir.name, 0, None, "run.save_every_n_steps=1") == [2]
        assert "No space left on device" in trainings.printed(run_dir.name, 0)
        assert "Traceback" not in trainings.printed(run_dir.name, 0)
        subprocess.run(["mount", "-o", "remount,size=64m", run_dir], check=True)
        assert trainings.killed(run_dir.name, []) == alone
    finally:
        subprocess.run(["umount", run_dir], check=True)


def random_kill(kind: str, draw: random.Random, case: Case) -> Kill:
    """Return a kill of a kind, at an instant that is drawn."""
    step = draw.randint(1, 3 * STEPS_PER_EPOCH)
    whom = draw.choice(["all", "first", "last"])
    if kind == "time":
        return Kill(after_s=draw.uniform(0, 2.5 * case.num_processes), whom=whom)
    if kind == "step":
        if case.num_workers and draw.random() < 0.5:
            whom = "worker"
        return Kill(line=line_of_step(step), later_s=draw.uniform(0, 0.05), whom=whom)
    if kind == "change":
        return Kill(change="", count=draw.randint(1, 100), whom="first" if whom == "last" else whom)
    if kind == "write":
        later_s = draw.choice([0.0, draw.uniform(0, 0.01)])
        return Kill(change="checkpoints/", count=draw.randint(1, 40), later_s=later_s)
    last_step = STEPS_PER_EPOCH * draw.randint(1, 3)
    return Kill(line=line_of_step(last_step), later_s=draw.uniform(0, 0.15), whom=whom)  # in the online evaluation


def random_cases() -> Iterator[Case]:
    """Yield the cases of the long form: every count of processes and workers, with one to three kills of each kind."""
    draw = random.Random(16)
    kinds = ["time", "step", "change", "write", "evaluation"]
    for number in range(40):
        case = Case([], (0, 1, 3)[number % 3], draw.choice([1, 1, 2, 3, None]), 1 + number // 2 % 2)
        first = random_kill(kinds[number % len(kinds)], draw, case)
        kills = [first]
        if number % 4 == 1:  # the resume itself
            kills.append(Kill(after_s=draw.uniform(0, 1.0), whom=draw.choice(["all", "first"])))
        if number % 4 == 3:  # in one epoch
            epoch = STEPS_PER_EPOCH * draw.randint(0, 2)
            steps = sorted(draw.sample(range(epoch + 1, epoch + STEPS_PER_EPOCH), draw.choice([2, 3])))
            kills = [replace(first, change=None, after_s=None, line=line_of_step(step)) for step in steps]
        yield case._replace(kills=kills)


CASES = list(random_cases())


@pytest.mark.parametrize("number", [pytest.param(number, marks=LONG) for number in range(len(CASES))])
def test_any_kill_leaves_no_trace(number: int, undisturbed: Undisturbed) -> None:
    case = CASES[number]
    trainings, alone = undisturbed("videos", case.num_processes)
    assert trainings.killed(f"case{number}", case.kills, *case.words) == alone
