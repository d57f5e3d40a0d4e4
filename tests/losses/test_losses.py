"""The objectives, against sums by hand, limits, and the numbers of the public code."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eztorch_sce.losses.infonce import InfoNCELoss
from eztorch_sce.losses.sce import SCELoss
from eztorch_sce.registry import choices


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


@pytest.mark.parametrize("name", choices("loss"))
def test_only_the_query_learns_and_the_order_of_negatives_does_not_matter(name: str) -> None:
    loss: nn.Module = choices("loss")[name]().build()
    query, key, negatives = (unit(n, 16, n).requires_grad_() for n in (8, 8, 32))
    # Each its own tensor: unit() draws by seed, and 8 is drawn twice.
    key = unit(8, 16, 99).requires_grad_()
    value = loss(query, key, negatives)
    value.backward()
    assert query.grad is not None
    assert query.grad.abs().sum() > 0
    assert key.grad is None
    assert negatives.grad is None
    torch.testing.assert_close(loss(query, key, negatives.flip(0)), value)


@pytest.mark.parametrize("name", choices("loss"))
def test_a_batch_that_serves_as_negatives_equals_the_others_as_a_queue(name: str) -> None:
    loss: nn.Module = choices("loss")[name]().build()
    query, key = unit(3, 16, 0), unit(3, 16, 1)
    one_by_one = [loss(query[i : i + 1], key[i : i + 1], key[[j for j in range(3) if j != i]]) for i in range(3)]
    torch.testing.assert_close(loss(query, key, batch_keys=key), torch.stack(one_by_one).mean())


@pytest.mark.parametrize("name", choices("loss"))
def test_impossible_input_is_refused_in_words(name: str) -> None:
    loss: nn.Module = choices("loss")[name]().build()
    with pytest.raises(ValueError, match=r"query and key must both be \(B, D\)"):
        loss(unit(2, 8, 0), unit(3, 8, 0), unit(4, 8, 0))
    with pytest.raises(ValueError, match=r"negatives must be \(N, 8\)"):
        loss(unit(2, 8, 0), unit(2, 8, 1), unit(4, 9, 0))
    with pytest.raises(ValueError, match="nothing to contrast with"):
        loss(unit(2, 8, 0), unit(2, 8, 1))


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"target_temperature": -1}, {"positive_weight": 1.5}])
def test_impossible_settings_name_the_setting_and_the_value(settings: dict[str, float]) -> None:
    (name, value) = next(iter(settings.items()))
    with pytest.raises(ValueError, match=rf"{name}={value}"):
        SCELoss(**settings)


@pytest.mark.real_data
def test_public_values(shared: Path) -> None:
    """The public code's losses and gradients; without in-batch keys its target has the positive in, with logit 0."""
    recorded, arrays = json.loads((shared / "vectors/losses.json").read_text()), np.load(shared / "vectors/losses.npz")
    checked = 0
    for case in recorded["cases"]:
        params = case["params"]
        if case["loss"] == "sce" and params["use_keys"]:
            loss: nn.Module = SCELoss(params["temp"], params["temp_m"], params["coeff"])
        elif case["loss"] == "moco":
            loss = InfoNCELoss(params["temp"])
        else:
            continue
        geometry = case["geometry"]
        query = torch.from_numpy(arrays[f"{geometry}/q"]).double().requires_grad_()
        keys = torch.from_numpy(arrays[f"{geometry}/k_global"]).double()
        queue = torch.from_numpy(arrays[f"{geometry}/queue"]).double() if f"{geometry}/queue" in arrays else None
        if queue is not None and len(queue) == 0:
            queue = None
        offset = params.get("rank", 0) * len(query)
        batch_keys = keys if params.get("use_keys") else None
        value = loss(query, keys[offset : offset + len(query)], queue, batch_keys, offset)
        assert value.item() == pytest.approx(case["loss_f64"], rel=1e-7), case["case"]
        if f"{case['case']}/grad_q" in arrays:
            value.backward()
            expected = torch.from_numpy(arrays[f"{case['case']}/grad_q"]).double()
            torch.testing.assert_close(query.grad, expected, rtol=1e-5, atol=1e-7)
        checked += 1
    assert checked >= 4
