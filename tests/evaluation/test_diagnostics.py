"""Diagnostics of embeddings at the ends of their ranges."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eztorch_sce.evaluation.diagnostics import embedding_diagnostics, verdict


def looked_at(embeddings: Tensor) -> dict[str, float]:
    return {name: value.item() for name, value in embedding_diagnostics(embeddings).items()}


def test_embeddings_all_over_the_sphere_are_healthy() -> None:
    rows = F.normalize(torch.randn(256, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    seen = looked_at(rows)
    assert seen["spread"] == pytest.approx(1, abs=0.02)
    assert 55 < seen["effective_rank"] <= 64
    assert seen["uniformity"] == pytest.approx(-4, abs=0.15)
    assert verdict(seen) is None


def test_one_point_is_called_collapsed() -> None:
    rows = F.normalize(torch.ones(32, 64), dim=1) + 1e-4 * torch.randn(32, 64)
    seen = looked_at(F.normalize(rows, dim=1))
    assert seen["uniformity"] == pytest.approx(0, abs=1e-3)
    assert "nearly one point" in (verdict(seen) or "")


def test_one_line_is_called_collapsing() -> None:
    rows = torch.zeros(32, 64)
    rows[:, 0] = torch.tensor([1.0, -1.0]).repeat(16)
    seen = looked_at(rows)
    assert seen["effective_rank"] == pytest.approx(1, abs=0.01)
    assert "1.0 dimensions" in (verdict(seen) or "")


def test_known_rank() -> None:
    """Four directions, equally used and centered, are four dimensions."""
    directions = torch.eye(16)[:4]
    seen = looked_at(torch.cat([directions, -directions]))
    assert seen["effective_rank"] == pytest.approx(4, rel=1e-4)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_is_named(value: float) -> None:
    rows = torch.eye(64)
    rows[3, 5] = value
    assert "NaN" in (verdict(looked_at(rows)) or "")
