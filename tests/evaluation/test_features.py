"""Features and softmax are means over views: of each record, all of its views and no other's."""

import math

import pytest
import torch
from torch import Tensor, nn

from eztorch_sce.data.collate import collate
from eztorch_sce.data.loading import TimedLoader
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.errors import MediaError
from eztorch_sce.evaluation.features import extract_features, mean_over_views
from eztorch_sce.types import Failure, InputSpec, MediaRecord, Sample

NUM_VIEWS, NUM_CLASSES, SPEC = 30, 4, InputSpec(num_frames=2, size=4, stats="video")
CPU = torch.device("cpu")


def samples(count: int) -> list[Sample | Failure]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, NUM_VIEWS, 3, 2, 4, 4), generator=generator, dtype=torch.uint8)
    return [Sample(list(views), label=n % 3, record=n, epoch=0, aspect=1.0) for n, views in enumerate(pixels)]


def loader(items: list[Sample | Failure]) -> TimedLoader:
    return TimedLoader(items, batch_size=3, collate_fn=collate)  # type: ignore[arg-type]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 4 * 4, NUM_CLASSES), nn.Dropout(0.5))


def slow_logits(model: nn.Module, view: Tensor) -> list[float]:
    """Return the logits of one uint8 view by sums of Python's floats; video statistics are 0.45 and 0.225."""
    pixels = [(value / 255 - 0.45) / 0.225 for value in view.flatten().tolist()]
    rows, biases = model[1].weight.tolist(), model[1].bias.tolist()  # type: ignore[index]
    return [
        math.fsum([bias, *(w * p for w, p in zip(row, pixels, strict=True))])
        for row, bias in zip(rows, biases, strict=True)
    ]


def softmax(logits: list[float]) -> list[float]:
    exponentials = [math.exp(logit) for logit in logits]
    return [x / math.fsum(exponentials) for x in exponentials]


def mean(rows: list[list[float]]) -> list[float]:
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def test_the_mean_of_thirty_softmaxes_equals_a_loop() -> None:
    items, model = samples(7), network()
    scores, records = mean_over_views(model, lambda logits: logits.softmax(dim=1), SPEC, loader(items), CPU, "test")
    assert records.tolist() == list(range(7))
    for item, score in zip(items, scores, strict=True):
        wanted = mean([softmax(slow_logits(model, view)) for view in item.frames])  # type: ignore[union-attr]
        assert score.tolist() == pytest.approx(wanted, abs=1e-6)


def test_features_are_means_in_the_order_of_the_manifest() -> None:
    items, model = samples(7), network()
    manifest = Manifest([MediaRecord(f"{n}.mp4", n % 3, "video") for n in range(7)], ["a", "b", "c"], "here")
    found = extract_features(model, SPEC, loader(items[::-1]), manifest, CPU, {"clips": 10}, "test")
    for item, feature in zip(items, found.features, strict=True):
        wanted = mean([slow_logits(model, view) for view in item.frames])  # type: ignore[union-attr]
        assert feature.tolist() == pytest.approx(wanted, abs=1e-5)
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert found.paths == [record.path for record in manifest.records]


def test_a_file_that_cannot_be_read_is_named() -> None:
    items = [*samples(4), Failure(4, "bad.mp4", "it ends early")]
    with pytest.raises(MediaError, match=r"bad\.mp4: it ends early.*no file out"):
        mean_over_views(network(), lambda logits: logits, SPEC, loader(items), CPU, "test")
