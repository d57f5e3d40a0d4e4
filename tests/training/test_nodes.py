"""Tests of torchrun on two machines, simulated by two agents on this one, and of its restarts. Run by `make survival`.

Losses agree with those of one process within 1e-5, relatively.
"""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_files import write_two_classes

pytestmark = pytest.mark.long

TOOLS = Path(__file__).resolve().parents[2] / "tools"
WORDS = [  # without batch norm, which enlarges rounding errors in batches of so few samples
    *("backbone=r2plus1d_small", "backbone.width=4", "backbone.num_blocks=2", "backbone.norm=false", "optimizer=lars"),
    *("method.projector.num_hidden=0", "method.projector.output_norm=false", "method.projector.output_dim=8"),
    *("method.predictor=null", "method.queue_size=32", "views=image", "views.*.size=24", "schedule.warmup_epochs=0"),
    *("trainer.accelerator=cpu", "trainer.max_epochs=4", "data.batch_size=4", "data.num_workers=0", "data.root=images"),
    *("data.pretrain_on=all", "run.log_every_n_steps=1"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images and an undisturbed run in one process."""
    folder = tmp_path_factory.mktemp("nodes")
    write_two_classes(folder / "images")
    command = [sys.executable, str(TOOLS / "pretrain.py"), *WORDS, "run.dir=alone"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    return folder


def torchrun(folder: Path, printed: str, options: list[str], *words: str) -> "subprocess.Popen[bytes]":
    """Start an agent of torchrun; what its processes print goes to a file."""
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(TOOLS / "pretrain.py"), *WORDS, *words]
    with (folder / printed).open("wb") as stream:
        return subprocess.Popen(command, cwd=folder, stdout=stream, stderr=stream)


def two_agents(folder: Path, attempt: int) -> tuple[list["subprocess.Popen[bytes]"], list[Path]]:
    """Start an agent for each of two machines; return them, and the files of what they print."""
    port = random.randrange(12_000, 32_000)
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "two"]
    options += ["--rdzv-endpoint", f"127.0.0.1:{port}"]
    names = [f"two-{attempt}-{node}.txt" for node in range(2)]
    return [torchrun(folder, name, options, "run.dir=two") for name in names], [folder / name for name in names]


def text_of(files: list[Path]) -> str:
    return "".join(file.read_text(errors="replace") for file in files)


def wait_for(words: str, files: list[Path]) -> None:
    stop = time.monotonic() + 120
    while words not in text_of(files):
        assert time.monotonic() < stop, text_of(files)
        time.sleep(0.05)


def losses(folder: Path, run_dir: str) -> Iterator[tuple[int, float]]:
    with (folder / run_dir / "metrics.csv").open(newline="") as stream:
        yield from ((int(row["step"]), float(row["loss"])) for row in csv.DictReader(stream))


def assert_same_losses(folder: Path, run_dir: str) -> None:
    expected, actual = list(losses(folder, "alone")), list(losses(folder, run_dir))
    assert [step for step, _ in actual] == [step for step, _ in expected]  # each row once
    assert [loss for _, loss in actual] == pytest.approx([loss for _, loss in expected], rel=1e-5)


def test_a_signal_to_one_machine_saves_on_both_and_the_same_commands_go_on(folder: Path) -> None:
    agents, printed = two_agents(folder, attempt=1)
    wait_for("step 2 ", printed)  # either machine may have the first process
    agents[1].send_signal(signal.SIGTERM)
    assert 0 not in [each.wait(timeout=120) for each in agents]
    assert "saved at step" in text_of(printed)
    agents, printed = two_agents(folder, attempt=2)
    assert [each.wait(timeout=300) for each in agents] == [0, 0], text_of(printed)
    assert "going on with two from step" in text_of(printed)
    assert_same_losses(folder, "two")


def test_torchrun_starts_processes_again_of_which_one_was_killed(folder: Path) -> None:
    options = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "2"]
    words = ["run.save_every_n_steps=1", "trainer.strategy=fsdp", "run.dir=restarted"]
    agent, printed = torchrun(folder, "restarted.txt", options, *words), [folder / "restarted.txt"]
    wait_for("step 3 ", printed)
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert agent.wait(timeout=300) == 0, text_of(printed)
    assert "going on with restarted from step" in text_of(printed)
    assert_same_losses(folder, "restarted")
