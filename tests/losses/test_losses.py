"""Tests of the losses: hand computations, limits, invariances, errors, and values of the public code."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eztorch_sce.losses.contrastive import ContrastiveLoss
from eztorch_sce.losses.cosine import CosineLoss
from eztorch_sce.losses.infonce import InfoNCELoss
from eztorch_sce.losses.ntxent import NTXentLoss
from eztorch_sce.losses.pairs import ViewPairs
from eztorch_sce.losses.ressl import ReSSLLoss
from eztorch_sce.losses.sce import SCELoss
from eztorch_sce.registry import choices

CONTRASTIVE = ("infonce", "ntxent", "ressl", "sce")


def unit(count: int, dim: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_sce_matches_hand_computation() -> None:
    x, y, z = torch.eye(3)  # query = key = x and two orthogonal negatives: logits (1, 0, 0)
    loss = SCELoss(positive_weight=0.5, temperature=1, target_temperature=1)
    assert loss(x[None], x[None], torch.stack([y, z])).item() == pytest.approx(math.log(math.e + 2) - 0.5)


def test_infonce_matches_hand_computation() -> None:
    x, y, z = torch.eye(3)
    assert InfoNCELoss(temperature=1)(x[None], x[None], torch.stack([y, z])).item() == pytest.approx(
        math.log(math.e + 2) - 1
    )


def test_sce_with_all_weight_on_the_positive_is_infonce() -> None:
    query, key, negatives = unit(8, 16, 0), unit(8, 16, 1), unit(32, 16, 2)
    sce = SCELoss(temperature=0.2, target_temperature=0.05, positive_weight=1)
    torch.testing.assert_close(sce(query, key, negatives), InfoNCELoss(0.2)(query, key, negatives))


def test_the_relational_term_is_smallest_for_a_query_equal_to_its_key() -> None:
    key, negatives = unit(4, 16, 0), unit(64, 16, 1)
    loss = SCELoss(temperature=0.1, target_temperature=0.1, positive_weight=0)
    lowest = loss(key, key, negatives)  # a cross entropy is smallest if both distributions agree
    for seed in range(5):
        assert loss(unit(4, 16, 10 + seed), key, negatives) > lowest


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_negatives_may_be_permuted_and_receive_no_gradient(name: str) -> None:
    loss: ContrastiveLoss = choices("loss")[name]().build()
    query, key, negatives = (unit(n, 16, seed).requires_grad_() for n, seed in ((8, 0), (8, 1), (32, 2)))
    value = loss(query, key, negatives)
    torch.testing.assert_close(loss(query, key, negatives.flip(0)), value)
    value.backward()
    assert query.grad is not None
    assert query.grad.abs().sum() > 0
    keys_learn = name == "ntxent"  # its keys are queries too
    assert (key.grad is not None) == keys_learn
    assert (negatives.grad is not None) == keys_learn


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_in_batch_negatives_equal_a_queue_of_the_other_samples(name: str) -> None:
    loss: ContrastiveLoss = choices("loss")[name]().build()
    query, key = unit(3, 16, 0), unit(3, 16, 1)
    one_by_one = [loss(query[i : i + 1], key[i : i + 1], key[[j for j in range(3) if j != i]]) for i in range(3)]
    torch.testing.assert_close(loss(query, key, batch_keys=key), torch.stack(one_by_one).mean())


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_in_batch_negatives_of_two_views_equal_a_queue_of_both(name: str) -> None:
    loss: ContrastiveLoss = choices("loss")[name]().build()
    query, key = unit(3, 16, 0), unit(3, 16, 1)
    others = [[j for j in range(3) if j != i] for i in range(3)]
    one_by_one = [
        loss(query[i : i + 1], key[i : i + 1], torch.cat([query[rows], key[rows]])) for i, rows in enumerate(others)
    ]
    both = loss(query, key, batch_keys=torch.stack([query, key]))
    torch.testing.assert_close(both, torch.stack(one_by_one).mean())


@pytest.mark.parametrize("name", ["infonce", "ressl", "sce"])
def test_the_other_samples_are_the_negatives_of_a_plain_batch(name: str) -> None:
    loss: ContrastiveLoss = choices("loss")[name]().build()
    query, key = unit(4, 8, 0), unit(4, 8, 1)
    assert loss(query, key) == loss(query, key, batch_keys=key)


def test_infonce_of_a_plain_batch_is_the_cross_entropy_of_its_similarities() -> None:
    query, key = unit(4, 8, 0), unit(4, 8, 1)
    expected = F.cross_entropy(query @ key.T / 0.2, torch.arange(4))
    torch.testing.assert_close(InfoNCELoss(temperature=0.2)(query, key), expected)


def test_ntxent_of_a_plain_batch_matches_a_sum_over_all_rows() -> None:
    z0, z1 = unit(3, 8, 0).requires_grad_(), unit(3, 8, 1).requires_grad_()
    rows, terms = torch.cat([z0, z1]), []
    for row in range(6):
        similarities = [rows[row] @ rows[other] / 0.5 for other in range(6) if other != row]
        positive = rows[row] @ rows[(row + 3) % 6] / 0.5
        terms.append(torch.stack(similarities).logsumexp(dim=0) - positive)
    expected = torch.stack(terms).mean()
    value = NTXentLoss(temperature=0.5)(z0, z1)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, [z0, z1]), torch.autograd.grad(expected, [z0, z1]))


def test_ntxent_has_known_values_for_orthogonal_and_for_equal_samples() -> None:
    x, y, _ = torch.eye(3)
    loss = NTXentLoss(temperature=1)
    orthogonal, equal = torch.stack([x, y]), torch.stack([x, x])
    assert loss(orthogonal, orthogonal).item() == pytest.approx(math.log(math.e + 2) - 1)
    assert loss(equal, equal).item() == pytest.approx(math.log(3))  # three candidates that are alike


@pytest.mark.parametrize("name", choices("loss"))
def test_normalize_accepts_raw_embeddings_of_mixed_types(name: str) -> None:
    class_of_loss: Any = type(choices("loss")[name]().build())
    query, key, queue = (torch.randn(n, 8, generator=torch.Generator().manual_seed(n)) for n in (4, 4, 9))
    unit_rows = [F.normalize(rows, dim=1) for rows in (query, key, queue)]
    loss = class_of_loss(normalize=True)
    torch.testing.assert_close(loss(query, key), class_of_loss()(*unit_rows[:2]))
    torch.testing.assert_close(loss(query, key, queue), class_of_loss()(*unit_rows))
    torch.testing.assert_close(loss(query.half(), key), loss(query.half().float(), key))
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(query.bfloat16(), key.bfloat16(), queue).dtype == torch.float32
    assert "normalize=True" in repr(loss)


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_invalid_input_raises_an_error_that_names_it(name: str) -> None:
    loss: ContrastiveLoss = choices("loss")[name]().build()
    query, key, negatives = unit(2, 8, 0), unit(2, 8, 1), unit(4, 8, 2)
    with pytest.raises(ValueError, match=r"query and key must both be \(B, D\): got \(2, 8\) and \(3, 8\)"):
        loss(query, unit(3, 8, 0), negatives)
    with pytest.raises(ValueError, match=r"negatives must be \(N, 8\) like the query: got \(4, 9\)"):
        loss(query, key, unit(4, 9, 0))
    with pytest.raises(ValueError, match=r"there are no negatives: pass .* such as a queue, or at least 2 samples"):
        loss(query[:1], key[:1])
    with pytest.raises(ValueError, match="there are no negatives"):
        loss(query[:1], key[:1], batch_keys=key[:1])
    with pytest.raises(ValueError, match="negatives is empty"):
        loss(query, key, negatives[:0])
    with pytest.raises(ValueError, match="batch_offset=1: the 2 samples"):
        loss(query, key, batch_keys=key, batch_offset=1)
    with pytest.raises(ValueError, match=r"negatives must be of a floating-point type: got torch.int64"):
        loss(query, key, negatives.long())
    for arguments in ((query, 3 * key, negatives), (query, 3 * key)):
        with pytest.raises(ValueError, match=r"key must hold unit vectors, .* from 3 to 3: pass normalize=True to the"):
            choices("loss")[name]().build()(*arguments)
    with pytest.raises(ValueError, match=r"query and key are empty, \(0, 8\)"):
        loss(query[:0], key[:0], negatives)
    with pytest.raises(ValueError, match=r"query and key must both be \(B, D\): got \(3, 8\) and \(2, 8\)"):
        loss.over_pairs(ViewPairs([query, unit(3, 8, 0)], [key], [(1, 0)], negatives))


@pytest.mark.parametrize("name", CONTRASTIVE)
@pytest.mark.parametrize("calls_before", [0, 1])
def test_nan_is_reported_with_the_name_of_its_tensor_on_any_call(name: str, calls_before: int) -> None:
    loss: ContrastiveLoss = choices("loss")[name]().build()
    inputs: dict[str, Any] = {"query": unit(2, 8, 0), "key": unit(2, 8, 1)}
    inputs |= {"negatives": unit(4, 8, 2), "batch_keys": unit(5, 8, 3)}
    for invalid_name in inputs:
        for _ in range(calls_before):
            loss(**inputs)
        rows = inputs[invalid_name].clone()
        rows[-1, 3] = torch.nan
        with pytest.raises(ValueError, match=f"{invalid_name} has NaN or infinite values in 1 of {len(rows)} rows"):
            loss(**inputs | {invalid_name: rows})


def test_cosine_reports_infinite_keys() -> None:
    with pytest.raises(ValueError, match="key has NaN or infinite values in 2 of 2 rows"):
        CosineLoss()(unit(2, 8, 0), unit(2, 8, 1) * torch.inf)


def test_cosine_rejects_raw_embeddings() -> None:
    with pytest.raises(ValueError, match=r"query must hold unit vectors, .*normalize=True"):
        CosineLoss()(3 * unit(2, 8, 0), unit(2, 8, 1))


def test_cosine_matches_hand_computation() -> None:
    x, y, _ = torch.eye(3)
    loss = CosineLoss()
    assert loss(x[None], x[None]).item() == 0
    assert loss(torch.stack([x, x]), torch.stack([y, -x])).item() == pytest.approx((2 + 4) / 2)


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"target_temperature": -1}, {"positive_weight": 1.5}])
def test_invalid_settings_name_the_setting_and_its_value(settings: dict[str, Any]) -> None:
    (name, value) = next(iter(settings.items()))
    with pytest.raises(ValueError, match=rf"{name}={value}"):
        SCELoss(**settings)


@pytest.mark.parametrize("name", choices("loss"))
def test_constructor_and_config_have_the_same_defaults(name: str) -> None:
    config = choices("loss")[name]()
    loss = config.build()
    assert {key: getattr(loss, key) for key in vars(config)} == vars(config)
    assert repr(type(loss)()) == repr(loss)


@pytest.mark.real_data
def test_losses_match_the_public_code(shared: Path) -> None:
    """Compare values and gradients.

    Without in-batch keys, the public code includes the positive in the relation, with similarity 0. Its probability
    there adds to the weight of the positive, by a different amount for each sample.
    """
    recorded, arrays = json.loads((shared / "vectors/losses.json").read_text()), np.load(shared / "vectors/losses.npz")
    assert recorded["cases"]
    for case in recorded["cases"]:
        params = case["params"]
        if case["loss"] == "sce":
            loss: ContrastiveLoss = SCELoss(params["temp"], params["temp_m"], params["coeff"])
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
            queue = None  # MoCo v3 has no queue
        offset = params.get("rank", 0) * len(query)
        batch_keys = keys if params.get("use_keys", True) else None
        key = keys[offset : offset + len(query)]
        if case["loss"] == "sce" and not params["use_keys"]:
            assert queue is not None
            value = sce_with_positive_in_relation(params, query, key, queue)
        else:
            value = loss(query, key, queue, batch_keys, offset)
        assert value.item() == pytest.approx(case["loss_f64"], rel=1e-7), case["case"]
        if f"{case['case']}/grad_q" in arrays:
            value.backward()
            expected = torch.from_numpy(arrays[f"{case['case']}/grad_q"]).double()
            torch.testing.assert_close(query.grad, expected, rtol=1e-5, atol=1e-7)


def sce_with_positive_in_relation(params: dict[str, float], query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    """Return SCE with the positive in the relation at similarity 0, by giving each sample its own positive weight."""
    in_relation = F.softmax(F.pad(key @ queue.T / params["temp_m"], (1, 0)), dim=1)[:, 0]
    weights = params["coeff"] + (1 - params["coeff"]) * in_relation
    terms = [
        SCELoss(params["temp"], params["temp_m"], weight)(query[i : i + 1], key[i : i + 1], queue)
        for i, weight in enumerate(weights.tolist())
    ]
    return torch.stack(terms).mean()
