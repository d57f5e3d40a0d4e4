"""The objectives, against sums by hand, limits, and the numbers of the public code."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eztorch_sce.losses.cosine import CosineLoss
from eztorch_sce.losses.infonce import InfoNCELoss
from eztorch_sce.losses.ressl import ReSSLLoss
from eztorch_sce.losses.sce import SCELoss
from eztorch_sce.optim.ramp import Ramp
from eztorch_sce.registry import choices

FAMILY = ("infonce", "ntxent", "ressl", "sce")


def unit(count: int, dim: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_sce_by_hand() -> None:
    x, y, z = torch.eye(3)  # query = key = x and two orthogonal negatives: logits (1, 0, 0)
    loss = SCELoss(positive_weight=0.5, temperature=1, target_temperature=1)
    assert loss(x[None], x[None], torch.stack([y, z])).item() == pytest.approx(math.log(math.e + 2) - 0.5)


def test_infonce_by_hand() -> None:
    x, y, z = torch.eye(3)
    assert InfoNCELoss(temperature=1)(x[None], x[None], torch.stack([y, z])).item() == pytest.approx(
        math.log(math.e + 2) - 1
    )


def test_all_weight_on_the_positive_is_infonce() -> None:
    query, key, negatives = unit(8, 16, 0), unit(8, 16, 1), unit(32, 16, 2)
    sce = SCELoss(temperature=0.2, target_temperature=0.05, positive_weight=1)
    torch.testing.assert_close(sce(query, key, negatives), InfoNCELoss(0.2)(query, key, negatives))


def test_a_query_that_ranks_as_the_key_does_is_at_the_minimum_of_the_relation() -> None:
    key, negatives = unit(4, 16, 0), unit(64, 16, 1)
    loss = SCELoss(temperature=0.1, target_temperature=0.1, positive_weight=0)
    others = loss(key, key, negatives)
    # Cross entropy is smallest where both distributions agree; the positive column only adds the same to both.
    for seed in range(5):
        assert loss(unit(4, 16, 10 + seed), key, negatives) > others


@pytest.mark.parametrize("name", FAMILY)
def test_the_order_of_negatives_does_not_matter_and_they_take_no_gradient(name: str) -> None:
    loss: nn.Module = choices("loss")[name]().build()
    query, key, negatives = (unit(n, 16, seed).requires_grad_() for n, seed in ((8, 0), (8, 1), (32, 2)))
    value = loss(query, key, negatives)
    torch.testing.assert_close(loss(query, key, negatives.flip(0)), value)
    value.backward()
    assert query.grad is not None
    assert query.grad.abs().sum() > 0
    learn = name == "ntxent"  # its keys are queries too
    assert (key.grad is not None) == learn
    assert (negatives.grad is not None) == learn


@pytest.mark.parametrize("name", FAMILY)
def test_a_batch_that_serves_as_negatives_equals_the_others_as_a_queue(name: str) -> None:
    loss: nn.Module = choices("loss")[name]().build()
    query, key = unit(3, 16, 0), unit(3, 16, 1)
    one_by_one = [loss(query[i : i + 1], key[i : i + 1], key[[j for j in range(3) if j != i]]) for i in range(3)]
    torch.testing.assert_close(loss(query, key, batch_keys=key), torch.stack(one_by_one).mean())


@pytest.mark.parametrize("name", FAMILY)
def test_both_views_of_the_batch_equal_the_others_of_both_as_a_queue(name: str) -> None:
    loss: nn.Module = choices("loss")[name]().build()
    query, key = unit(3, 16, 0), unit(3, 16, 1)
    others = [[j for j in range(3) if j != i] for i in range(3)]
    one_by_one = [
        loss(query[i : i + 1], key[i : i + 1], torch.cat([query[rows], key[rows]])) for i, rows in enumerate(others)
    ]
    both = loss(query, key, batch_keys=torch.stack([query, key]))
    torch.testing.assert_close(both, torch.stack(one_by_one).mean())


@pytest.mark.parametrize("name", FAMILY)
def test_impossible_input_is_refused_in_words(name: str) -> None:
    loss: nn.Module = choices("loss")[name]().build()
    query, key, negatives = unit(2, 8, 0), unit(2, 8, 1), unit(4, 8, 2)
    with pytest.raises(ValueError, match=r"query and key must both be \(B, D\): got \(2, 8\) and \(3, 8\)"):
        loss(query, unit(3, 8, 0), negatives)
    with pytest.raises(ValueError, match=r"negatives must be \(N, 8\) like the query: got \(4, 9\)"):
        loss(query, key, unit(4, 9, 0))
    with pytest.raises(ValueError, match="nothing to contrast with"):
        loss(query, key)
    with pytest.raises(ValueError, match="nothing to contrast with"):
        loss(query[:1], key[:1], batch_keys=key[:1])
    with pytest.raises(ValueError, match="negatives is empty"):
        loss(query, key, negatives[:0])
    with pytest.raises(ValueError, match="batch_offset=1: the 2 samples"):
        loss(query, key, batch_keys=key, batch_offset=1)
    with pytest.raises(ValueError, match=r"negatives must be of one floating-point type: got torch.float64"):
        loss(query, key, negatives.double())
    with pytest.raises(ValueError, match="key must hold unit vectors, and its norms go from 3 to 3"):
        choices("loss")[name]().build()(query, 3 * key, negatives)
    with pytest.raises(ValueError, match=r"query and key are empty, \(0, 8\)"):
        loss(query[:0], key[:0], negatives)
    with pytest.raises(ValueError, match=r"query and key must both be \(B, D\): got \(3, 8\) and \(2, 8\)"):
        loss.over_pairs([query, unit(3, 8, 0)], [key], [(1, 0)], negatives)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("calls_before", [0, 1])
def test_what_holds_nan_is_named_on_any_call(name: str, calls_before: int) -> None:
    loss: nn.Module = choices("loss")[name]().build()
    given = {"query": unit(2, 8, 0), "key": unit(2, 8, 1), "negatives": unit(4, 8, 2), "batch_keys": unit(5, 8, 3)}
    for holed in given:
        for _ in range(calls_before):
            loss(**given)
        bad = given[holed].clone()
        bad[-1, 3] = torch.nan
        with pytest.raises(ValueError, match=f"{holed} holds NaN or infinite numbers in 1 of {len(bad)} rows"):
            loss(**given | {holed: bad})


def test_cosine_names_nan_too() -> None:
    with pytest.raises(ValueError, match="key holds NaN or infinite numbers in 2 of 2 rows"):
        CosineLoss()(unit(2, 8, 0), unit(2, 8, 1) * torch.inf)


def test_cosine_by_hand() -> None:
    x, y, _ = torch.eye(3)
    loss = CosineLoss()
    assert loss(x[None], x[None]).item() == 0
    assert loss(torch.stack([x, x]), torch.stack([y, -x])).item() == pytest.approx((2 + 4) / 2)


def test_a_ramp_moves_the_target_and_ends_at_the_setting() -> None:
    loss = SCELoss(positive_weight=0.5, positive_weight_ramp=Ramp(start=1.0, over=0.5, shape="linear"))
    query, key, negatives = unit(8, 16, 0), unit(8, 16, 1), unit(32, 16, 2)
    infonce = InfoNCELoss(0.1)(query, key, negatives)
    torch.testing.assert_close(loss(query, key, negatives), infonce)
    loss.set_progress(0.25)
    torch.testing.assert_close(loss(query, key, negatives), SCELoss(positive_weight=0.75)(query, key, negatives))
    loss.set_progress(0.8)
    torch.testing.assert_close(loss(query, key, negatives), SCELoss(positive_weight=0.5)(query, key, negatives))


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"target_temperature": -1}, {"positive_weight": 1.5}])
def test_impossible_settings_name_the_setting_and_the_value(settings: dict[str, float]) -> None:
    (name, value) = next(iter(settings.items()))
    with pytest.raises(ValueError, match=rf"{name}={value}"):
        SCELoss(**settings)


@pytest.mark.parametrize(
    ("name", "ramp", "said"),
    [
        ("target_temperature_ramp", Ramp(start=-0.1), "start=-0.1 must be greater than 0"),
        ("positive_weight_ramp", Ramp(start=1.5), "start=1.5 must be between 0 and 1"),
        ("positive_weight_ramp", Ramp(start=1, over=0), "over=0 must be above 0"),
    ],
)
def test_impossible_ramps_are_named(name: str, ramp: Ramp, said: str) -> None:
    with pytest.raises(ValueError, match=f"SCELoss.{name}.{said}"):
        SCELoss(**{name: ramp})
    if ramp.over:  # the ramp says the rest of itself
        assert any(said in problem for problem in choices("loss")["sce"](**{name: ramp}).problems("loss"))


@pytest.mark.real_data
def test_public_values(shared: Path) -> None:
    """The public code's losses and gradients.

    Without in-batch keys, its relation has the positive in as a key of similarity 0: what that takes from the others is
    weight of the positive, sample by sample.
    """
    recorded, arrays = json.loads((shared / "vectors/losses.json").read_text()), np.load(shared / "vectors/losses.npz")
    assert recorded["cases"]
    for case in recorded["cases"]:
        params = case["params"]
        if case["loss"] == "sce":
            loss: nn.Module = SCELoss(params["temp"], params["temp_m"], params["coeff"])
        elif case["loss"] == "moco":
            loss = InfoNCELoss(params["temp"])
        elif case["loss"] == "mocov3":
            loss = InfoNCELoss(params["temp"], weight=2 * params["temp"])
        else:
            loss = ReSSLLoss(params["temp"], params["temp_m"])
        geometry = case["geometry"]
        query = torch.from_numpy(arrays[f"{geometry}/q"]).double().requires_grad_()
        keys = torch.from_numpy(arrays[f"{geometry}/k_global"]).double()
        queue = torch.from_numpy(arrays[f"{geometry}/queue"]).double() if f"{geometry}/queue" in arrays else None
        if queue is not None and len(queue) == 0:
            queue = None
        if case["loss"] == "mocov3":
            queue = None  # it has none
        offset = params.get("rank", 0) * len(query)
        batch_keys = keys if params.get("use_keys", True) else None
        key = keys[offset : offset + len(query)]
        if case["loss"] == "sce" and not params["use_keys"]:
            value = with_the_positive_in_the_relation(params, query, key, queue)
        else:
            value = loss(query, key, queue, batch_keys, offset)
        assert value.item() == pytest.approx(case["loss_f64"], rel=1e-7), case["case"]
        if f"{case['case']}/grad_q" in arrays:
            value.backward()
            expected = torch.from_numpy(arrays[f"{case['case']}/grad_q"]).double()
            torch.testing.assert_close(query.grad, expected, rtol=1e-5, atol=1e-7)


def with_the_positive_in_the_relation(params: dict[str, float], query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    """Return the mean of SCE whose positives have their weight and their share of a softmax with a similarity of 0."""
    shares = F.softmax(F.pad(key @ queue.T / params["temp_m"], (1, 0)), dim=1)[:, 0]
    weights = params["coeff"] + (1 - params["coeff"]) * shares
    terms = [
        SCELoss(params["temp"], params["temp_m"], weight)(query[i : i + 1], key[i : i + 1], queue)
        for i, weight in enumerate(weights.tolist())
    ]
    return torch.stack(terms).mean()
