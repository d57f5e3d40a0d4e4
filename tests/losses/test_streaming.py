"""The streaming form against the definition written out in float64, and against its own derivatives by differences."""

import math
import random
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eztorch_sce.losses import streaming
from eztorch_sce.losses.infonce import InfoNCELoss
from eztorch_sce.losses.ntxent import NTXentLoss
from eztorch_sce.losses.ressl import ReSSLLoss
from eztorch_sce.losses.sce import SCELoss
from eztorch_sce.losses.streaming import Keys, attend, log_sum_exp


class Case(NamedTuple):
    batch: int
    dim: int
    num_negatives: int
    others_in_batch: int | None  # samples of other processes; None: the batch is not used as negatives
    temperature: float
    target_temperature: float
    positive_weight: float


def unit(count: int, dim: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def cases() -> list[Case]:
    """Corners by hand, and a draw from the grid of all."""
    temperatures, weights = (0.02, 0.05, 0.1, 0.3, 1.0), (0.0, 0.2, 0.5, 1.0)
    corners = [
        Case(1, 8, 1, None, 0.02, 0.02, 0.0),
        Case(1, 512, 0, 1, 0.02, 1.0, 0.5),
        Case(512, 8, 0, 0, 0.02, 0.02, 0.5),
        Case(512, 512, 4096, 512, 0.1, 0.05, 0.5),
        Case(64, 512, 65536, None, 0.02, 0.02, 0.5),
        Case(64, 128, 65536, 64, 0.1, 0.05, 0.0),
    ]
    draw = random.Random(0)
    while len(corners) < 60:
        case = Case(
            draw.choice((1, 2, 7, 64, 300, 512)),
            draw.choice((8, 32, 200, 512)),
            draw.choice((0, 1, 63, 1000, 8000)),
            draw.choice((None, 0, 5, 200)),
            draw.choice(temperatures),
            draw.choice(temperatures),
            draw.choice(weights),
        )
        if case.num_negatives or (case.others_in_batch is not None and case.batch + case.others_in_batch > 1):
            corners.append(case)
    return corners


def written_out(case: Case, query: Tensor, key: Tensor, negatives: Tensor | None, others: Tensor | None) -> Tensor:
    """The definition in float64, every probability in memory: relation, target, prediction, cross entropy."""
    batch = [] if others is None else [others, key]
    rows = torch.cat([x for x in (negatives, *batch) if x is not None])  # (N, D)
    counts = torch.ones(len(query), len(rows), dtype=torch.bool)
    if others is not None:  # a sample's own key, among the last rows, is not its negative
        counts[:, -len(key) :] = ~torch.eye(len(key), dtype=torch.bool)
    relation = (key @ rows.T / case.target_temperature).exp() * counts
    relation = relation / relation.sum(dim=1, keepdim=True)
    positive = ((query * key).sum(dim=1) / case.temperature).exp()
    candidates = (query @ rows.T / case.temperature).exp() * counts
    everything = positive + candidates.sum(dim=1)
    log_positive = -(candidates.sum(dim=1) / positive).log1p()
    log_others = (candidates / everything[:, None] + ~counts).log()
    weight = case.positive_weight
    return -(weight * log_positive + (1 - weight) * (relation * log_others).sum(dim=1)).mean()


@pytest.mark.parametrize("case", cases(), ids=str)
def test_value_and_gradient_against_the_definition_in_float64(case: Case) -> None:
    check(case, unit(case.batch, case.dim, 0), unit(case.batch, case.dim, 1))


@pytest.mark.parametrize("likeness", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("temperature", [0.02, 0.1])
@pytest.mark.parametrize("positive_weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("others_in_batch", [None, 5])
def test_no_digits_are_lost_where_the_positive_stands_out(
    likeness: float, temperature: float, positive_weight: float, others_in_batch: int | None
) -> None:
    """As it does after training: the loss is small there, down to 1e-15, and the difference of large numbers."""
    case = Case(17, 128, 1000, others_in_batch, temperature, 0.05, positive_weight)
    key = unit(case.batch, case.dim, 1)
    check(case, F.normalize((1 - likeness) * unit(case.batch, case.dim, 0) + likeness * key, dim=1), key)


def check(case: Case, query: Tensor, key: Tensor) -> None:
    negatives = unit(case.num_negatives, case.dim, 2) if case.num_negatives else None
    others = None if case.others_in_batch is None else unit(case.others_in_batch, case.dim, 3)
    query64 = query.double().requires_grad_()
    in_float64 = [None if x is None else x.double() for x in (key, negatives, others)]
    expected = written_out(case, query64, *in_float64)  # type: ignore[arg-type]
    expected.backward()
    assert query64.grad is not None

    query.requires_grad_()
    batch_keys = None if others is None else torch.cat([others, key])  # this process comes after the others
    loss = SCELoss(case.temperature, case.target_temperature, case.positive_weight)
    value = loss(query, key, negatives, batch_keys, batch_offset=case.others_in_batch or 0)
    value.backward()
    assert query.grad is not None
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    error = (query.grad.double() - query64.grad).norm() / query64.grad.norm()
    assert error < 1e-5


@pytest.mark.parametrize(("dtype", "step"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-10)])
def test_half_inputs_lose_what_rounding_them_loses_and_no_more(dtype: torch.dtype, step: float) -> None:
    query, key, negatives = (unit(n, 256, n).to(dtype) for n in (64, 65, 4096))
    key = key[:64]
    rounded = query.double().requires_grad_()
    case = Case(64, 256, 4096, None, 0.1, 0.05, 0.5)
    expected = written_out(case, rounded, key.double(), negatives.double(), None)
    expected.backward()
    query.requires_grad_()
    value = SCELoss(0.1, 0.05, 0.5)(query, key, negatives)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert query.grad is not None
    assert rounded.grad is not None
    torch.testing.assert_close(query.grad, rounded.grad.to(dtype), rtol=step, atol=1e-6)


def test_fp16_stays_finite_where_negatives_are_opposite_and_temperatures_small() -> None:
    query = unit(4, 64, 0).half().requires_grad_()
    negatives = -query.detach().repeat(500, 1)
    value = SCELoss(0.02, 0.02, 0.5)(query, query.detach(), negatives)
    value.backward()
    assert value.isfinite()
    assert query.grad is not None
    assert query.grad.isfinite().all()


@pytest.mark.parametrize("own", [None, 0, 3, 100])
def test_derivatives_by_differences(own: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BLOCK_NUMBERS", 1)  # the smallest blocks: three here
    query = unit(4, 3, 0).double().requires_grad_()
    rows = unit(130, 3, 1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k: log_sum_exp(q, Keys(k, own), 0.5), (query, rows), fast_mode=True)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    anchors, rows = unit(5, 16, 0), unit(1000, 16, 1)
    whole = attend(anchors, Keys(rows, own=62), 0.1)
    monkeypatch.setattr(streaming, "BLOCK_NUMBERS", 1)
    torch.testing.assert_close(attend(anchors, Keys(rows, own=62), 0.1), whole)


@pytest.mark.parametrize("make", [SCELoss, InfoNCELoss, ReSSLLoss, NTXentLoss])
@pytest.mark.parametrize("parts", ["queue", "batch", "both"])
def test_the_dense_form_is_the_same_function(make: type[nn.Module], parts: str) -> None:
    queries, keys = [unit(6, 16, 0), unit(6, 16, 1), unit(6, 16, 2)], [unit(6, 16, 3), unit(6, 16, 4)]
    negatives = unit(100, 16, 5) if parts != "batch" else None
    batch_keys = None if parts == "queue" else [torch.cat([unit(2, 16, 6), key]) for key in keys]
    pairs = [(0, 1), (1, 0), (2, 0), (2, 1)]
    results = []
    for implementation in ("streaming", "dense"):
        leaves = [x.clone().requires_grad_() for x in queries]
        loss = make(implementation=implementation).over_pairs(leaves, keys, pairs, negatives, batch_keys, 2).loss
        loss.backward()
        results.append([loss, *(x.grad for x in leaves)])
    torch.testing.assert_close(*results)


def test_dense_has_second_derivatives_and_streaming_says_that_it_has_none() -> None:
    query, key, negatives = unit(3, 8, 0).double().requires_grad_(), unit(3, 8, 1).double(), unit(9, 8, 2).double()
    dense = SCELoss(implementation="dense", temperature=0.5)
    # Differences leave the sphere by little; the check of norms allows it.
    assert torch.autograd.gradgradcheck(lambda q: dense(q, key, negatives), (query,))
    (gradient,) = torch.autograd.grad(SCELoss()(query, key, negatives), query, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_queue_may_change_before_the_backward_pass() -> None:
    for implementation in ("streaming", "dense"):
        gradients = []
        for changes in (False, True):
            query, queue = unit(4, 8, 0).requires_grad_(), unit(20, 8, 2)
            value = SCELoss(implementation=implementation)(query, unit(4, 8, 1), queue)
            if changes:
                queue.zero_()
            value.backward()
            gradients.append(query.grad)
        torch.testing.assert_close(*gradients)


def test_autocast_does_not_reach_the_similarities() -> None:
    query, key, negatives = unit(16, 64, 0), unit(16, 64, 1), unit(500, 64, 2)
    expected = SCELoss()(query, key, negatives)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(SCELoss()(query, key, negatives), expected)


def test_diagnostics_say_what_they_are_called() -> None:
    x, *others = torch.eye(5)
    query, key, negatives = x[None], x[None], torch.stack(others)  # four negatives, all as far from the key
    metrics = SCELoss(temperature=1, target_temperature=0.5).over_pairs([query], [key], [(0, 0)], negatives).metrics
    assert metrics["target_entropy"].item() == pytest.approx(math.log(4), rel=1e-5)
    assert metrics["target_neighbors"].item() == pytest.approx(4, rel=1e-5)
    assert metrics["positive_mass"].item() == pytest.approx(math.e / (math.e + 4), rel=1e-5)
    assert metrics["alignment"].item() == pytest.approx(0, abs=1e-6)
