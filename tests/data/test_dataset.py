"""Tests of datasets, samplers and loaders: draws depend only on (seed, epoch, record, view)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.data.collate import stack
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.data.dataset import (
    Clips,
    EpochSampler,
    EvaluationClips,
    EvaluationSampling,
    TrainingClips,
    segment_of,
)
from eztorch_sce.data.decoders.base import Timing
from eztorch_sce.data.decoders.pyav.decoder import PyAVDecoder
from eztorch_sce.data.loading import evaluation_loader
from eztorch_sce.data.sources.folder import from_folder
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import Records
from eztorch_sce.types import Batch, Clip, ClipSpan, Failure, InputSpec, MediaRecord, Sample

SPEC = InputSpec(num_frames=4, clip_s=0.5, size=32)
VIEWS = [ViewConfig(size=32), ViewConfig(size=16)]


@pytest.fixture(scope="module")
def manifest(write_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("tree")
    for number in range(6):
        write_video(root / f"{'ab'[number % 2]}/{number}.mp4", num_frames=40 + 10 * number)
    return from_folder(root)


def epoch_of(manifest: Manifest, epoch: int, batch_size: int = 2, workers: int = 0, seed: int = 0) -> list[Batch]:
    config = DataConfig(root="x", batch_size=batch_size, num_workers=workers)
    data = TrainingData(config, manifest, VIEWS, SPEC, seed)
    data.sampler.set_epoch(epoch)
    return list(data.train_dataloader())


def by_record(batches: list[Batch]) -> dict[int, list[torch.Tensor]]:
    return {
        record: [view[row] for view in batch.frames]
        for batch in batches
        for row, record in enumerate(batch.record.tolist())
    }


def test_samples_do_not_depend_on_workers_or_batch_size(manifest: Manifest) -> None:
    alone = epoch_of(manifest, epoch=3)
    for other in (epoch_of(manifest, 3, workers=2), epoch_of(manifest, 3, batch_size=3)):
        first, second = by_record(alone), by_record(other)
        assert list(first) == list(second)  # also in the same order
        assert all(torch.equal(a, b) for r in first for a, b in zip(first[r], second[r], strict=True))


def test_draws_depend_on_epoch_seed_and_view(manifest: Manifest) -> None:
    first = by_record(epoch_of(manifest, epoch=0))
    for other in (by_record(epoch_of(manifest, epoch=1)), by_record(epoch_of(manifest, epoch=0, seed=1))):
        assert not any(torch.equal(first[r][0], other[r][0]) for r in first)
    assert [tuple(view.shape) for view in first[0]] == [(3, 4, 32, 32), (3, 4, 16, 16)]


def test_an_epoch_contains_each_record_once(manifest: Manifest) -> None:
    assert sorted(by_record(epoch_of(manifest, epoch=5))) == list(range(6))


def test_evaluation_is_ordered_and_repeatable(manifest: Manifest) -> None:
    config = DataConfig(root="x", batch_size=4, num_workers=0)
    first, second = (list(evaluation_loader(config, manifest, SPEC, EvaluationSampling(2, 3, 40))) for _ in range(2))
    assert [r for batch in first for r in batch.record.tolist()] == list(range(6))
    assert len(first[0].frames) == 6  # clips x crops
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.frames, b.frames, strict=True))
    assert [label for batch in first for label in batch.label.tolist()] == [0, 0, 0, 1, 1, 1]


def test_an_unreadable_file_becomes_a_failure_with_its_path(manifest: Manifest, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("not a video")
    records = [*manifest.records[:1], manifest.records[1]._replace(path=str(broken))]
    batches = epoch_of(Manifest(Records.of(records), manifest.classes, "list"), epoch=0)
    assert len(batches[0].record) == 1
    (failure,) = batches[0].failures
    assert failure.path == str(broken)
    assert failure.reason


def test_an_unexpected_error_names_the_file(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(PyAVDecoder, "read", faulty)
    with pytest.raises(RuntimeError, match=r"\.mp4 failed"):
        epoch_of(manifest, epoch=0)


def test_a_batch_of_only_failures_has_no_frames() -> None:
    batch = stack([Failure(0, "a.mp4", "is empty")])
    assert batch.frames == []
    assert len(batch.record) == 0


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_a_step_has_the_same_records_however_it_is_divided(
    world_size: int, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = [index for _, index in EpochSampler(22, seed=0, shuffle=True)]
    assert sorted(order) == list(range(22))
    batch_size = 8 // (world_size * accumulate)
    by_process = []
    for rank in range(world_size):
        monkeypatch.setattr("eztorch_sce.distributed.rank", lambda rank=rank: rank)
        monkeypatch.setattr("eztorch_sce.distributed.world_size", lambda: world_size)
        sampler = EpochSampler(22, seed=0, shuffle=True)
        sampler.divide(samples_per_step=8, batch_size=batch_size)
        own = [index for _, index in sampler]
        assert len(own) == len(sampler) == 16 // world_size  # two whole steps
        by_process.append([own[start : start + batch_size] for start in range(0, len(own), batch_size)])
        sampler.start_at(epoch=0, num_samples=8)
        assert [index for _, index in sampler] == own[8 // world_size :]
    assert [index for batch in zip(*by_process, strict=True) for part in batch for index in part] == order[:16]


def test_a_canvas_sends_whole_frames_to_the_device(manifest: Manifest) -> None:
    config = DataConfig(root="x", batch_size=2, num_workers=0, canvas=24)
    batch = next(iter(TrainingData(config, manifest, VIEWS, SPEC, 0).train_dataloader()))
    assert [tuple(view.shape) for view in batch.frames] == [(2, 3, 4, 24, 24)] * 2
    assert batch.aspect.tolist() == [2.5, 2.5]  # 80 x 32


def test_near_power_sets_the_mean_distance_of_two_clips(manifest: Manifest) -> None:
    decoder = DataConfig(root="x").build_decoder()
    timing = Timing(duration_s=10.5, fps=30)  # two clips of 0.5 s are at most 10 s apart
    for power, mean_s in ((None, 10 / 3), (1.0, 10 / 3), (3.0, 2.0)):  # mean_s is the mean of the density
        clips = TrainingClips(manifest, VIEWS, SPEC, decoder, seed=0, canvas=None, near_power=power)
        pairs = [clips.choose_spans(0, index, timing) for index in range(1500)]
        assert sum(abs(a.start_s - b.start_s) for a, b in pairs) / 1500 == pytest.approx(mean_s, abs=0.2)
        assert clips.choose_spans(0, 3, timing) == pairs[3]


def test_a_frame_stride_sets_the_clip_length_by_the_frame_rate(manifest: Manifest) -> None:
    spec = InputSpec(num_frames=4, clip_s=9.9, size=32, frame_stride=5)
    clips = TrainingClips(manifest, VIEWS, spec, DataConfig(root="x").build_decoder(), seed=0, canvas=None)
    [first, _] = clips.choose_spans(0, 0, Timing(duration_s=10.0, fps=30))
    assert first.end_s - first.start_s == pytest.approx(20 / 30)


@pytest.mark.parametrize(("clips", "numbers"), [("cover", [3, 4, 4, 5, 6, 6]), ("whole", [1] * 6)])
def test_a_video_is_covered_by_as_many_clips_as_it_requires(clips: str, numbers: list[int], manifest: Manifest) -> None:
    config = DataConfig(root="x", batch_size=4, num_workers=0)
    batches = list(evaluation_loader(config, manifest, SPEC, EvaluationSampling(1, 1, 32, clips)))
    assert [r for batch in batches for r in batch.record.tolist()] == list(range(6))
    assert [len(batch.frames) for batch in batches] == [
        numbers[int(Path(manifest.records[r].path).stem)] for batch in batches for r in batch.record.tolist()
    ]


def frames_shown(clips: Clips, numbers_shown: Callable[[torch.Tensor], list[int]], epoch: int = 0) -> list[int]:
    """Return the numbers of the frames of all views of the first record."""
    sample = clips[epoch, 0]
    assert isinstance(sample, Sample), sample
    return [number for frames in sample.frames for number in numbers_shown(frames)]


class WholeFrames(EvaluationClips):
    """Clips whose frames are not cropped, so that the numbers in them can be read."""

    def make_stackable(self, epoch: int, index: int, clips: list[Clip]) -> list[torch.Tensor]:
        return [clip.frames for clip in clips]


class WholeTrainingFrames(TrainingClips):
    """Likewise, at random times."""

    def make_stackable(self, epoch: int, index: int, clips: list[Clip]) -> list[torch.Tensor]:
        return [clip.frames for clip in clips]


def segment_of_video(video: Path, start_s: float | None, end_s: float | None) -> Manifest:
    return Manifest(Records.of([MediaRecord(str(video), None, "video", start_s, end_s)]), [], "list")


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_only_the_listed_segment_is_read_by_any_decoder(
    decoder: str, numbered_video: Path, numbers_shown: Callable[[torch.Tensor], list[int]]
) -> None:
    manifest = segment_of_video(numbered_video, 4.0, 6.0)  # frames 120 to 179 of 300
    reader = DataConfig(root="x", decoder=decoder).build_decoder()
    training = WholeTrainingFrames(manifest, VIEWS, SPEC, reader, seed=0, canvas=None)
    drawn = {number for epoch in range(10) for number in frames_shown(training, numbers_shown, epoch)}
    assert min(drawn) >= 120
    assert max(drawn) < 180
    assert max(drawn) - min(drawn) > 30
    for clips, first, last in (("even", 123, 177), ("cover", 123, 177), ("whole", 127, 172)):
        evaluation = WholeFrames(manifest, replace(SPEC, clip_s=0.8), reader, EvaluationSampling(2, 1, 32, clips))
        numbers = frames_shown(evaluation, numbers_shown)
        assert (min(numbers), max(numbers)) == (first, last)  # at the midpoints of the intervals


def test_a_clip_longer_than_its_segment_covers_the_segment(
    numbered_video: Path, numbers_shown: Callable[[torch.Tensor], list[int]]
) -> None:
    reader = DataConfig(root="x").build_decoder()
    spec = replace(SPEC, clip_s=5.0)
    for start_s, end_s, numbers in ((2.0, 2.4, [61, 64, 67, 70]), (None, 0.4, [1, 4, 7, 10]), (9.6, None, None)):
        clips = WholeFrames(
            segment_of_video(numbered_video, start_s, end_s), spec, reader, EvaluationSampling(1, 1, 32)
        )
        assert frames_shown(clips, numbers_shown) == (numbers or [289, 292, 295, 298])


@pytest.mark.parametrize(("start_s", "end_s"), [(10.0, None), (12.0, 13.0), (8.0, 11.0)])
def test_a_segment_beyond_the_video_is_unreadable_and_says_why(
    start_s: float, end_s: float | None, numbered_video: Path
) -> None:
    manifest = segment_of_video(numbered_video, start_s, end_s)
    clips = EvaluationClips(manifest, SPEC, DataConfig(root="x").build_decoder(), EvaluationSampling(1, 1, 32))
    failure = clips[0, 0]
    assert isinstance(failure, Failure)
    assert failure.reason.startswith(f"lasts 10.00 s; the listed segment from {start_s:g} s to ")


def test_a_segment_may_end_a_rounding_error_after_the_video(numbered_video: Path) -> None:
    record = MediaRecord(str(numbered_video), None, "video", 8.0, 10.3)
    assert segment_of(record, Timing(10.0, 30.0)) == ClipSpan(8.0, 10.0)
