"""Tests that several gloo processes train as one process does on the same global batch."""

import copy
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pytest
import torch
import torch.distributed as dist
from process_groups import WORLD_SIZES, run_in_process_groups
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from eztorch_sce.losses.cosine import CosineConfig
from eztorch_sce.losses.infonce import InfoNCEConfig
from eztorch_sce.losses.ntxent import NTXentConfig
from eztorch_sce.losses.ressl import ReSSLConfig
from eztorch_sce.losses.sce import SCEConfig
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.methods.momentum_predict import MomentumPredictConfig
from eztorch_sce.methods.simclr import SimCLRConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.batch_norm import SyncBatchNorm, sync_batch_norms
from eztorch_sce.models.heads import PredictorConfig, ProjectorConfig
from eztorch_sce.registry import choices

pytestmark = pytest.mark.xdist_group("processes")  # fixtures take long: once, in one worker


class OwnLoss(nn.Module):
    """A loss of a user, with a parameter: its negatives are the queue, or else the other samples of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        positive = (query * key).sum(dim=1, keepdim=True)
        others = query @ key.T if negatives is None else torch.cat([positive, query @ negatives.T], dim=1)
        return (self.scale * others).logsumexp(dim=1).mean() - self.scale * positive.mean()


@dataclass
class OwnLossConfig:
    def build(self) -> OwnLoss:
        return OwnLoss()


GLOBAL_BATCH, NUM_STEPS = 8, 3
HEADS: dict[str, Any] = {
    "projector": ProjectorConfig(hidden_dim=16, output_dim=8),
    "predictor": PredictorConfig(hidden_dim=16),
}
CASES: dict[str, tuple[Any, Any, int]] = {  # method, loss, number of views
    "sce, queue, 2 + 1 views": (MomentumContrastConfig(**HEADS, queue_size=20), SCEConfig(), 3),
    "sce, queue and batch": (MomentumContrastConfig(**HEADS, queue_size=20, batch_keys=True), SCEConfig(), 2),
    "sce, batch": (MomentumContrastConfig(**HEADS, queue_size=0, batch_keys=True), SCEConfig(), 2),
    "moco, shuffled": (
        MomentumContrastConfig(HEADS["projector"], None, queue_size=20, symmetric=False, shuffle_bn=True),
        InfoNCEConfig(),
        2,
    ),
    "ressl": (MomentumContrastConfig(**HEADS, queue_size=20, symmetric=False), ReSSLConfig(), 2),
    "moco v3": (MomentumPredictConfig(**HEADS), InfoNCEConfig(0.2, weight=0.8), 2),
    "byol": (MomentumPredictConfig(**HEADS), CosineConfig(), 2),
    "simclr": (SimCLRConfig(HEADS["projector"]), NTXentConfig(), 2),
    "own loss, queue": (MomentumContrastConfig(**HEADS, queue_size=20), OwnLossConfig(), 2),
    "own loss, momentum prediction": (MomentumPredictConfig(**HEADS), OwnLossConfig(), 2),
    "own loss, simclr, 2 + 1 views": (SimCLRConfig(HEADS["projector"]), OwnLossConfig(), 3),
    "simclr, 2 + 1 views": (SimCLRConfig(HEADS["projector"]), NTXentConfig(), 3),
}
OWN_STATISTICS = "moco, shuffled, each process with its own batch statistics"
CASES[OWN_STATISTICS] = (
    MomentumContrastConfig(
        ProjectorConfig(num_hidden=0, output_dim=8, output_norm=False),
        None,
        queue_size=20,
        symmetric=False,
        shuffle_bn=True,
    ),
    InfoNCEConfig(),
    2,
)


def global_views(step: int, num_views: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    sizes = [(2, 32)] * 2 + [(1, 32)] * (num_views - 2)
    return [torch.randn(GLOBAL_BATCH, 3, frames, size, size, generator=generator).double() for frames, size in sizes]


def train(case: str, rank: int, world_size: int, bn_splits: int = 1) -> dict[str, Any]:
    """Train a few steps on this process's rows, as DDP does, with batch norm frozen; return the results to compare.

    In float64, so that rounding does not hide a difference. With `bn_splits`, one process simulates that many.
    """
    config, loss, num_views = CASES[case]
    if bn_splits > 1:
        config = replace(config, bn_splits=bn_splits)
    torch.manual_seed(0)
    backbone = SmallR2Plus1DConfig(width=4, num_blocks=1, norm=case == OWN_STATISTICS).build()
    method = config.build(backbone, loss.build()).double()
    for module in method.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    initial = copy.deepcopy(method.state_dict())
    trained = DistributedDataParallel(method, forward_sync_buffers=False) if world_size > 1 else method
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    local_batch = GLOBAL_BATCH // world_size
    losses, gradients = [], []
    for step in range(NUM_STEPS):
        views = [view[rank * local_batch : (rank + 1) * local_batch] for view in global_views(step, num_views)]
        output = trained(views)
        optimizer.zero_grad()
        output.loss.backward()
        gradients.append([p.grad.clone() for p in method.parameters() if p.grad is not None])
        optimizer.step()
        method.after_step(step / NUM_STEPS)
        mean = output.loss.detach().clone()
        if world_size > 1:
            dist.all_reduce(mean)
        losses.append(mean / world_size)
    changed = {name: not torch.equal(initial[name], value) for name, value in method.state_dict().items()}
    state = {name: value for name, value in method.state_dict().items() if "running" not in name}
    return {"losses": losses, "gradients": gradients, "state": state, "changed": changed}


ONE_OF_EACH_METHOD = ("sce, queue, 2 + 1 views", "byol", "simclr, 2 + 1 views")
SYNCHRONIZED = [
    *product(ONE_OF_EACH_METHOD, ["lars"]),
    *product(ONE_OF_EACH_METHOD[:1], ["sgd", "adamw"]),
    ("moco, shuffled", "lars"),
]  # case, optimizer


def train_synchronized(case: str, optimizer_name: str, rank: int, world_size: int) -> dict[str, Any]:
    """Take two optimizer steps with batch norm over the global batch, in the backbone too; return what to compare."""
    config, loss, num_views = CASES[case]
    torch.manual_seed(0)
    method = config.build(SmallR2Plus1DConfig(width=4, num_blocks=1).build(), loss.build()).double()
    if world_size > 1:
        sync_batch_norms(method)
        assert any(isinstance(module, SyncBatchNorm) for module in method.modules())
    trained = DistributedDataParallel(method, forward_sync_buffers=False) if world_size > 1 else method
    optimizer_config: Any = choices("optimizer")[optimizer_name]()
    optimizer = optimizer_config.build(method.parameters(), 0.05)
    local_batch = GLOBAL_BATCH // world_size
    losses, gradients = [], []
    for step in range(2):
        output = trained([view[rank * local_batch :][:local_batch] for view in global_views(step, num_views)])
        optimizer.zero_grad()
        output.loss.backward()
        gradients.append([p.grad.clone() for p in method.parameters() if p.grad is not None])
        optimizer.step()
        method.after_step(step / 2)
        mean = output.loss.detach().clone()
        if world_size > 1:
            dist.all_reduce(mean)
        losses.append(mean / world_size)
    return {"losses": losses, "gradients": gradients, "state": method.state_dict()}


def run_process(rank: int, world_size: int) -> tuple[dict[str, Any], dict[Any, Any]]:
    """Train every case in one of the processes."""
    results = {case: train(case, rank, world_size) for case in CASES}
    return results, {pair: train_synchronized(*pair, rank, world_size) for pair in SYNCHRONIZED}


def tensors(nested: Any) -> list[Tensor]:
    """Return the tensors of a list of tensors, a list of lists, or a state dict, in order."""
    if isinstance(nested, Tensor):
        return [nested]
    items = nested.values() if isinstance(nested, dict) else nested
    return [tensor for item in items for tensor in tensors(item)]


@pytest.fixture(scope="module")
def single_process() -> dict[str, dict[str, Any]]:
    return {case: train(case, 0, 1) for case in CASES if case != OWN_STATISTICS}


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[tuple[Any, Any]]]:
    """Return the results of each process, by number of processes."""
    return run_in_process_groups(__file__, tmp_path_factory.mktemp("processes"))


@pytest.fixture(params=WORLD_SIZES)
def processes(request: pytest.FixtureRequest, groups: dict[int, list[tuple[Any, Any]]]) -> list[tuple[Any, Any]]:
    """Return the results of each of 2 or 4 processes."""
    return groups[request.param]


def assert_equal(results: dict[str, Any], expected: dict[str, Any], case: object) -> None:
    for quantity in ("losses", "gradients", "state"):  # the state includes queue and momentum encoder
        both = zip(tensors(results[quantity]), tensors(expected[quantity]), strict=True)
        for number, (actual, reference) in enumerate(both):
            error = (actual - reference).double().norm() / reference.double().norm().clamp_min(1e-6)
            assert error < 1e-8, f"{case}, {quantity} {number}"


def test_training_in_several_processes_matches_one_process(
    processes: list[tuple[Any, Any]], single_process: dict[str, dict[str, Any]]
) -> None:
    split = train(OWN_STATISTICS, 0, 1, bn_splits=len(processes))  # one process shuffles across its splits
    for case, expected in (single_process | {OWN_STATISTICS: split}).items():
        assert any(expected["changed"].values()), case
        for results, _ in processes:
            assert_equal(results[case], expected, case)


def test_training_with_synchronized_batch_norm_matches_one_process(processes: list[tuple[Any, Any]]) -> None:
    assert {type(CASES[case][0]) for case in ONE_OF_EACH_METHOD} == set(choices("method").values())
    for pair in SYNCHRONIZED:
        expected = train_synchronized(*pair, 0, 1)
        for _, results in processes:
            assert_equal(results[pair], expected, pair)


def test_every_case_trains_network_momentum_encoder_and_queue(single_process: dict[str, dict[str, Any]]) -> None:
    for case, results in single_process.items():
        changed = results["changed"]
        assert changed["online.backbone.stem.0.0.weight"], case
        for name in changed:
            if name.startswith("momentum_encoder") and name.endswith("0.weight"):
                assert changed[name], f"{case}: {name}"
        assert changed.get("queue.keys", True), case
