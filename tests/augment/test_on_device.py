"""Tests of the device form of the views: equal to the CPU form, without waiting, in few kernels, and compiled whole."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import fake_gpu
import pytest
import torch
from torch._dynamo.utils import counters
from view_configs import ALL_OPERATIONS

from eztorch_sce.augment.policies import policy
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.augment.views import Views
from eztorch_sce.types import Batch

BATCH = 24
IMAGES = replace(ALL_OPERATIONS, temporal_difference=0.0)
MOTION = ViewConfig(size=20, input="difference", stats="difference", hue=0.1, gray=0.3)


def batch_for(views: Sequence[ViewConfig], frames: int, canvas: int | None, dtype: torch.dtype = torch.uint8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    clips = []
    for view in views:
        side = canvas or view.size or 0
        pixels = torch.randint(256, (BATCH, 3, frames, side, side), dtype=torch.uint8, generator=generator)
        pixels[0], pixels[1, 1:] = pixels[0] // 3, pixels[1, :1]  # dark, and gray
        clips.append(pixels if dtype == torch.uint8 else pixels.to(dtype) / 255)
    records, aspect = torch.arange(BATCH), torch.linspace(0.4, 2.5, BATCH)
    return Batch(clips, torch.zeros(BATCH, dtype=torch.long), records, torch.full((BATCH,), 3), aspect, [])


CASES = {
    "image": ([IMAGES, replace(IMAGES, blur=1.0, stats="cifar10")], 1),
    "video": ([ALL_OPERATIONS, replace(ALL_OPERATIONS, temporal_difference=1.0)], 3),
    "sizes": ([replace(IMAGES, size=size) for size in (33, 16, 33)], 2),
    "clip": ([replace(ALL_OPERATIONS, stats="clip"), replace(ALL_OPERATIONS, jitter_p=0.0, stats="clip")], 3),
    "few": ([ViewConfig(size=20, flip=0.5), ViewConfig(size=20, gray=0.3), ViewConfig(size=20, solarize=0.5)], 2),
    "motion": ([MOTION, replace(MOTION, hue=0.0, contrast=0.5, gray=0.0)], 4),
    "short side": ([replace(IMAGES, short_side=[1.1, 1.4])], 1),
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("canvas", [None, 40])
@pytest.mark.parametrize("case", CASES)
def test_views_equal_those_of_the_cpu(case: str, canvas: int | None, dtype: torch.dtype) -> None:
    configs, frames = CASES[case]
    views, batch = Views(configs, canvas=canvas), batch_for(configs, frames, canvas, dtype)
    results = views.on_device(views.works(batch), torch.float32, channels_last=False)
    for result, expected in zip(results, views(batch).views, strict=True):
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)  # of values up to 10


def test_a_batch_in_chunks_is_the_batch_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    configs, frames = CASES["video"]
    views, batch = Views(configs), batch_for(configs, frames, None)
    expected = views.on_device(views.works(batch), torch.float32, channels_last=False)
    sample_bytes = batch.frames[0][0].numel() * 4
    monkeypatch.setattr("eztorch_sce.augment.on_device.CHUNK_BYTES", 7 * sample_bytes)
    for result, whole in zip(views.on_device(views.works(batch), torch.float32, False), expected, strict=True):
        torch.testing.assert_close(result, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("stats", ["video", "clip"])
def test_views_have_the_dtype_and_memory_format_that_are_set(stats: str) -> None:
    configs = [replace(ALL_OPERATIONS, stats=stats)] * 2
    views, batch = Views(configs), batch_for(configs, 3, None)
    expected = views.on_device(views.works(batch), torch.float32, channels_last=False)
    results = views.on_device(views.works(batch), torch.bfloat16, channels_last=True)
    for result, plain in zip(results, expected, strict=True):
        assert plain.is_contiguous()
        assert result.is_contiguous(memory_format=torch.channels_last_3d)
        assert torch.equal(result, plain.bfloat16())


LARGE = {  # every operation is drawn by some sample
    "image": (512, 1, None),
    "kinetics": (128, 8, None),
    "image on a canvas": (512, 1, 256),
    "kinetics on a canvas": (128, 8, 128),
}


@pytest.mark.parametrize("name", LARGE)
def test_two_views_take_at_most_60_kernels_and_no_wait(name: str) -> None:
    batch_size, frames, canvas = LARGE[name]
    configs = [replace(view, size=112) for view in policy(name.split()[0])]
    views = Views(configs, canvas=canvas, dtype=torch.bfloat16, channels_last=True)
    with fake_gpu.fake_gpu() as counts:
        fake_gpu.on_fake_gpu(views)
        side, column = canvas or 112, torch.arange(batch_size)
        clips = [torch.empty(batch_size, 3, frames, side, side, dtype=torch.uint8, device="cuda") for _ in configs]
        fake_labels = torch.empty(batch_size, dtype=torch.long, device="cuda")
        results = views(Batch(clips, fake_labels, column, column, torch.ones(batch_size), [])).views
        assert all(view.is_contiguous(memory_format=torch.channels_last_3d) for view in results)
        assert all(view.dtype == torch.bfloat16 for view in results)
    assert counts.num_waits == 0, counts.waits
    assert 40 < counts.num_kernels <= 60, counts.kernels
    assert not counts.failures


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("_fresh_compiler")
def test_compiled_views_are_one_graph_per_size_and_equal_to_the_others() -> None:
    view = ViewConfig(size=16, contrast=0.8, hue=0.2, gray=0.2, blur=0.5)
    configs = [view, ViewConfig(size=20, flip=0.5, temporal_difference=0.3), view]
    views, compiled = Views(configs, canvas=40), Views(configs, canvas=40)
    compiled.compile(backend="eager")
    batch = batch_for(configs, 2, 40)
    num_graphs = []
    for rows in (slice(0, 8), slice(8, 16), slice(16, 22), slice(3, 12)):
        label, record, epoch, aspect = (
            column[rows] for column in (batch.label, batch.record, batch.epoch, batch.aspect)
        )
        part = Batch([clips[rows] for clips in batch.frames], label, record, epoch, aspect, [])
        for result, expected in zip(compiled(part).views, views(part).views, strict=True):
            torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)
        num_graphs.append(counters["stats"]["unique_graphs"])
    assert num_graphs == [2, 2, 4, 4]  # another batch size makes the size a variable of the graph
    assert not counters["graph_break"]


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # of torch itself
@pytest.mark.usefixtures("_fresh_compiler")
def test_code_from_the_compiler_gives_the_same_pixels() -> None:
    config = ViewConfig(size=8, contrast=0.8, hue=0.2, solarize=0.2, stats="video")
    views, compiled = Views([config]), Views([config], dtype=torch.bfloat16, channels_last=True)
    compiled.compile()
    batch = batch_for([config], 2, None)
    (result,), (expected,) = compiled(batch).views, views(batch).views
    assert result.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(result, expected.bfloat16(), atol=0.02, rtol=0)  # neighbors in bfloat16


@pytest.mark.parametrize("name", ["image", "kinetics"])
def test_tensors_of_an_own_loop_are_augmented_without_a_wait(name: str) -> None:
    frames = 4 if name == "kinetics" else 1
    views = Views([replace(view, size=112) for view in policy(name)])
    with fake_gpu.fake_gpu() as counts:
        clips = torch.empty(64, 3, frames, 128, 160, dtype=torch.uint8, device="cuda")
        first, second = views(clips.squeeze(2) if frames == 1 else clips)  # whose module may stay on the CPU
        assert first.is_cuda
        assert first.shape == second.shape == ((64, 3, frames, 112, 112) if frames > 1 else (64, 3, 112, 112))
    assert counts.num_waits == 0, counts.waits
    assert counts.num_kernels <= 61, counts.kernels  # and one copy of a constant, at the first call


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("canvas", [None, 40])
@pytest.mark.parametrize("case", CASES)
def test_views_of_a_gpu_equal_those_of_the_cpu(case: str, canvas: int | None, compiled: bool) -> None:
    configs, frames = CASES[case]
    views, on_gpu, batch = (
        Views(configs, canvas=canvas),
        Views(configs, canvas=canvas),
        batch_for(configs, frames, canvas),
    )
    if compiled:
        on_gpu.compile()
    for result, expected in zip(on_gpu(batch.to("cuda")).views, views(batch).views, strict=True):
        torch.testing.assert_close(result.cpu(), expected, atol=2e-4, rtol=0)  # of values up to 10
