"""Features and probabilities are means over the clips and crops of each record."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from eztorch_sce.data.collate import collate
from eztorch_sce.data.loading import TimedLoader
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import Records
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.evaluation.classifier import classifier_accuracy
from eztorch_sce.evaluation.features import RecordViews, mean_over_views, record_features
from eztorch_sce.evaluation.search import CPU
from eztorch_sce.models.backbones.base import as_backbone
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.types import Failure, FeatureBank, InputSpec, MediaRecord, Sample

NUM_VIEWS, NUM_CLASSES, NUM_PIXELS = 30, 4, 3 * 2 * 4 * 4
SPEC = InputSpec(num_frames=2, size=4, stats="video")


def draw_samples(count: int) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, NUM_VIEWS, 3, 2, 4, 4), generator=generator, dtype=torch.uint8)
    return [Sample(list(views), label=n % 3, record=n, epoch=0, aspect=1.0) for n, views in enumerate(pixels)]


def record_views(items: list[Sample | Failure]) -> RecordViews:
    """Return the views of records with files 0.mp4, 1.mp4 and so on."""
    records = [MediaRecord(f"{n}.mp4", n % 3, "video") for n in range(len(items))]
    loader = TimedLoader(items, batch_size=3, collate_fn=collate)  # type: ignore[arg-type]  # a list is a dataset
    return RecordViews(Manifest(Records.of(records), ["a", "b", "c"], "here"), SPEC, loader, {"clips": 10}, "test")


class Network(nn.Module):
    """A linear layer on all pixels, with dropout that an evaluation must switch off."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.dropout = nn.Linear(NUM_PIXELS, NUM_CLASSES), nn.Dropout(0.5)

    def forward(self, clips: Tensor) -> Tensor:
        logits: Tensor = self.dropout(self.linear(clips.flatten(start_dim=1)))
        return logits


def slow_logits(network: Network, view: Tensor) -> list[float]:
    """Return the logits of one uint8 view in Python floats; the video statistics are 0.45 and 0.225."""
    pixels = [(value / 255 - 0.45) / 0.225 for value in view.flatten().tolist()]
    rows, biases = network.linear.weight.tolist(), network.linear.bias.tolist()
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
    samples, network = draw_samples(7), Network()
    means, records = mean_over_views(network, lambda logits: logits.softmax(dim=1), record_views([*samples]), CPU)
    assert records.tolist() == list(range(7))
    for sample, row in zip(samples, means, strict=True):
        expected = mean([softmax(slow_logits(network, view)) for view in sample.frames])
        assert row.tolist() == pytest.approx(expected, abs=1e-6)


def test_features_come_in_the_order_of_the_manifest() -> None:
    samples, network = draw_samples(7), Network()
    bank = record_features(network, record_views([*reversed(samples)]), CPU)
    for sample, feature in zip(samples, bank.features, strict=True):
        expected = mean([slow_logits(network, view) for view in sample.frames])
        assert feature.tolist() == pytest.approx(expected, abs=1e-5)
    assert bank.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert bank.paths == [f"{n}.mp4" for n in range(7)]
    assert bank.protocol == {"clips": 10}


def test_a_network_that_runs_out_of_memory_goes_on_with_fewer_clips(capsys: pytest.CaptureFixture[str]) -> None:
    samples, network = draw_samples(7), Network()
    expected, _ = mean_over_views(network, lambda output: output, record_views([*samples]), CPU)
    sizes = []

    def run_out(module: nn.Module, inputs: tuple[Tensor]) -> None:
        sizes.append(len(inputs[0]))
        if sizes[-1] > 25:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    network.register_forward_pre_hook(run_out)
    means, records = mean_over_views(network, lambda output: output, record_views([*samples]), CPU)
    torch.testing.assert_close(means, expected)
    assert records.tolist() == list(range(7))
    assert sizes == [90, 45, *[18] * 5, *[18] * 5, *[15] * 2]  # thirty views of 3, 3 and 1 records
    assert "note: 90 clips at once do not fit in memory; continuing with 45" in capsys.readouterr().err


def test_a_network_without_room_for_one_clip_ends() -> None:
    def run_out(module: nn.Module, inputs: tuple[Tensor]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    network = Network()
    network.register_forward_pre_hook(run_out)
    with pytest.raises(torch.OutOfMemoryError):
        mean_over_views(network, lambda output: output, record_views([*draw_samples(1)]), CPU)


def test_an_unreadable_file_stops_the_evaluation() -> None:
    views = record_views([*draw_samples(4), Failure(4, "bad.mp4", "it ends early")])
    with pytest.raises(MediaError, match=r"bad\.mp4: it ends early.*requires every record: repair it"):
        mean_over_views(Network(), lambda logits: logits, views, CPU)


@pytest.mark.parametrize("bad", [[2], [0, 1, 2, 3]])
def test_records_with_features_that_are_not_finite_are_named(bad: list[int]) -> None:
    network, samples = Network(), draw_samples(4)
    white = [sample._replace(frames=[torch.full_like(view, 255) for view in sample.frames]) for sample in samples]
    items = [white[record] if record in bad else sample for record, sample in enumerate(samples)]

    def spoil(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return output.masked_fill(inputs[0].flatten(start_dim=1).amin(dim=1, keepdim=True) > 2, torch.inf)

    network.register_forward_hook(spoil)
    names = ", ".join(f"{n}.mp4" for n in bad[:3])
    with pytest.raises(ConfigError, match=rf"here has NaN or infinite features \({len(bad)} of 4: {names}"):
        record_features(network, record_views([*items]), CPU)


def test_a_classifier_that_returns_nan_is_not_scored() -> None:
    views = record_views([*draw_samples(4)])
    classifier = Classifier(as_backbone(Network(), views.spec.num_frames, views.spec.size), num_classes=3)
    classifier.linear.weight.data.fill_(torch.inf)
    with pytest.raises(ConfigError, match=r"NaN or infinite scores \(4 of 4: 0.mp4.*check the weights"):
        classifier_accuracy(classifier, views, CPU)


def test_the_features_stand_beside_the_probabilities_of_a_classifier() -> None:
    views = record_views([*draw_samples(4)])
    classifier = Classifier(as_backbone(Network(), views.spec.num_frames, views.spec.size), num_classes=3).eval()
    scores, bank = classifier_accuracy(classifier, views, CPU)
    torch.testing.assert_close(bank.features, record_features(classifier.backbone, views, CPU).features)
    probabilities, _ = mean_over_views(classifier, lambda logits: logits.softmax(dim=1), views, CPU)
    assert scores.predictions is not None
    torch.testing.assert_close(scores.predictions.score, probabilities.amax(dim=1))
    assert torch.equal(scores.predictions.predicted, probabilities.argmax(dim=1))


def test_a_saved_bank_loads_again(tmp_path: Path) -> None:
    saved = record_features(Network(), record_views([*draw_samples(4)]), CPU)
    saved.save(tmp_path / "features_train.pt")
    loaded = FeatureBank.load(tmp_path / "features_train.pt")
    assert torch.equal(loaded.features, saved.features)
    assert (loaded.paths, loaded.classes, loaded.protocol) == (saved.paths, saved.classes, saved.protocol)
