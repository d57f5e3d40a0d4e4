"""Tests of FSDP: two processes with shards train the same networks as one process, and as two with copies.

Losses and weights agree within 1e-5 relative to the largest: sums over a batch are the same, in another order.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from process_groups import run_in_process_groups
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from eztorch_sce import api
from eztorch_sce.config.compose import compose
from eztorch_sce.config.schema import validate
from eztorch_sce.errors import ConfigError
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
    *("method.projector.hidden_dim=16", "method.projector.output_dim=8", "method.queue_size=24", "data.root=data"),
    *("schedule.warmup_epochs=0", "trainer.max_epochs=2", "trainer.accelerator=cpu", "data.batch_size=4"),
    *("data.num_workers=0", "run.log_every_n_steps=1", "data.pretrain_on=all", "online.every_n_epochs=null"),
]
TRAININGS = {
    "images": ["views=image", "views.*.size=24", "optimizer=lars", "trainer.checkpointing=true"],
    "videos": [
        *("backbone=r2plus1d_small", "backbone.width=4", "backbone.num_blocks=2", "optimizer=adamw"),
        *("optimizer.lr=0.01", "views.*.size=16", "data.kind=frames", "data.num_frames=2"),
    ],
}


class Bottlenecks(nn.Module):
    """A narrow ResNet-50: its stem, and two of its blocks."""

    num_features = 32

    def __init__(self) -> None:
        from torchvision.models.resnet import Bottleneck

        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        narrow = nn.Sequential(nn.Conv2d(16, 32, 1, stride=2, bias=False), nn.BatchNorm2d(32))
        self.blocks = nn.Sequential(Bottleneck(16, 8, stride=2, downsample=narrow), Bottleneck(32, 8))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.blocks(self.stem(images)).mean(dim=(2, 3))
        return features


class Losses(Callback):
    """Keep the mean loss of each step over all processes."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, number: int) -> None:
        loss = outputs["loss"].detach().clone()
        if dist.is_initialized():
            dist.all_reduce(loss)
            loss /= dist.get_world_size()
        self.values.append(float(loss))


def pretrain(name: str, run_dir: str, *words: str) -> list[float]:
    losses = Losses()
    torch.manual_seed(0)
    network = Bottlenecks() if name == "images" else None
    config = compose("pretrain", [*SETTINGS, *TRAININGS[name], f"data.root={name}", f"run.dir={run_dir}", *words])
    api.pretrain(config, backbone=network, callbacks=[losses])
    if network is not None:  # trained in place, and a plain module again
        assert type(network) is Bottlenecks
        assert all(type(weight) is nn.Parameter for weight in network.parameters())
        assert copy.deepcopy(network)(torch.zeros(1, 3, 24, 24)).shape == (1, 32)
    return losses.values


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
    for strategy in ("ddp", "fsdp"):
        for name in TRAININGS:
            words = [f"trainer.strategy={strategy}"]
            results[f"{name} {strategy}"] = pretrain(name, f"runs/{name} {strategy}", *words)
    return results


def write_data(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)

    def write(file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(torch.randint(0, 256, (28, 28, 3), dtype=torch.uint8, generator=generator).numpy()).save(file)

    for number in range(8):
        write(folder / "images" / f"image {number}.png")
        for frame in range(4):
            write(folder / "videos" / f"video {number}" / f"{frame:03d}.png")


class Trained:
    """Results in one process, and in each of two."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_data(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            self.alone = {name: pretrain(name, f"runs/{name} alone") for name in TRAININGS}
        self.processes = run_in_process_groups(__file__, folder, world_sizes=(2,))[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("sharding"))


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_have_the_losses_and_weights_of_one(name: str, strategy: str, results: Trained) -> None:
    assert len(results.alone[name]) == 4
    for process in results.processes:
        assert process[f"{name} {strategy}"] == pytest.approx(results.alone[name], rel=1e-5)
    alone, two = (load_weights(str(results.folder / "runs" / f"{name} {each}")).state for each in ("alone", strategy))
    assert list(two) == list(alone)
    for key, value in alone.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5)


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
