"""Signals that ask a command to end: what is saved, what is printed, and with which status it ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_sources import Arrays, Pixels, noise
from PIL import Image
from signaled_commands import Command, Ended
from warm_commands import WarmCommands

from eztorch_sce import api, signals
from eztorch_sce.config.compose import compose
from eztorch_sce.errors import Stopped
from eztorch_sce.training.trainer import Callback

pytestmark = [
    pytest.mark.xdist_group("signals"),  # the server of commands starts once
    pytest.mark.usefixtures("own_registrations"),
]

PLUGIN = Path(__file__).parent / "support/waiting_network.py"
TRAINING = [
    *("pretrain", f"plugins={PLUGIN}", "backbone=waiting", "views=image", "views.*.size=16", "optimizer=sgd"),
    *("method.projector.hidden_dim=16", "method.projector.output_dim=8", "method.queue_size=32"),
    *("schedule.warmup_epochs=0", "trainer.accelerator=cpu", "trainer.max_epochs=6", "data.batch_size=8"),
    *("data.num_workers=1", "run.log_every_n_steps=1"),
]
KNN = [
    *("knn", f"plugins={PLUGIN}", "backbone=waiting", "backbone.training=false", "backbone.call=1", "untrained=true"),
    *("accelerator=cpu", "data.num_workers=1", "test.num_crops=1"),
]
WAITS = "the network waits"
Start = Callable[..., Command]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 16 images to train on and 8 to test on, of two classes."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 8)):
        for number in range(count):
            file = folder / split / "ab"[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(file)
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[WarmCommands]:
    with WarmCommands() as server:
        yield server


@pytest.fixture
def start(server: WarmCommands, images: Path, tmp_path: Path) -> Start:
    """Return a function that starts a command on the images, always in the same run directory."""

    def start(*words: str, **environment: str) -> Command:
        settings = [f"data.root={images}", f"run.dir={tmp_path / 'run'}"]
        return Command(server, [*words[:1], *settings, *words[1:]], tmp_path / "printed.txt", environment)

    return start


def has_one_sentence(ended: Ended, *parts: str) -> bool:
    """Return whether a command says why it ends in a single line with some words, and prints no traceback."""
    is_single = len(ended.sentences) == 1 and "Traceback" not in ended.printed
    return is_single and all(part in ended.sentences[0] for part in parts)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), pytest.param(signal.SIGHUP, 75, marks=pytest.mark.long), (signal.SIGINT, 130)],
)
def test_a_training_saves_at_its_next_step_and_goes_on_by_the_same_command(
    number: int, code: int, start: Start
) -> None:
    stopped = start(*TRAINING).wait_for(WAITS).send(number, to_all=True).end()
    assert stopped.code == code
    assert has_one_sentence(stopped, "saved at step 3 of 12; run the same command again")
    finished = start(*TRAINING).end()
    assert finished.code == 0
    assert "step 4  loss" in finished.printed
    assert "step 3  loss" not in finished.printed


def test_a_second_ctrl_c_ends_a_training_at_once(start: Start) -> None:
    command = start(*TRAINING, "backbone.seconds=100").wait_for(WAITS).send(signal.SIGINT)
    command.wait_for("press Ctrl-C again to end at once")
    time.sleep(0.6)  # an earlier one is taken for an echo
    ended = command.send(signal.SIGINT).end()
    assert ended.code == 130
    assert has_one_sentence(ended, "interrupted again, and ended at once; ")


def test_a_step_that_takes_too_long_ends_within_the_time_of_grace(start: Start) -> None:
    words = [*TRAINING, "backbone.seconds=100", "run.grace_s=0.5", "run.save_every_n_steps=1"]
    ended = start(*words).wait_for(WAITS).send(signal.SIGTERM).end()
    assert ended.code == 75
    assert has_one_sentence(ended, "not ended within run.grace_s=0.5 after a signal; saved up to step ")


def test_an_online_evaluation_ends_between_batches(start: Start) -> None:
    words = [*TRAINING, "backbone.training=false", "backbone.call=1", "online.every_n_epochs=1"]
    ended = start(*words).wait_for(WAITS).send(signal.SIGTERM, to_all=True).end()
    assert ended.code == 75
    assert has_one_sentence(ended, "saved at step 2 of 12; run the same command again")


def test_an_evaluation_has_nothing_to_save(start: Start) -> None:
    ended = start(*KNN).wait_for(WAITS).send(signal.SIGTERM, to_all=True).end()
    assert ended.code == 75
    assert has_one_sentence(ended, "eztorch-sce knn: stopped by SIGTERM: nothing to save; run the same command again")
    assert start(*KNN).end().code == 0


def test_slurm_starts_a_job_again_that_it_has_warned(start: Start, tmp_path: Path) -> None:
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requests.txt\n')
    scontrol.chmod(0o755)
    job = {"PATH": f"{scontrol.parent}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train"}
    job |= {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}
    ended = start(*TRAINING, **job).wait_for(WAITS).send(signal.SIGUSR1).end()
    assert ended.code == 75
    assert has_one_sentence(ended, "stopped by SIGUSR1: saved at step 3 of 12; SLURM requeues job 5_2")
    assert (tmp_path / "requests.txt").read_text() == "requeue 5_2\n"


def test_scontrol_that_fails_is_reported(start: Start) -> None:
    job = {"PATH": "/nowhere", "SLURM_JOB_ID": "7"}
    ended = start(*TRAINING, **job).wait_for(WAITS).send(signal.SIGUSR1).end()
    assert ended.code == 75
    assert "scontrol requeue 7 failed (" in ended.sentences[1]
    assert "submit the job again to go on" in ended.sentences[1]


class SlowSource(Arrays):
    """Images that cannot be read any more after those of the first batches, in another process."""

    def __init__(self) -> None:
        super().__init__(noise(16, 3, 20, 24))
        self.main, self.num_read = os.getpid(), 0

    def read(self, index: int) -> Pixels:
        if os.getpid() != self.main:
            self.num_read += 1
            if self.num_read > 16:
                os.kill(self.main, signal.SIGTERM)
                time.sleep(100)
        return super().read(index)


def test_a_training_that_waits_for_a_batch_saves(
    tmp_path: Path, images: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = compose(
        "pretrain", [*TRAINING[1:], "data.prefetch=1", f"data.root={images}", f"run.dir={tmp_path / 'run'}"]
    )
    config.data = replace(config.data, root=None)
    before = [signal.getsignal(number) for number in signals.HANDLED]
    with pytest.raises(Stopped, match="saved at step 2 of 6"):
        api.pretrain(config, data=SlowSource())
    assert [signal.getsignal(number) for number in signals.HANDLED] == before
    assert capfd.readouterr().err.count("stopped by SIGTERM") == 1


class InterruptAtThirdStep(Callback):
    """Send SIGINT in the third step."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, number: int) -> None:
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_in_a_python_program_raises_keyboard_interrupt_after_the_save(tmp_path: Path, images: Path) -> None:
    config = compose("pretrain", [*TRAINING[1:], f"data.root={images}", f"run.dir={tmp_path / 'run'}"])
    with pytest.raises(KeyboardInterrupt, match="saved at step 3 of 12"):
        api.pretrain(config, callbacks=[InterruptAtThirdStep()])


def test_signals_with_a_handler_are_left_to_it() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
    try:
        with signals.watched():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not signals.requested()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert received == [signal.SIGUSR1]


def test_a_signal_that_comes_too_late_is_for_what_follows() -> None:
    @signals.watched()
    def finish() -> None:
        with signals.saving(lambda: ""):
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.requested() == signal.SIGINT

    with pytest.raises(KeyboardInterrupt):
        finish()


_FORKING = """
import os, signal, time
from eztorch_sce import signals
with signals.watched():
    if (child := os.fork()) == 0:
        time.sleep(100)
        os._exit(0)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_ends_by_sigterm_as_usual() -> None:
    done = subprocess.run([sys.executable, "-c", _FORKING], capture_output=True, text=True, timeout=60)
    assert int(done.stdout) == -signal.SIGTERM


def test_other_threads_do_not_watch_signals() -> None:
    handlers: list[object] = []

    def watch() -> None:
        with signals.watched():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert handlers == [signal.SIG_DFL]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("after_s", [0.3, 0.6, 1.2, 2.5, 5.0])
def test_a_training_survives_a_signal_at_any_time(number: int, after_s: float, start: Start) -> None:
    words = [*TRAINING, "trainer.max_epochs=30", "online.every_n_epochs=2", "run.save_every_n_steps=5"]
    command = start(*words)
    time.sleep(after_s)
    ended = command.send(number, to_all=True).end()
    if ended.code != 0:  # it had finished before
        assert ended.code == (130 if number == signal.SIGINT else 75)
        assert has_one_sentence(ended)
    assert start(*words).end().code == 0
