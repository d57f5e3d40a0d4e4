"""Tests of the embedding diagnostics at the ends of their ranges."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eztorch_sce.evaluation.diagnostics import embedding_diagnostics
from eztorch_sce.evaluation.health import verdict


def diagnose(embeddings: Tensor) -> dict[str, float]:
    return {name: value.item() for name, value in embedding_diagnostics(embeddings).items()}


def on_a_line() -> Tensor:
    """Return (32, 64) unit vectors, half of them the negative of the other half."""
    rows = torch.zeros(32, 64)
    rows[:, 0] = torch.tensor([1.0, -1.0]).repeat(16)
    return rows


def test_embeddings_over_the_whole_sphere_are_healthy() -> None:
    rows = F.normalize(torch.randn(256, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    metrics = diagnose(rows)
    assert metrics["spread"] == pytest.approx(1, abs=0.02)
    assert 55 < metrics["effective_rank"] <= 64
    assert metrics["uniformity"] == pytest.approx(-4, abs=0.15)
    assert verdict(metrics) is None


def test_embeddings_at_one_point_are_reported_as_collapsed() -> None:
    rows = F.normalize(torch.ones(32, 64), dim=1) + 1e-4 * torch.randn(32, 64)
    metrics = diagnose(F.normalize(rows, dim=1))
    assert metrics["uniformity"] == pytest.approx(0, abs=1e-3)
    assert "nearly coincide" in (verdict(metrics) or "")


def test_embeddings_on_one_line_are_reported_as_collapsing() -> None:
    metrics = diagnose(on_a_line())
    assert metrics["effective_rank"] == pytest.approx(1, abs=0.01)
    assert "1.0 dimensions" in (verdict(metrics) or "")


def test_the_effective_rank_of_four_equally_used_directions_is_four() -> None:
    directions = torch.eye(16)[:4]
    metrics = diagnose(torch.cat([directions, -directions]))
    assert metrics["effective_rank"] == pytest.approx(4, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_change_the_diagnostics(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(128, 4, generator=generator)).Q.T
    rows = F.normalize(torch.randn(256, 4, generator=generator), dim=1) @ basis  # rank 4
    with torch.autocast("cpu", dtype):
        assert (rows @ rows.T).dtype == dtype  # autocast is on
        under_autocast = diagnose(rows)
    assert under_autocast == diagnose(rows)
    assert under_autocast["effective_rank"] == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_collapse_is_detected_under_autocast(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    line = F.normalize(torch.randn(64, generator=generator), dim=0)
    rows = F.normalize(torch.randn(256, 1, generator=generator).sign() * line + 1e-4, dim=1)
    with torch.autocast("cpu", dtype):
        assert "collapsing" in (verdict(diagnose(rows)) or "")


def test_half_precision_embeddings_are_diagnosed_in_single_precision() -> None:
    metrics = embedding_diagnostics(on_a_line().bfloat16())
    assert {value.dtype for value in metrics.values()} == {torch.float32}


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_non_finite_embeddings_are_reported(value: float) -> None:
    rows = torch.eye(64)
    rows[3, 5] = value
    assert "NaN" in (verdict(diagnose(rows)) or "")
