"""What checkpoints cost: SCE with a ResNet-50 and a queue of 65536, saved as a training saves it, beside Lightning.

A real training takes blocks of steps in turns: one with a checkpoint at its first step, one without. What a checkpoint
costs is the difference of their medians: the time that the training stands still, and the steps that are slower while
a thread writes. The steps are small ones, which change nothing about the size of the state.

Usage: python benchmarks/checkpoint.py [--blocks 8] [--steps 10] [--json FILE]
"""

import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from PIL import Image

from eztorch_sce import api
from eztorch_sce.config.compose import compose
from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.training.checkpoint import Checkpoints
from eztorch_sce.training.trainer import Callback

US, LIGHTNING, TORCH = "eztorch_sce", "Lightning", "torch.save"
SECONDS_BETWEEN = 60
_WARM_UP = 6  # steps
_REPEATS = 3  # of a checkpoint while nothing else runs
_MB = 1e6


class Measurement(Callback):
    """Save at the first step of every second block, and measure.

    Args:
        num_blocks: Number of blocks of each kind.
        num_steps: Steps of a block.
        folder: Where files are written.
    """

    def __init__(self, num_blocks: int, num_steps: int, folder: Path) -> None:
        self.num_blocks, self.num_steps, self.folder = num_blocks, num_steps, folder
        self.blocks: dict[bool, list[float]] = {False: [], True: []}  # seconds, without and with a checkpoint
        self.first_s = 0.0  # of the first checkpoint, which allocates the memory of the copies
        self.still_s: list[float] = []
        self.durable_s: list[float] = []
        self.alone: dict[str, tuple[float, float]] = {}  # seconds: standing still, until durable; nothing else runs
        self.num_bytes = 0
        self.step, self.started = 0, 0.0

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        """End a block and begin the next one."""
        place, self.step = self.step - _WARM_UP, self.step + 1
        if place == -1:
            self.first_s = self.save_beside_training(trainer)
            checkpoints_of(trainer).files.writer.finish()
        if place < 0 or place % self.num_steps:
            return
        number, now = place // self.num_steps, time.perf_counter()
        if number:
            self.blocks[number % 2 == 0].append(now - self.started)  # the block before this one
        if number == 2 * self.num_blocks:
            self.measure_alone(trainer)
            trainer.should_stop = True
            return
        self.started = time.perf_counter()
        if number % 2 == 1:
            self.still_s.append(self.save_beside_training(trainer))

    def save_beside_training(self, trainer: Any) -> float:
        """Save as a training does, and return the seconds that it waits; a thread notes when the file is durable."""
        files, started = checkpoints_of(trainer).files, time.perf_counter()
        files.wait = False
        trainer.save_checkpoint(self.folder)
        still_s = time.perf_counter() - started

        def wait() -> None:
            while files.writer.is_busy:
                time.sleep(0.005)
            self.durable_s.append(time.perf_counter() - started)

        threading.Thread(target=wait, daemon=True).start()
        return still_s

    def measure_alone(self, trainer: Any) -> None:
        """Measure checkpoints while the training stands still: ours, and others of the same content."""
        from pytorch_lightning.plugins.io import TorchCheckpointIO

        files = checkpoints_of(trainer).files
        files.writer.finish()
        content = trainer._checkpoint_connector.dump_checkpoint()
        times: dict[str, list[tuple[float, float]]] = {US: [], LIGHTNING: [], TORCH: []}
        for _ in range(_REPEATS):
            started = time.perf_counter()
            files.writer.save(content, trainer.global_step, wait=False)
            still_s = time.perf_counter() - started
            files.writer.finish()
            times[US].append((still_s, time.perf_counter() - started))
            for name, save in ((LIGHTNING, TorchCheckpointIO().save_checkpoint), (TORCH, torch.save)):
                times[name].append(timed(save, content, self.folder / "other.ckpt"))
        for name, each in times.items():
            still, durable = zip(*each, strict=True)
            self.alone[name] = statistics.median(still), statistics.median(durable)
        self.num_bytes = (self.folder / "other.ckpt").stat().st_size


def timed(save: Any, content: dict[str, Any], file: Path) -> tuple[float, float]:
    """Return the seconds that a function takes to save, and those until the file is on the disk."""
    file.unlink(missing_ok=True)
    started = time.perf_counter()
    save(content, str(file))
    still_s = time.perf_counter() - started
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    return still_s, time.perf_counter() - started


def checkpoints_of(trainer: Any) -> Checkpoints:
    """Return the callback that saves the training."""
    return next(each for each in trainer.callbacks if isinstance(each, Checkpoints))


def config_of(folder: Path) -> PretrainConfig:
    """Return a training on images of 32 pixels, which are written."""
    images, noise = folder / "images", np.random.default_rng(0)
    images.mkdir()
    for number in range(256):
        pixels = noise.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    words = [f"data.root={images}", "data.batch_size=4", "data.num_workers=0", "views.*.size=32", "backbone=resnet50"]
    words += ["loss=sce", "method.queue_size=65536", "method.projector.output_dim=256", "optimizer=sgd"]
    words += ["method.momentum=0.99", "trainer.max_epochs=1000", "trainer.accelerator=cpu", "schedule.warmup_epochs=0"]
    words += ["run.save_every_minutes=100000", "run.log_every_n_steps=1000", f"run.dir={folder / 'run'}"]
    config = compose("pretrain", words)
    assert isinstance(config, PretrainConfig)
    return config


def busy_cores(seconds: float = 3.0) -> float:
    """Return how many cores other programs keep busy, on Linux."""

    def idle() -> float:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")

    before = idle()
    time.sleep(seconds)
    return max(0.0, (os.cpu_count() or 1) - (idle() - before) / seconds)


def main() -> None:
    """Measure and print."""
    parser = common.arguments(__doc__ or "")
    parser.add_argument("--blocks", type=int, default=8, help="blocks of steps of each kind")
    parser.add_argument("--steps", type=int, default=10, help="steps of a block")
    parser.add_argument("--dir", type=Path, help="where to write; a new folder in it is removed afterward")
    options = parser.parse_args()
    busy = busy_cores()
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        measured = Measurement(options.blocks, options.steps, Path(name))
        api.pretrain(config_of(Path(name)), callbacks=[measured])
    rows, notes = results(measured)
    notes.append(f"{busy:.1f} of {os.cpu_count()} cores were busy with other programs when it began")
    common.finish(rows, ["eztorch-sce", "torch", "pytorch-lightning", "safetensors"], options.json, notes)


def results(measured: Measurement) -> tuple[list[common.Row], list[str]]:
    """Return the rows, which are rates, and the notes, which give the seconds."""
    without, with_one = (statistics.median(measured.blocks[saves]) for saves in (False, True))
    still_s, durable_s = statistics.median(measured.still_s), statistics.median(measured.durable_s)
    size_mb, num_steps = measured.num_bytes / _MB, measured.num_steps
    rows = [
        common.row("beside a training: copied while it stands still", US, size_mb / still_s, "MB/s"),
        common.row("beside a training: the same, the first time", US, size_mb / measured.first_s, "MB/s"),
        common.row("beside a training: durable and read back", US, size_mb / durable_s, "MB/s"),
        common.row("steps without a checkpoint", US, num_steps / without, "steps/s"),
        common.row(f"steps, one of {num_steps} with a checkpoint", US, num_steps / with_one, "steps/s"),
        common.row("a checkpoint a minute: time that it does not stand still", US, left_of_minute(still_s), "%"),
        common.row("a checkpoint a minute: time left for steps", US, left_of_minute(with_one - without), "%"),
    ]
    for name, (still_s, durable_s) in measured.alone.items():
        rows.append(common.row("alone: written or copied while it stands still", name, size_mb / still_s, "MB/s"))
        rows.append(common.row("alone: durable", name, size_mb / durable_s, "MB/s"))
        rows.append(common.row("alone: a checkpoint a minute, time left", name, left_of_minute(still_s), "%"))
    notes = [
        f"state of {size_mb:.0f} MB; seconds that a training stands still, and until durable: beside steps "
        f"{statistics.median(measured.still_s):.3g} and {statistics.median(measured.durable_s):.3g}, alone "
        + ", ".join(f"{name} {still_s:.3g} and {until_s:.3g}" for name, (still_s, until_s) in measured.alone.items()),
        f"medians of {len(measured.still_s)} blocks of {num_steps} steps of each kind in turns, and of {_REPEATS} "
        "checkpoints alone",
        f"{US} reads the file back before it counts as durable; the others are flushed by this script (fsync)",
    ]
    return rows, notes


def left_of_minute(seconds: float) -> float:
    """Return what is left of the time between two checkpoints, in percent."""
    return 100 * (1 - seconds / SECONDS_BETWEEN)


if __name__ == "__main__":
    main()
