"""Several processes over gloo return the same results as one process, however the queries are split among them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from process_groups import run_in_process_groups
from torch import Tensor, nn

from eztorch_sce import distributed
from eztorch_sce.data.collate import collate
from eztorch_sce.data.dataset import EpochSampler
from eztorch_sce.data.loading import TimedLoader
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import Records
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.evaluation.features import RecordViews, mean_over_views
from eztorch_sce.evaluation.knn import knn_accuracy
from eztorch_sce.evaluation.retrieval import average_precisions, retrieval
from eztorch_sce.evaluation.search import CPU, QUERY_CHUNK, nearest_neighbors
from eztorch_sce.types import FeatureBank, InputSpec, Sample

NUM_QUERIES = (
    2 * QUERY_CHUNK + 70
)  # three chunks, the last one smaller: two processes have different numbers of queries
NUM_RECORDS = 9  # in batches of two: the first of two processes has three batches, the second two


def draw_bank(count: int, seed: int) -> FeatureBank:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (count,), generator=generator)
    features = 0.5 + torch.eye(5, 16)[labels] + torch.randn(count, 16, generator=generator)
    return FeatureBank(features, labels, [""] * count, list("abcde"))


class Videos:
    """Records of two views, indexed by (epoch, record) as the sampler does."""

    def __len__(self) -> int:
        return NUM_RECORDS

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        generator = torch.Generator().manual_seed(key[1])
        views = torch.randint(256, (2, 3, 1, 4, 4), generator=generator, dtype=torch.uint8)
        return Sample(list(views), label=0, record=key[1], epoch=key[0], aspect=1.0)


def mean_features() -> dict[int, Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    sampler = EpochSampler(NUM_RECORDS, seed=0, shuffle=False)
    loader = TimedLoader(Videos(), batch_size=2, sampler=sampler, collate_fn=collate)  # type: ignore[arg-type]
    views = RecordViews(Manifest(Records.of([]), [], "here"), InputSpec(num_frames=1, size=4), loader, {}, "test")
    features, records = mean_over_views(network, lambda output: output, views, CPU)
    return dict(zip(records.tolist(), features, strict=True))


def evaluate() -> dict[str, Any]:
    """Return all results that must be the same in every process."""
    train, test = draw_bank(1000, seed=0), draw_bank(NUM_QUERIES, seed=1)
    scores = retrieval(train, test)
    return {
        "neighbors": list(nearest_neighbors(train.features, test.features, 20, centered=True)),
        "precisions": average_precisions(train, test),
        "knn": knn_accuracy(train, test, k=20, temperature=0.07),
        "metrics": scores.metrics,
        "by_class": scores.by_class,
        "features": mean_features(),
    }


def run_process(rank: int, world_size: int) -> dict[str, Any]:
    """Evaluate as one of several processes."""
    results = evaluate()
    distributed._GATHERED_BYTES = 64 * world_size  # four of the rows of each process at once
    results["in pieces"] = mean_features()
    results["some"] = distributed.gather_rows_of_some([torch.ones(2, 3)] * (rank == 0), CPU)
    results["error"] = error_of(lambda: distributed.raise_together(MediaError("a.png", "cut") if rank == 1 else None))
    results["decision"] = distributed.decide_together(lambda: f"by {rank}")
    results["refusal"] = error_of(lambda: distributed.decide_together(refuse))
    return results


def error_of(action: Callable[[], object]) -> str:
    with pytest.raises((ConfigError, MediaError)) as error:
        action()
    return str(error.value)


def refuse() -> str:
    raise ConfigError(["run.dir=x already contains a run"])


def test_several_processes_agree_with_one(tmp_path: Path) -> None:
    alone = evaluate()
    assert 0.3 < alone["knn"]["knn_top1"] < 0.9  # hard enough for mistakes to show
    shared = {"error": "a.png: cut", "decision": "by 0", "refusal": "- run.dir=x already contains a run"}
    groups = run_in_process_groups(__file__, tmp_path)
    assert sorted(groups) == [2, 4]  # the first of four has no query
    for together in (results for group in groups.values() for results in group):
        assert torch.equal(together.pop("some"), torch.ones(2, 3))  # of which only the first process had any
        assert {name: together.pop(name) for name in shared} == shared
        torch.testing.assert_close(together.pop("in pieces"), alone["features"])
        assert torch.equal(together["neighbors"][1], alone["neighbors"][1])
        torch.testing.assert_close(together, alone)
