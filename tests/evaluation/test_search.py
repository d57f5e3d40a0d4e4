"""The nearest neighbors equal those of a loop, whatever the chunks and the storage of the bank."""

import math
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation import search
from eztorch_sce.evaluation.search import nearest_neighbors
from eztorch_sce.types import FeatureBank


def random_rows(count: int, dim: int, seed: int) -> Tensor:
    return 0.5 + torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def less_mean(rows: list[list[float]]) -> list[list[float]]:
    means = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
    return [[x - mean for x, mean in zip(row, means, strict=True)] for row in rows]


def cosine(x: list[float], y: list[float]) -> float:
    product = math.fsum(a * b for a, b in zip(x, y, strict=True))
    return product / math.sqrt(math.fsum(a * a for a in x) * math.fsum(b * b for b in y))


def slow_cosines(bank: Tensor, queries: Tensor, centered: bool) -> list[list[float]]:
    bank_rows, query_rows = bank.tolist(), queries.tolist()
    if centered:
        bank_rows, query_rows = less_mean(bank_rows), less_mean(query_rows)
    return [[cosine(query, row) for row in bank_rows] for query in query_rows]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "BANK_CHUNK", 7)
    monkeypatch.setattr(search, "QUERY_CHUNK", 3)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("k", [1, 6, 7, 20, 40, 1000])
def test_neighbors_equal_a_loop(small_chunks: None, k: int, centered: bool) -> None:
    bank, queries = random_rows(40, 5, seed=0), random_rows(11, 5, seed=1)
    neighbors = nearest_neighbors(bank, queries, k, centered)
    assert neighbors.indices.shape == (11, min(k, 40))
    for cosines, similarity, indices in zip(slow_cosines(bank, queries, centered), *neighbors, strict=True):
        order = sorted(range(40), key=lambda row: -cosines[row])[:k]
        assert indices.tolist() == order
        assert similarity.tolist() == pytest.approx([cosines[row] for row in order], abs=1e-6)


def test_a_bank_of_several_chunks_equals_one_matrix_product() -> None:
    bank, queries = random_rows(2 * search.BANK_CHUNK + 9, 4, seed=0), random_rows(search.QUERY_CHUNK + 5, 4, seed=1)
    bank[-1] = queries[-1]
    neighbors = nearest_neighbors(bank, queries, k=50)
    unit_bank, unit_queries = (rows.double() / rows.double().norm(dim=1, keepdim=True) for rows in (bank, queries))
    cosines = unit_queries @ unit_bank.T
    torch.testing.assert_close(neighbors.similarity, cosines.topk(50).values.float(), rtol=0, atol=1e-6)
    at_indices = cosines.gather(1, neighbors.indices).float()
    torch.testing.assert_close(at_indices, neighbors.similarity, rtol=0, atol=1e-6)
    assert neighbors.indices[-1, 0] == len(bank) - 1
    assert all(len(set(row)) == 50 for row in neighbors.indices.tolist())


@pytest.mark.parametrize("k", [1, 5, 7, 8, 15, 24])
def test_equal_rows_rank_by_their_index(small_chunks: None, k: int) -> None:
    x, y = torch.eye(2)
    bank = torch.stack([y, *[x] * 10, y, *[x] * 12])  # x is at 1 to 10 and 12 to 23
    indices = nearest_neighbors(bank, x[None], k).indices[0].tolist()
    assert indices == [*range(1, 11), *range(12, 24), 0, 11][:k]


@pytest.mark.parametrize("k", [30, 31, 300])
def test_equal_rows_in_distant_chunks_rank_by_their_index(k: int) -> None:
    x, y = torch.eye(2)
    bank = y.repeat(5000, 1)
    rows = torch.randperm(5000, generator=torch.Generator().manual_seed(0))[:30].sort().values
    bank[rows] = x
    others = [row for row in range(5000) if row not in rows.tolist()]
    assert nearest_neighbors(bank, x[None], k).indices[0].tolist() == [*rows.tolist(), *others][:k]


def test_a_memory_mapped_bank_gives_the_same_neighbors(small_chunks: None, tmp_path: Path) -> None:
    bank, queries = random_rows(40, 5, seed=0), random_rows(11, 5, seed=1)
    FeatureBank(bank, torch.zeros(40, dtype=torch.long), [], []).save(tmp_path / "bank.pt")
    mapped = FeatureBank.load(tmp_path / "bank.pt").features
    if sys.platform == "linux":  # /proc lists the mapped files of a process
        assert str(tmp_path / "bank.pt") in Path("/proc/self/maps").read_text()
    for centered in (False, True):
        expected = nearest_neighbors(bank, queries, 9, centered)
        actual = nearest_neighbors(mapped, queries, 9, centered)
        assert torch.equal(actual.similarity, expected.similarity)
        assert torch.equal(actual.indices, expected.indices)


def test_a_search_changes_neither_bank_nor_queries() -> None:
    bank, queries = random_rows(40, 5, seed=0), random_rows(11, 5, seed=1)
    nearest_neighbors(bank, queries, 3, centered=True)
    assert torch.equal(bank, random_rows(40, 5, seed=0))
    assert torch.equal(queries, random_rows(11, 5, seed=1))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_raise_config_error(value: float) -> None:
    bank, queries = random_rows(40, 5, seed=0), random_rows(11, 5, seed=1)
    bank[30, 2] = value
    with pytest.raises(ConfigError, match="NaN or infinity"):
        nearest_neighbors(bank, queries, 3)


@pytest.mark.parametrize("k", [1, 5, 40, 700])
def test_the_search_without_waits_finds_the_same_neighbors(small_chunks: None, k: int) -> None:
    """Among them are equal, opposite and orthogonal rows, with similarities of 0 and -0, and rows of zeros."""
    axes = torch.eye(8)
    bank = torch.cat([random_rows(500, 8, seed=0), axes, -axes, axes, torch.zeros(5, 8), random_rows(200, 8, seed=0)])
    queries = torch.cat([axes, -axes, random_rows(5, 8, seed=1), torch.zeros(1, 8)])
    expected = nearest_neighbors(bank, queries, k)
    actual = search._search_without_waits(bank, queries, k, search.find_centers(bank, queries, False, search.CPU))
    assert torch.equal(actual.indices, expected.indices)
    assert torch.equal(actual.similarity, expected.similarity)


def test_similarities_are_exact_where_products_are_in_tf32_or_autocast() -> None:
    class Products(TorchDispatchMode):
        """Note the precision of matrix products."""

        seen: ClassVar[set[tuple[str, torch.dtype]]] = set()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.mm.default:
                self.seen.add((torch.get_float32_matmul_precision(), args[0].dtype))
            return func(*args, **(kwargs or {}))

    bank, queries = random_rows(40, 5, seed=0), random_rows(11, 5, seed=1)
    torch.set_float32_matmul_precision("high")
    try:
        with Products(), torch.autocast("cpu", torch.bfloat16):  # type: ignore[no-untyped-call]
            nearest_neighbors(bank, queries, 3)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert Products.seen == {("highest", torch.float32)}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_returns_the_same_neighbors() -> None:
    bank, queries = random_rows(40000, 64, seed=0), random_rows(300, 64, seed=1)
    on_cpu = nearest_neighbors(bank, queries, 10, centered=True)
    on_gpu = nearest_neighbors(bank, queries, 10, centered=True, device=torch.device("cuda"))
    torch.testing.assert_close(on_gpu.similarity, on_cpu.similarity, rtol=0, atol=1e-5)
    assert (on_gpu.indices == on_cpu.indices).float().mean() > 0.999
