"""Program of test_failing_processes.py: import the package once, and fork the processes of every case from here.

    python failing_processes.py FOLDER IMAGES

Each case runs a command in two processes, as srun starts them, of which one fails. All cases run at the same time. What
they print goes to FOLDER/CASE-PROCESS.txt, and how they ended to FOLDER/ended.json.
"""

import atexit
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from training_imports import import_training

from eztorch_sce import api
from eztorch_sce.cli import main
from eztorch_sce.config.compose import compose
from eztorch_sce.training.checkpoint_files import progress_of
from eztorch_sce.training.trainer import Callback

FOLDER, IMAGES = Path(sys.argv[1]), sys.argv[2]
PROCESSES = 2
SMALL = [
    *("views=image", "views.*.size=32", "method.projector.hidden_dim=16", "method.projector.output_dim=8"),
    *("method.queue_size=32", "optimizer=sgd", "schedule.warmup_epochs=0", "trainer.max_epochs=3"),
    *("trainer.accelerator=cpu", "data.batch_size=8", "data.num_workers=0", "run.log_every_n_steps=1"),
]
FROZEN = ["backbone=r2plus1d_small", "untrained=true", "data.num_workers=0", "accelerator=cpu", "test.num_crops=1"]


class Network(nn.Module):
    """A network of a user. Its features may depend on `fail`, which is called in evaluation mode."""

    def __init__(self, fail: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.layer, self.num_features, self.fail = nn.Linear(3, 8), 8, fail

    def forward(self, images: Tensor) -> Tensor:
        if self.fail is not None and not self.training and images.any():  # zeros find out its width
            self.fail()
        return F.relu(self.layer(images.mean(dim=(-2, -1))))


class AtThirdStep(Callback):
    """A callback of a user."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, number: int) -> None:
        if trainer.global_step == 2:
            self.act()


def raise_memory_error() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def pretrain(run_dir: Path, act: Callable[[], None] | None, *words: str, **objects: Any) -> None:
    config = compose("pretrain", [*SMALL, f"data.root={IMAGES}", f"run.dir={run_dir}", *words])
    callbacks = [] if act is None else [AtThirdStep(act)]
    api.pretrain(config, callbacks=callbacks, **{"backbone": Network()} | objects)


def in_command(*words: str) -> Callable[[Path, bool], None]:
    """Return a pretraining on the command line, with additional words in the process that fails."""

    def run(run_dir: Path, fails: bool) -> None:
        network = ["backbone=r2plus1d_small", "backbone.width=4", "backbone.num_blocks=1"]
        common = ["pretrain", *network, *SMALL, f"data.root={IMAGES}", f"run.dir={run_dir}"]
        main([*common, *(words if fails else [])])

    return run


def in_step(act: Callable[[], None]) -> Callable[[Path, bool], None]:
    return lambda run_dir, fails: pretrain(run_dir, act if fails else None)


def in_loss(run_dir: Path, fails: bool) -> None:
    def loss(query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        value = 1 - (query * key).sum(dim=1).mean()
        return value * float("nan") if fails else value

    pretrain(run_dir, None, loss=loss)


def in_building(run_dir: Path, fails: bool) -> None:
    class Broken(Network):
        def forward(self, images: Tensor) -> Tensor:
            raise_memory_error()
            return images

    pretrain(run_dir, None, backbone=Broken() if fails else Network())


def in_online_evaluation(run_dir: Path, fails: bool) -> None:
    network = Network(raise_memory_error if fails else None)
    pretrain(run_dir, None, "online.every_n_epochs=1", backbone=network)


def in_signaled_online_evaluation(run_dir: Path, fails: bool) -> None:
    pretrain(run_dir, None, "online.every_n_epochs=1", backbone=Network(send(signal.SIGTERM) if fails else None))


def in_evaluation(
    command: str, *words: str, act: Callable[[], None] = raise_memory_error
) -> Callable[[Path, bool], None]:
    def run(run_dir: Path, fails: bool) -> None:
        network = Network(act if fails else None)
        config = compose(command, [*words, f"data.root={IMAGES}", f"run.dir={run_dir}"])
        getattr(api, command)(config, backbone=network)

    return run


def in_caught_error(run_dir: Path, fails: bool) -> None:
    """Go on after an error, as a sweep does: both processes catch the same error, and train together once more."""
    try:
        pretrain(run_dir, None, *(["data.batch_size=10000"] if fails else []))
    except Exception as error:
        print("caught", type(error).__name__)
    pretrain(run_dir / "again", None)
    print("threads", [each.name for each in threading.enumerate() if "eztorch" in each.name])


def unreadable(run_dir: Path, fails: bool) -> None:
    pretrain(run_dir, None, f"data.root={IMAGES}-broken", "data.max_unreadable=0.1")


def stop(run_dir: Path, fails: bool) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if fails and trainer.global_step == 2:
                trainer.should_stop = True
            self.step = trainer.global_step

    callback = Stop()
    config = compose("pretrain", [*SMALL, f"data.root={IMAGES}", f"run.dir={run_dir}"])
    api.pretrain(config, backbone=Network(), callbacks=[callback])
    print("stopped at", callback.step)


class Dropping(Network):
    """A network whose dropout masks are noted."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[list[float]] = []

    def forward(self, images: Tensor) -> Tensor:
        mask = F.dropout(torch.ones(8), training=self.training)
        self.masks += [mask.tolist()] * self.training
        return super().forward(images) * mask


class CopyAfterFirstEpoch(Callback):
    """Keep the run directory as it would be if the training had been interrupted after the first epoch."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1 and trainer.is_global_zero:
            while progress_of(self.run_dir) is None:  # a thread writes it
                time.sleep(0.02)
            shutil.copytree(self.run_dir, f"{self.run_dir} interrupted")


def draws(run_dir: Path, fails: bool) -> None:
    """Train, then resume the same training after its first epoch."""
    whole, resumed = Dropping(), Dropping()
    settings = [*SMALL, f"data.root={IMAGES}", "run.save_every_n_steps=2"]
    config = compose("pretrain", [*settings, f"run.dir={run_dir}"])
    api.pretrain(config, backbone=whole, callbacks=[CopyAfterFirstEpoch(run_dir)])
    config = compose("pretrain", [*settings, f"run.dir={run_dir} interrupted"])
    api.pretrain(config, backbone=resumed)
    print(json.dumps({"whole": whole.masks, "resumed": resumed.masks, "weights": whole.layer.weight.tolist()}))


def exchanges(run_dir: Path, fails: bool) -> None:
    """Count the collectives on the host in the last four of six steps."""
    count, gather = 0, dist.all_gather

    def counted(*arguments: Any, **settings: Any) -> Any:
        nonlocal count
        count += 1
        return gather(*arguments, **settings)

    def begin() -> None:
        dist.all_gather = counted

    pretrain(run_dir, begin)
    print("exchanges", count)


FINETUNE = [*SMALL[6:], "views=linear_image", "views.*.size=32", "test.num_crops=1", "backbone=r2plus1d_small"]
CASES: dict[str, tuple[Callable[[Path, bool], None], int]] = {  # and the process that fails
    "configuration": (in_command("optimizer.lr=-1"), 1),
    "opening": (in_command("data.root=nowhere"), 1),
    "building": (in_building, 1),
    "callback": (in_step(raise_memory_error), 1),
    "callback of the first": (in_step(raise_memory_error), 0),
    "loss": (in_loss, 1),
    "SIGKILL": (in_step(send(signal.SIGKILL)), 1),
    "SIGKILL of the first": (in_step(send(signal.SIGKILL)), 0),
    "SIGTERM": (in_step(send(signal.SIGTERM)), 1),
    "SIGINT": (in_step(send(signal.SIGINT)), 1),
    "online evaluation": (in_online_evaluation, 1),
    "SIGTERM in the online evaluation": (in_signaled_online_evaluation, 1),
    "SIGUSR1 in knn": (in_evaluation("knn", *FROZEN, act=send(signal.SIGUSR1)), 0),
    "extract": (in_evaluation("extract", *FROZEN), 0),
    "knn": (in_evaluation("knn", *FROZEN), 1),
    "finetune": (in_evaluation("finetune", *FINETUNE), 1),
    "linear on views": (in_evaluation("linear", *FINETUNE, "untrained=true"), 1),
    "caught": (in_caught_error, 1),
    "unreadable": (unreadable, 1),
    "stop": (stop, 1),
    "draws": (draws, 1),
    "exchanges": (exchanges, 1),
}


def run(name: str, number: int, port: int) -> None:
    """Run a case in this process, which never returns from here."""
    os.environ.update({"SLURM_STEP_ID": "0", "SLURM_NTASKS": str(PROCESSES), "SLURM_NTASKS_PER_NODE": str(PROCESSES)})
    os.environ.update({"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number), "SLURM_JOB_NAME": "test"})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    # A shell that starts the tests in the background ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    printed = os.open(FOLDER / f"{name}-{number}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    action, fails = CASES[name]
    status = 0
    try:
        action(FOLDER / f"run {name}", number == fails)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)


def free_ports(count: int) -> list[int]:
    """Return ports below those that the system gives to other programs while the cases run."""
    ports: list[int] = []
    candidates = iter(range(12_000 + os.getpid() * 41 % 15_000, 32_000))
    while len(ports) < count:
        port = next(candidates)
        with socket.socket() as each, suppress(OSError):
            each.bind(("127.0.0.1", port))
            ports.append(port)
    return ports


def run_all(names: list[str]) -> None:
    torch.set_num_threads(1)
    import_training()
    started, running = time.monotonic(), {}
    for name, port in zip(names, free_ports(len(names)), strict=True):
        for number in range(PROCESSES):
            if (child := os.fork()) == 0:
                run(name, number, port)
            running[child] = (name, number)
    ended: dict[str, dict[str, Any]] = {name: {"status": [0] * PROCESSES, "seconds": 0.0} for name in names}
    while running:
        child, status = os.wait()
        name, number = running.pop(child)
        ended[name]["status"][number] = os.waitstatus_to_exitcode(status)
        ended[name]["seconds"] = time.monotonic() - started
    (FOLDER / "ended.json").write_text(json.dumps(ended))


if __name__ == "__main__":
    run_all(sys.argv[3:] or list(CASES))
