"""On a GPU, evaluations wait for it a fixed number of times, however many batches, steps or blocks they take."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("fake_gpu", exc_type=ImportError)
from fake_gpu import CUDA, FakeGPU, fake_gpu
from torch.utils.data._utils.pin_memory import pin_memory

from eztorch_sce.data.collate import collate
from eztorch_sce.data.loading import TimedLoader
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import Records
from eztorch_sce.evaluation import linear, retrieval, search
from eztorch_sce.evaluation.features import RecordViews, mean_over_views
from eztorch_sce.evaluation.few_shot import few_shot_accuracy
from eztorch_sce.evaluation.linear import Probe
from eztorch_sce.types import Batch, FeatureBank, InputSpec, Sample

SMALL = 2**24  # bytes; the banks below do not fit in half of them
LARGE = 2**34


@pytest.fixture(params=[SMALL, LARGE], ids=["a bank in chunks", "a bank on the device"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGPU]:
    """Return a fake GPU with little and with much memory."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (request.param, request.param))
    with fake_gpu() as counts:
        yield counts


def draw_bank(count: int) -> FeatureBank:
    return FeatureBank(torch.rand(count, 256), torch.arange(count) % 40, [""] * count, [str(n) for n in range(40)])


def waits_of(gpu: FakeGPU, work: Callable[[], object]) -> int:
    gpu.clear()
    work()
    assert not gpu.failures
    return gpu.num_waits


class PinnedLoader(TimedLoader):
    """Loader that pins its batches itself, since torch does so only where there is a GPU."""

    def feed(self, device: torch.device) -> None:
        assert device == CUDA

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return map(pin_memory, super().__iter__())


class Network(nn.Module):
    """A convolution that notes the layout and the precision that it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(3, 8, 3)
        self.calls: list[tuple[int, bool, torch.dtype]] = []

    def forward(self, clips: Tensor) -> Tensor:
        maps: Tensor = self.convolution(clips)
        is_last = all(
            each.is_contiguous(memory_format=torch.channels_last_3d) for each in (clips, self.convolution.weight)
        )
        self.calls.append((len(clips), is_last, maps.dtype))
        return maps.mean(dim=(2, 3, 4))


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_features_wait_for_no_batch(gpu: FakeGPU, precision: str, dtype: torch.dtype) -> None:
    spec, manifest = InputSpec(num_frames=4, size=8), Manifest(Records.of([]), [], "here")

    def extract(num_batches: int) -> Network:
        network = Network()
        frames = [torch.zeros(3, 4, 8, 8, dtype=torch.uint8)] * 6
        samples = [Sample(frames, label=0, record=number, epoch=0, aspect=1.0) for number in range(5 * num_batches)]
        loader = PinnedLoader(samples, batch_size=5, collate_fn=collate)  # type: ignore[arg-type]
        views = RecordViews(manifest, spec, loader, {}, "test", precision)
        means, _ = mean_over_views(network, lambda output: output, views, CUDA)
        assert (means.shape, means.dtype) == ((5 * num_batches, 8), torch.float32)
        return network

    assert waits_of(gpu, lambda: extract(2)) == waits_of(gpu, lambda: extract(6)) > 0
    calls = extract(2).calls
    assert {call[1:] for call in calls} == {(True, dtype)}
    free, _ = torch.cuda.mem_get_info(CUDA)
    assert all(num_clips * 4 * 3 * 4 * 8 * 8 <= free / 256 for num_clips, *_ in calls)
    assert len(calls) == (2 if free == LARGE else 4)  # the six views of five records go through together if they fit


def test_a_probe_waits_for_no_step(gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = draw_bank(12_000), draw_bank(80)

    def probe(max_epochs: int, block: int) -> None:
        monkeypatch.setattr(linear, "_BLOCK", block)  # rows that are scored at once
        linear.linear_probe(train, test, Probe(lrs=[0.1, 1.0], max_epochs=max_epochs, batch_size=4000), CUDA)

    assert waits_of(gpu, lambda: probe(1, 12_000)) == waits_of(gpu, lambda: probe(2, 5000)) > 0


@pytest.mark.parametrize("centered", [False, True])
def test_searches_wait_for_no_block(gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch, centered: bool) -> None:
    monkeypatch.setattr(search, "_GPU_BANK_CHUNK", 4096)
    queries = draw_bank(60)

    def find(num_rows: int) -> None:
        bank = draw_bank(num_rows)
        search.nearest_neighbors(bank.features, queries.features, 20, centered, CUDA)
        retrieval.average_precisions(bank, queries, centered, CUDA)

    assert waits_of(gpu, lambda: find(9000)) == waits_of(gpu, lambda: find(18_000)) > 0


def test_few_shot_waits_for_no_episode(gpu: FakeGPU) -> None:
    train, test = draw_bank(9000), draw_bank(400)

    def classify(episodes: int) -> None:
        few_shot_accuracy(train, test, 4, 5, 15, episodes, 0, CUDA)

    assert waits_of(gpu, lambda: classify(2)) == waits_of(gpu, lambda: classify(5)) > 0
