"""Tests of loaders whose worker processes die, hang, or run out of shared memory or open files."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
from own_sources import Arrays, Pixels, noise

import eztorch_sce as sce
from eztorch_sce.data.heartbeat import Heartbeat
from eztorch_sce.errors import LoadingError

IMAGES = noise(16, 3, 20, 24)
DATA = sce.DataConfig(batch_size=4, num_workers=2, num_frames=1, timeout_s=2.0)


class Failing(Arrays):
    """Images of which one makes the process that reads it fail, while a file exists."""

    def __init__(self, fail: Callable[[], object], switch: Path) -> None:
        super().__init__(IMAGES)
        self.fail, self.switch, self.main = fail, switch, os.getpid()
        switch.touch()

    def read(self, index: int) -> Pixels:
        if index == 9 and os.getpid() != self.main and self.switch.exists():
            self.fail()
        return super().read(index)


def send(number: int) -> Callable[[], object]:
    return lambda: os.kill(os.getpid(), number)


def loop() -> None:
    while True:
        pass


def loader_of(source: Arrays) -> sce.TrainingLoader:
    return sce.training_loader(replace(DATA, pretrain_on="all").with_source(source), "small_image")


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (send(signal.SIGKILL), r"was killed \(SIGKILL\) while reading r009: if the system ran out of memory"),
        (send(signal.SIGSEGV), r"crashed \(SIGSEGV\) while reading r009: .*data doctor"),
        (send(signal.SIGBUS), r"died of a bus error \(SIGBUS\) while reading r009: shared memory"),
        (send(signal.SIGSTOP), r"has not answered for .* s while reading r009: .*data.timeout_s"),
        (loop, r"has not answered for .* s while reading r009"),
        (lambda: os._exit(3), r"ended with exit code 3 while reading r009"),
    ],
    ids=["killed", "crashed", "bus error", "stopped", "busy", "left"],
)
def test_a_failing_worker_ends_the_iteration_with_its_file(
    fail: Callable[[], object], words: str, tmp_path: Path
) -> None:
    source = Failing(fail, tmp_path / "switch")
    loader = loader_of(source)
    with pytest.raises(LoadingError, match=rf"worker process \d+ of the loader {words}"):
        list(loader)
    assert not multiprocessing.active_children()
    source.switch.unlink()
    assert len(list(loader)) == 4  # with new workers


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_fails_between_epochs_ends_the_next(number: int) -> None:
    loader = loader_of(Arrays(IMAGES))
    list(loader)
    process = multiprocessing.active_children()[0]
    assert process.pid is not None
    os.kill(process.pid, number)
    with pytest.raises(LoadingError, match=rf"worker process.* {process.pid}.* of the loader .*between files"):
        list(loader)
    assert not multiprocessing.active_children()


def test_an_evaluation_ends_with_the_file(tmp_path: Path) -> None:
    data = DATA.with_source(Failing(send(signal.SIGKILL), tmp_path / "switch"))
    with pytest.raises(LoadingError, match="while reading r009"):
        sce.extract_features(sce.SmallR2Plus1DConfig(width=4, num_blocks=1).build(), data, sce.InputSpec(1, size=16))


def test_a_training_that_lost_a_worker_can_be_resumed(tmp_path: Path) -> None:
    source = Failing(send(signal.SIGKILL), tmp_path / "switch")
    source.switch.unlink()
    config = sce.PretrainConfig(
        data=replace(DATA, pretrain_on="all"),
        views="small_image",
        backbone=sce.SmallR2Plus1DConfig(width=4, num_blocks=1),
        optimizer="sgd",
        trainer=sce.TrainerConfig(max_epochs=3, accelerator="cpu"),
        run=sce.RunConfig(dir=str(tmp_path / "run"), save_every_n_steps=1),
    )
    config.views = [replace(view, size=16) for view in config.views]
    config.method.queue_size, config.schedule.warmup_epochs = 8, 0

    class FailLater(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 1:  # the first is saved
                source.switch.touch()

    with pytest.raises(LoadingError, match="while reading r009"):
        sce.pretrain(config, data=source, callbacks=[FailLater()])
    source.switch.unlink()
    assert sce.pretrain(config, data=source).metrics["unreadable"] == 0


def test_open_files_that_run_out_are_named() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    data = replace(DATA, pretrain_on="all", batch_size=2).with_source(Arrays(noise(160, 3, 8, 8)))
    loader = sce.training_loader(data, "small_image")
    batches = iter(loader)
    kept = [next(batches)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 16, hard))
    try:
        with pytest.raises(LoadingError, match=r"too many files are open: .*ulimit -n"):
            kept.extend(batches)  # each holds a file
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(kept) > 4


def test_a_record_of_many_clips_may_take_longer() -> None:
    heartbeat = Heartbeat(num_workers=2)
    assert heartbeat.reading(1) is None
    heartbeat.begin(1, record=7)
    heartbeat.expect_clips(1, num_clips=2)
    reading = heartbeat.reading(1)
    assert reading is not None
    assert (reading.record, reading.factor) == (7, 1.0)
    heartbeat.expect_clips(1, num_clips=50)
    assert heartbeat.reading(1)[2] == 5.0  # type: ignore[index]
    heartbeat.end(1)
    assert heartbeat.reading(1) is None
