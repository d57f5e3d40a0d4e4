"""Tests of several processes, with copies of the networks or with shards (FSDP), and of going on with other numbers.

Losses and weights agree with those of one process within 1e-5, relatively: sums over a batch have another order.
"""

import copy
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from narrow_resnet import Bottlenecks
from PIL import Image
from process_groups import run_in_process_groups
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from eztorch_sce import api
from eztorch_sce.config.compose import compose
from eztorch_sce.config.schema import validate
from eztorch_sce.distributed import all_objects
from eztorch_sce.errors import ConfigError, ProcessError
from eztorch_sce.models.weights import load_weights
from eztorch_sce.optim.adamw import AdamWConfig
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.optim.lars import LARSConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.shards import gathered, is_sharded, load_optimizer, shard_of, total_norm, whole_on_host
from eztorch_sce.training.sharding import unshard
from eztorch_sce.training.trainer import Callback

pytestmark = pytest.mark.xdist_group("sharding")

OPTIMIZERS: dict[str, OptimizerConfig] = {
    "lars": LARSConfig(weight_decay=1e-2),
    "sgd": SGDConfig(nesterov=True),
    "adamw": AdamWConfig(),
}
STEPS = 4
SETTINGS = [
    *(
        "method.projector.hidden_dim=16",
        "method.projector.output_dim=8",
        "method.queue_size=20",
        "trainer.max_epochs=2",
    ),
    *("schedule.warmup_epochs=0", "trainer.accelerator=cpu", "data.batch_size=4", "data.pretrain_on=all"),
    *("run.log_every_n_steps=1", "run.save_every_n_steps=1", "run.loggers=[csv]"),
]
TRAININGS = {
    "images": ["views=image", "views.*.size=24", "optimizer=lars", "trainer.checkpointing=true"],
    "videos": [  # without batch norm, which depends on the samples of a batch
        *("backbone=r2plus1d_small", "backbone.width=4", "backbone.num_blocks=2", "backbone.norm=false"),
        *("method.projector.num_hidden=0", "method.predictor=null", "method.projector.output_norm=false"),
        *("optimizer=adamw", "optimizer.lr=0.01", "views.*.size=16", "data.kind=frames", "data.num_frames=2"),
    ],
}
NUM_RECORDS, NUM_STEPS = 14, 6  # two are left out of each epoch
PARTS = {  # of each training: the step before which it crashes, and settings
    "images": [(2, ["data.num_workers=0"]), (4, ["trainer.strategy=ddp"]), (None, ["trainer.strategy=fsdp"])],
    "videos": [
        (2, ["data.num_workers=0"]),
        (4, ["trainer.strategy=fsdp", "data.num_workers=3"]),
        (None, ["trainer.accumulate=2", "data.num_workers=1"]),
    ],
}


class Crash(Exception):
    """What ends a training in the middle of an epoch."""


class Steps(Callback):
    """Keep the records of each step in all processes, and crash before one."""

    def __init__(self, crash_before: int | None = None) -> None:
        self.crash_before = crash_before
        self.records: list[list[int]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, number: int) -> None:
        if trainer.global_step == self.crash_before:
            raise Crash
        parts = all_objects(batch.record.tolist())
        if number % trainer.accumulate_grad_batches == 0:
            self.records.append([])
        self.records[-1] += [record for part in parts for record in part]


def pretrain(name: str, run_dir: str, crash_before: int | None, words: Sequence[str]) -> list[list[int]]:
    """Start a training or go on with it; return the records of each step. The losses are in `metrics.csv`."""
    steps = Steps(crash_before)
    torch.manual_seed(0)
    network = Bottlenecks() if name == "images" else None
    config = compose("pretrain", [*SETTINGS, *TRAININGS[name], f"data.root={name}", f"run.dir={run_dir}", *words])
    if crash_before is not None:
        with pytest.raises((Crash, ProcessError)):
            api.pretrain(config, backbone=network, callbacks=[steps])
        return steps.records
    api.pretrain(config, backbone=network, callbacks=[steps])
    if network is not None:  # trained in place, and a plain module again
        assert type(network) is Bottlenecks
        assert all(type(weight) is nn.Parameter for weight in network.parameters())
        assert copy.deepcopy(network)(torch.zeros(1, 3, 24, 24)).shape == (1, 32)
    return steps.records


def network() -> nn.Module:
    """Return a network whose rows do not divide among processes: 5 and 3, and 1 in the end."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=False), nn.Tanh(), nn.Linear(3, 1))


def trained(net: nn.Module, optimizer: Any, rows: Tensor) -> Iterator[float]:
    """Take steps on the mean over `rows`; yield the norm of the gradients of each."""
    for _ in range(STEPS):
        optimizer.zero_grad()
        net(rows).square().mean().backward()
        yield float(total_norm([weight.grad for weight in net.parameters() if weight.grad is not None]))
        optimizer.step()


def all_rows() -> Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(1))


def sharded_steps(name: str, rank: int, world_size: int) -> dict[str, Any]:
    """Train shards on the rows of this process; return whole weights and states, and what reloading them gives."""
    mesh = init_device_mesh("cpu", (world_size,))

    def build(state: Any = None) -> tuple[nn.Module, Any]:
        net = network()
        if state is not None:
            net.load_state_dict(state)
        fully_shard(net[0], mesh=mesh)  # type: ignore[index]
        fully_shard(net, mesh=mesh)
        optimizer = OPTIMIZERS[name].build(net.parameters(), lr=0.1)
        return net, optimizer

    net, optimizer = build()
    norms = list(trained(net, optimizer, all_rows().chunk(world_size)[rank]))
    state, optimizer_state = copy.deepcopy((whole_on_host(net.state_dict()), whole_on_host(optimizer.state_dict())))
    objects = copy.deepcopy([state, optimizer_state])
    dist.broadcast_object_list(objects, src=0)
    other, other_optimizer = build(objects[0])
    load_optimizer(other_optimizer, objects[1])
    same = all(torch.equal(shard_of(a), shard_of(b)) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    again = list(trained(other, other_optimizer, all_rows().chunk(world_size)[rank]))
    assert again == list(trained(net, optimizer, all_rows().chunk(world_size)[rank]))
    with gathered(other):
        own_pace = [other(all_rows()) for _ in range(rank)]  # not as often in all processes
    assert all(is_sharded(weight) for weight in other.parameters())
    unshard(other)
    assert not any(isinstance(module, FSDPModule) for module in other.modules())
    whole_network = network()
    whole_network.load_state_dict(other.state_dict())
    assert all(torch.equal(whole_network(all_rows()), output) for output in own_pace)
    return {"norms": norms, "state": state, "optimizer": optimizer_state["state"], "same": same}


def run_process(rank: int, world_size: int) -> dict[str, Any]:
    results: dict[str, Any] = {name: sharded_steps(name, rank, world_size) for name in OPTIMIZERS}
    results["images"] = [step for part in PARTS["images"][1:] for step in pretrain("images", "images moved", *part)]
    results["videos"] = pretrain("videos", "videos moved", *PARTS["videos"][1])
    return results


def write_data(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)

    def write(file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(torch.randint(0, 256, (28, 28, 3), dtype=torch.uint8, generator=generator).numpy()).save(file)

    for number in range(NUM_RECORDS):
        write(folder / "images" / f"image {number}.png")
        for frame in range(4):
            write(folder / "videos" / f"video {number}" / f"{frame:03d}.png")


class Trained:
    """Trainings in one process, and ones that crash in it, go on in two processes, and one of them again in one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_data(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            self.alone = {name: pretrain(name, f"{name} alone", None, ["data.num_workers=0"]) for name in TRAININGS}
            self.moved = {name: pretrain(name, f"{name} moved", *PARTS[name][0]) for name in TRAININGS}
            self.processes = run_in_process_groups(__file__, folder, world_sizes=(2,))[2]
            for name in TRAININGS:
                self.moved[name] += self.processes[0][name]
            self.moved["videos"] += pretrain("videos", "videos moved", *PARTS["videos"][2])

    def losses(self, name: str) -> list[float]:
        with (self.folder / name / "metrics.csv").open(newline="") as stream:
            return [float(row["loss"]) for row in csv.DictReader(stream) if row["loss"]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("sharding"))


@pytest.mark.parametrize("name", [pytest.param("images", marks=pytest.mark.long), "videos"])
def test_a_training_goes_on_within_an_epoch_in_other_numbers_of_processes(name: str, results: Trained) -> None:
    assert [len(step) for step in results.alone[name]] == [4] * NUM_STEPS
    assert results.moved[name] == results.alone[name]  # the same records, in the same order
    assert len(results.losses(f"{name} moved")) == NUM_STEPS
    assert results.losses(f"{name} moved") == pytest.approx(results.losses(f"{name} alone"), rel=1e-5)
    alone, moved = (load_weights(str(results.folder / f"{name} {run}")).state for run in ("alone", "moved"))
    assert list(moved) == list(alone)
    for key, value in alone.items():
        torch.testing.assert_close(moved[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_take_the_same_steps_with_shards(name: str, results: Trained) -> None:
    net = network()
    optimizer = OPTIMIZERS[name].build(net.parameters(), lr=0.1)
    norms = list(trained(net, optimizer, all_rows()))
    first, second = (process[name] for process in results.processes)
    assert first["norms"] == pytest.approx(norms, rel=1e-5)
    assert second["norms"] == first["norms"]
    assert first["same"]
    assert second["same"]
    for key, value in net.state_dict().items():
        torch.testing.assert_close(first["state"][key], value, rtol=1e-5, atol=1e-6)
        assert second["state"][key].numel() == 0  # only the first process keeps whole tensors
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            torch.testing.assert_close(first["optimizer"][number][key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("words", [["trainer.compile=true"], ["trainer.precision=16-mixed"]])
def test_settings_that_cannot_be_sharded_are_refused(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.strategy=fsdp"):
        validate(compose("pretrain", [f"data.root={tmp_path}", "trainer.strategy=fsdp", *words]))
