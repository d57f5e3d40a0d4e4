"""Tests of a loss in plain PyTorch, as a user would write it, with and without a queue."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eztorch_sce.losses.infonce import InfoNCELoss
from eztorch_sce.losses.pairs import Loss
from eztorch_sce.methods.momentum_contrast import MomentumContrast, MomentumContrastConfig
from eztorch_sce.methods.momentum_predict import MomentumPredictConfig
from eztorch_sce.methods.simclr import SimCLRConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig

PROJECTOR = ProjectorConfig(hidden_dim=16, output_dim=8)


class PlainInfoNCE(nn.Module):
    def forward(self, query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        if negatives is None:
            return F.cross_entropy(query @ key.T / 0.1, torch.arange(len(query)))
        similarities = torch.cat([(query * key).sum(dim=1, keepdim=True), query @ negatives.T], dim=1)
        return F.cross_entropy(similarities / 0.1, torch.zeros(len(query), dtype=torch.long))


def build(config: Any, loss: Loss) -> Any:
    torch.manual_seed(0)
    return config.build(SmallR2Plus1DConfig(width=4, num_blocks=1).build(), loss)


def views(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, 2, 32, 32, generator=generator) for _ in range(2)]


def train(loss: Loss, batches_per_step: int) -> MomentumContrast:
    """Take two optimizer steps with a queue."""
    method: MomentumContrast = build(MomentumContrastConfig(projector=PROJECTOR, queue_size=20), loss)
    method = method.double()  # so that the two losses differ by rounding only
    optimizer = torch.optim.SGD(method.online.parameters(), lr=0.1)
    for step in range(2):
        for batch in range(batches_per_step):
            method([view.double() for view in views(10 * step + batch)]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step / 2)
    return method


@pytest.mark.parametrize("batches_per_step", [1, 2])
def test_a_plain_loss_trains_with_a_queue_like_the_built_in_one(batches_per_step: int) -> None:
    plain, built_in = train(PlainInfoNCE(), batches_per_step), train(InfoNCELoss(0.1), batches_per_step)
    torch.testing.assert_close(plain.state_dict(), built_in.state_dict(), rtol=1e-6, atol=1e-8)


def test_a_step_of_two_batches_enqueues_the_keys_of_one_twice_as_large() -> None:
    method = build(MomentumContrastConfig(projector=PROJECTOR, queue_size=20), PlainInfoNCE())
    start = method.queue.keys.clone()
    keys = [[method.momentum_encoder(view) for view in views(batch)] for batch in range(2)]
    for batch in range(2):
        method(views(batch)).loss.backward()
        assert torch.equal(method.queue.keys, start)  # both batches meet the same queue
    method.after_step(0.0)
    by_view = [torch.cat(of_view) for of_view in zip(*keys, strict=True)]
    torch.testing.assert_close(method.queue.keys, torch.cat([*by_view, start[16:]]))
    assert int(method.queue.position) == 16


def test_a_run_resumed_after_a_step_has_the_same_queue() -> None:
    method: Any = train(PlainInfoNCE(), batches_per_step=1).float()
    resumed = build(MomentumContrastConfig(projector=PROJECTOR, queue_size=20), PlainInfoNCE())
    resumed.load_state_dict(method.state_dict())
    for each in (method, resumed):
        each(views(7)).loss.backward()
        each.after_step(0.5)
    assert torch.equal(method.queue.keys, resumed.queue.keys)
    assert torch.equal(method.queue.position, resumed.queue.position)


@pytest.mark.parametrize("config", [MomentumPredictConfig(PROJECTOR), SimCLRConfig(PROJECTOR)])
def test_a_plain_loss_trains_without_a_queue(config: Any) -> None:
    method = build(config, PlainInfoNCE())
    output = method(views(0))
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in method.online.parameters())
    assert 0 <= output.metrics["alignment"] <= 4


class Recorded(torch.autograd.Function):
    """An identity that notes the precision of matrix products when it runs, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, notes: list[tuple[str, str, bool]], name: str) -> Tensor:
        ctx.notes, ctx.name = notes, name
        notes.append((name, torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")))
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.notes.append((f"{ctx.name}, backward", torch.get_float32_matmul_precision(), False))
        return gradient, None, None


def test_a_plain_loss_is_exact_whatever_the_precision_of_the_networks() -> None:
    notes: list[tuple[str, str, bool]] = []

    def recorded(x: Tensor, name: str) -> Tensor:
        result: Tensor = Recorded.apply(x, notes, name)  # type: ignore[no-untyped-call]
        return result

    def loss(query: Tensor, key: Tensor, negatives: Tensor) -> Tensor:
        assert query.dtype == torch.float32
        return PlainInfoNCE().forward(recorded(query, "loss"), key, negatives)

    method = build(MomentumContrastConfig(projector=PROJECTOR, queue_size=20), loss)
    method.online.backbone.register_forward_hook(lambda module, inputs, output: recorded(output, "network"))
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = method(views(0)).loss
        total.backward()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert {note for note in notes if note[0].startswith("loss")} == {
        ("loss", "highest", False),
        ("loss, backward", "highest", False),
    }
    assert {note for note in notes if note[0].startswith("network")} == {
        ("network", "high", True),
        ("network, backward", "high", False),
    }
