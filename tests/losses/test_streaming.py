"""Tests of the streaming losses against dense definitions and finite differences."""

import math
import random
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eztorch_sce.losses import streaming
from eztorch_sce.losses.contrastive import ContrastiveLoss
from eztorch_sce.losses.infonce import InfoNCELoss
from eztorch_sce.losses.ntxent import NTXentLoss
from eztorch_sce.losses.pairs import ViewPairs
from eztorch_sce.losses.ressl import ReSSLLoss
from eztorch_sce.losses.sce import SCELoss
from eztorch_sce.losses.streaming import Keys, attend, log_sum_exp


class Case(NamedTuple):
    batch: int
    dim: int
    num_negatives: int
    others_in_batch: int | None  # samples of other processes; None for no in-batch negatives
    temperature: float
    target_temperature: float
    positive_weight: float


def unit(count: int, dim: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def cases() -> list[Case]:
    """Return corner cases, and random draws from the grid of all cases."""
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


def sce_by_definition(
    case: Case, query: Tensor, key: Tensor, negatives: Tensor | None, others: Tensor | None
) -> Tensor:
    """Return SCE by its definition, with every probability in memory."""
    batch = [] if others is None else [others, key]
    rows = torch.cat([x for x in (negatives, *batch) if x is not None])  # (N, D)
    counts = torch.ones(len(query), len(rows), dtype=torch.bool)
    if others is not None:  # a sample's own key, among the last rows, is not a negative
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
def test_value_and_gradient_match_the_definition_in_float64(case: Case) -> None:
    check(case, unit(case.batch, case.dim, 0), unit(case.batch, case.dim, 1))


@pytest.mark.parametrize("similarity", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("temperature", [0.02, 0.1])
@pytest.mark.parametrize("positive_weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("others_in_batch", [None, 5])
def test_precision_holds_if_the_positive_dominates(
    similarity: float, temperature: float, positive_weight: float, others_in_batch: int | None
) -> None:
    """Late in training, the loss is small, down to 1e-15, and a difference of large numbers."""
    case = Case(17, 128, 1000, others_in_batch, temperature, 0.05, positive_weight)
    key = unit(case.batch, case.dim, 1)
    check(case, F.normalize((1 - similarity) * unit(case.batch, case.dim, 0) + similarity * key, dim=1), key)


def check(case: Case, query: Tensor, key: Tensor) -> None:
    negatives = unit(case.num_negatives, case.dim, 2) if case.num_negatives else None
    others = None if case.others_in_batch is None else unit(case.others_in_batch, case.dim, 3)
    query64 = query.double().requires_grad_()
    in_float64 = [None if x is None else x.double() for x in (key, negatives, others)]
    expected = sce_by_definition(case, query64, *in_float64)  # type: ignore[arg-type]
    expected.backward()
    assert query64.grad is not None

    query.requires_grad_()
    batch_keys = None if others is None else torch.cat([others, key])  # this process has the last rank
    loss = SCELoss(case.temperature, case.target_temperature, case.positive_weight)
    value = loss(query, key, negatives, batch_keys, batch_offset=case.others_in_batch or 0)
    value.backward()
    assert query.grad is not None
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    error = (query.grad.double() - query64.grad).norm() / query64.grad.norm()
    assert error < 1e-5


@pytest.mark.parametrize(("dtype", "step"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-10)])
def test_half_precision_inputs_add_no_error_beyond_their_own_rounding(dtype: torch.dtype, step: float) -> None:
    query, key, negatives = (unit(n, 256, n).to(dtype) for n in (64, 65, 4096))
    key = key[:64]
    rounded = query.double().requires_grad_()
    case = Case(64, 256, 4096, None, 0.1, 0.05, 0.5)
    expected = sce_by_definition(case, rounded, key.double(), negatives.double(), None)
    expected.backward()
    query.requires_grad_()
    value = SCELoss(0.1, 0.05, 0.5)(query, key, negatives)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert query.grad is not None
    assert rounded.grad is not None
    torch.testing.assert_close(query.grad, rounded.grad.to(dtype), rtol=step, atol=1e-6)


def test_fp16_stays_finite_for_opposite_negatives_and_small_temperatures() -> None:
    query = unit(4, 64, 0).half().requires_grad_()
    negatives = -query.detach().repeat(500, 1)
    value = SCELoss(0.02, 0.02, 0.5)(query, query.detach(), negatives)
    value.backward()
    assert value.isfinite()
    assert query.grad is not None
    assert query.grad.isfinite().all()


@pytest.mark.parametrize("own", [None, 0, 3, 100])
def test_gradients_match_finite_differences(own: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BLOCK_NUMBERS", 1)  # the smallest blocks: three here
    query = unit(4, 3, 0).double().requires_grad_()
    rows = unit(130, 3, 1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k: log_sum_exp(q, Keys(k, own), 0.5), (query, rows), fast_mode=True)


def test_the_block_size_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    anchors, rows = unit(5, 16, 0), unit(1000, 16, 1)
    expected = attend(anchors, Keys(rows, own=62), 0.1)
    monkeypatch.setattr(streaming, "BLOCK_NUMBERS", 1)
    torch.testing.assert_close(attend(anchors, Keys(rows, own=62), 0.1), expected)


def dense(loss: ContrastiveLoss, views: ViewPairs) -> Tensor:
    """Return the loss of pairs as the papers write it, with all similarities in memory."""
    terms = [dense_pair(loss, views, i, j) for i, j in views.pairs]
    weight = loss.weight if isinstance(loss, InfoNCELoss) else 1.0
    return weight * torch.stack(terms).mean()


def dense_pair(loss: ContrastiveLoss, views: ViewPairs, i: int, j: int) -> Tensor:
    """Return the cross entropy of target and prediction; the first column of both is the positive."""
    target_temperature = loss.target_temperature if isinstance(loss, SCELoss | ReSSLLoss) else 1.0
    positive_weight = loss.positive_weight if isinstance(loss, SCELoss) else float(not isinstance(loss, ReSSLLoss))
    query, key = views.queries[i], views.keys[j]
    rows, own = [] if views.negatives is None else [views.negatives], None
    if views.batch_keys is not None:
        own = sum(len(block) for block in rows) + views.batch_offset
        rows.append(views.batch_keys[j])
    negatives = torch.cat(rows)
    left_out = torch.zeros(len(query), len(negatives), dtype=torch.bool)
    if own is not None:
        left_out[torch.arange(len(query)), own + torch.arange(len(query))] = True
    positive = (query * key).sum(dim=1, keepdim=True)  # (B, 1)
    if isinstance(loss, ReSSLLoss):  # the positive is not a candidate
        positive = torch.full_like(positive, -torch.inf)
    candidates = (query @ negatives.T).masked_fill(left_out, -torch.inf)  # (B, N)
    log_prediction = F.log_softmax(torch.cat([positive, candidates], dim=1) / loss.temperature, dim=1)
    target = torch.zeros_like(log_prediction)
    target[:, 0] = positive_weight
    if positive_weight < 1:
        relation = (key @ negatives.T).masked_fill(left_out, -torch.inf) / target_temperature
        target[:, 1:] = (1 - positive_weight) * relation.softmax(dim=1)
    # A column that is left out has probability 0 on both sides; 0 * -inf would be NaN.
    return -(target * log_prediction.masked_fill(target == 0, 0)).sum(dim=1).mean()


@pytest.mark.parametrize("loss_class", [SCELoss, InfoNCELoss, ReSSLLoss, NTXentLoss])
@pytest.mark.parametrize("sources", ["queue", "batch", "both"])
def test_streaming_and_dense_forms_agree(loss_class: type[ContrastiveLoss], sources: str) -> None:
    queries, keys = [unit(6, 16, 0), unit(6, 16, 1), unit(6, 16, 2)], [unit(6, 16, 3), unit(6, 16, 4)]
    negatives = unit(100, 16, 5) if sources != "batch" else None
    batch_keys = None if sources == "queue" else [torch.cat([unit(2, 16, 6), key]) for key in keys]
    pairs = [(0, 1), (1, 0), (2, 0), (2, 1)]
    loss = loss_class()  # type: ignore[call-arg]  # every setting of the losses has a default
    results = []
    for is_dense in (False, True):
        leaves = [x.clone().requires_grad_() for x in queries]
        views = ViewPairs(leaves, keys, pairs, negatives, batch_keys, 2)
        value = dense(loss, views) if is_dense else loss.over_pairs(views).loss
        value.backward()
        results.append([value, *(x.grad for x in leaves)])
    torch.testing.assert_close(*results)


def test_a_double_backward_raises_an_error_with_the_alternative() -> None:
    query, key, negatives = unit(3, 8, 0).requires_grad_(), unit(3, 8, 1), unit(9, 8, 2)
    value = SCELoss()(query, key, negatives)
    (gradient,) = torch.autograd.grad(value, query, create_graph=True)
    (plain,) = torch.autograd.grad(SCELoss()(query, key, negatives), query)
    assert torch.equal(gradient, plain)
    with pytest.raises(RuntimeError, match=r"no second derivative.*write \(query @ keys.T / temperature\).logsumexp"):
        gradient.sum().backward()


def test_the_queue_may_change_before_the_backward_pass() -> None:
    gradients = []
    for changes in (False, True):
        query, queue = unit(4, 8, 0).requires_grad_(), unit(20, 8, 2)
        value = SCELoss()(query, unit(4, 8, 1), queue)
        if changes:
            queue.zero_()
        value.backward()
        gradients.append(query.grad)
    torch.testing.assert_close(*gradients)


def test_autocast_does_not_lower_the_precision_of_similarities() -> None:
    query, key, negatives = unit(16, 64, 0), unit(16, 64, 1), unit(500, 64, 2)
    expected = SCELoss()(query, key, negatives)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(SCELoss()(query, key, negatives), expected)


def test_metrics_match_hand_computation() -> None:
    x, *others = torch.eye(5)
    query, key, negatives = x[None], x[None], torch.stack(others)  # four negatives at the same distance from the key
    views = ViewPairs([query], [key], [(0, 0)], negatives)
    metrics = SCELoss(temperature=1, target_temperature=0.5).over_pairs(views).metrics
    assert metrics["target_entropy"].item() == pytest.approx(math.log(4), rel=1e-5)
    assert metrics["target_neighbors"].item() == pytest.approx(4, rel=1e-5)
    assert metrics["positive_mass"].item() == pytest.approx(math.e / (math.e + 4), rel=1e-5)
    assert metrics["alignment"].item() == pytest.approx(0, abs=1e-6)
