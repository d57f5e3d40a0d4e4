"""Comparison of the decoders on the files of a run, sampled as the run samples them, and the speeds of data work."""

import json
import os
import statistics
import time
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.measure import measure_rates
from eztorch_sce.curation.rates import Rates, write_rates
from eztorch_sce.data.config import DECODER_FILE, DataConfig
from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.data.dataset import TrainingClips
from eztorch_sce.data.decoders.base import Decoder, Timing
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.media_table import check_writable
from eztorch_sce.data.sources.records import KINDS, Records
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.files import write_text
from eztorch_sce.models.backbones.base import BackboneConfig
from eztorch_sce.progress import track
from eztorch_sce.registry import choices
from eztorch_sce.types import ClipSpan, Failure, InputSpec

_NUM_FILES = 24
_NUM_ROUNDS = 3
_MAX_DIFFERENCE = 2.0  # gray levels, on average over a clip: the rounding of a different color conversion
_TIME_TOLERANCE_S = 1e-3
_NEARLY_BEST = 0.95  # fraction of the best rate at which fewer workers are preferred
_WORKER_COUNTS = (1, 2, 4, 8, 16, 32)
_WORKER_SAMPLES = 96  # samples per epoch when comparing numbers of workers


@dataclass
class DecoderResult:
    """Measurements of one decoder.

    Attributes:
        decoder: Name of the decoder.
        clips_per_s: Clips per second in one process, with views cropped and resized as in training; 0 if not measured.
        num_refused: Files that PyAV reads but this decoder does not.
        num_different: Files whose frames differ from those of PyAV.
        remark: Reason why the decoder is unavailable, or the first file that it refuses or that differs.
    """

    decoder: str
    clips_per_s: float = 0.0
    num_refused: int = 0
    num_different: int = 0
    remark: str = ""

    @property
    def usable(self) -> bool:
        """Whether the decoder returns the frames of PyAV for every file."""
        return self.clips_per_s > 0 and not self.num_refused and not self.num_different


@dataclass
class BenchResult:
    """Outcome of `bench`, written to `decoder.json` in the data folder, where `data.decoder=auto` reads it.

    Attributes:
        decoder: Fastest usable decoder.
        num_workers: Smallest number of worker processes that is nearly as fast as the best number.
        threads: Decoding threads per worker.
        by_workers: Clips per second by number of workers.
        decoders: Measurements of each decoder; empty if there are no videos.
    """

    decoder: str
    num_workers: int
    threads: int
    by_workers: dict[int, float]
    decoders: list[DecoderResult]

    def scaling(self) -> float:
        """Return the speed of the largest number of workers, over that of one times their number."""
        most = max(self.by_workers)
        return self.by_workers[most] / (most * self.by_workers[min(self.by_workers)])


class _Sample(NamedTuple):
    """The videos to measure on, and the settings by which a run samples clips from them."""

    config: DataConfig
    manifest: Manifest
    views: list[ViewConfig]
    spec: InputSpec
    seed: int


def bench(
    config: DataConfig,
    manifest: Manifest,
    views: list[ViewConfig],
    spec: InputSpec,
    backbone: BackboneConfig,
    seed: int,
) -> tuple[BenchResult, Rates]:
    """Measure every decoder on a sample of a run's videos, one decoder at a time and on one thread, then the data work.

    Args:
        config: The settings of the data.
        manifest: The files. Without videos, decoders are not compared.
        views: The views of a training.
        spec: Frames, length and size of a clip.
        backbone: The network that computes features.
        seed: Seed of the clips.

    Raises:
        ConfigError: If no video can be read, or the results cannot be written to their folder.
    """
    check_writable(config.folder())
    reference = replace(config, decoder="pyav").build_decoder()
    sample = _Sample(config, _readable_sample(manifest, reference, spec), views, spec, seed)
    results = []
    if sample.manifest.records.num_by_kind()["video"]:
        results = [_measure(name, reference, sample) for name in choices("decoder")]
    fastest = max((each for each in results if each.usable), key=lambda each: each.clips_per_s, default=None)
    decoder = fastest.decoder if fastest else "pyav"
    by_workers = _rates_by_workers(sample, decoder)
    sufficient_rate = _NEARLY_BEST * max(by_workers.values())
    num_workers = next(number for number, rate in by_workers.items() if rate >= sufficient_rate)
    result = BenchResult(decoder, num_workers, threads=1, by_workers=by_workers, decoders=results)
    write_text(config.folder() / DECODER_FILE, json.dumps(asdict(result), indent=2) + "\n")
    rates = measure_rates(replace(config, decoder=decoder), manifest, spec, backbone, result.scaling())
    write_rates(config.folder(), rates)
    return result, rates


def _readable_sample(manifest: Manifest, reference: Decoder, spec: InputSpec) -> Manifest:
    """Return a few videos, evenly spaced in the manifest, that the reference decoder can read; or else a few images."""
    records = manifest.records.where(manifest.records.kind_codes == KINDS.index("video"))
    if not len(records):
        images = manifest.records[:: max(1, len(manifest.records) // _NUM_FILES)][:_NUM_FILES]
        return replace(manifest, records=images)
    candidates = records[:: max(1, len(records) // _NUM_FILES)][:_NUM_FILES]
    is_readable = [_can_read(reference, path, spec) for path in candidates.paths()]
    if not any(is_readable):
        cure = f"run `eztorch-sce data doctor` on {manifest.source}"
        raise ConfigError([f"{manifest.source}: none of the {len(candidates)} videos tried can be read; {cure}"])
    return Manifest(candidates.where(np.array(is_readable)), manifest.classes, manifest.source)


def _can_read(decoder: Decoder, path: str, spec: InputSpec) -> bool:
    try:
        decoder.read(path, _compared_spans, spec.num_frames)
    except MediaError:
        return False
    return True


def _compared_spans(timing: Timing) -> list[ClipSpan]:
    """Return the spans in which the frames of the decoders are compared."""
    duration_s = timing.duration_s
    return [ClipSpan(0.0, 0.2 * duration_s), ClipSpan(0.5 * duration_s, 0.9 * duration_s)]


def _measure(name: str, reference: Decoder, sample: _Sample) -> DecoderResult:
    try:
        decoder: Decoder = choices("decoder")[name]().build()
    except ConfigError as error:
        return DecoderResult(name, remark=error.problems[0])
    result = DecoderResult(name)
    for record in sample.manifest.records:
        difference = _difference(record.path, decoder, reference, sample.spec.num_frames)
        result.num_refused += difference.startswith("refused")
        result.num_different += difference.startswith("differs")
        if difference and not result.remark:
            result.remark = f"{os.path.basename(record.path)} {difference}"
    num_read = len(sample.manifest.records) - result.num_refused
    if num_read:
        result.clips_per_s = num_read * len(sample.views) / _epoch_seconds(name, decoder, sample)
    return result


def _difference(path: str, decoder: Decoder, reference: Decoder, num_frames: int) -> str:
    """Return how the frames of a decoder differ from those of the reference, or "" if they do not."""
    expected = reference.read(path, _compared_spans, num_frames)
    try:
        actual = decoder.read(path, _compared_spans, num_frames)
    except MediaError as error:
        return f"refused: {error.reason}"
    for ours, theirs in zip(actual, expected, strict=True):
        same_shape = ours.frames.shape == theirs.frames.shape
        if not same_shape or (ours.pts_s - theirs.pts_s).abs().max() > _TIME_TOLERANCE_S:
            return "differs: other frames"
        levels = (ours.frames.float() - theirs.frames.float()).abs().mean().item()
        if levels > _MAX_DIFFERENCE:
            return f"differs: by {levels:.1f} gray levels on average"
    return ""


def _epoch_seconds(name: str, decoder: Decoder, sample: _Sample) -> float:
    """Return the sum over the files of the median time to load their clips, on one thread as in a worker."""
    config = sample.config
    clips = TrainingClips(
        sample.manifest, sample.views, sample.spec, decoder, sample.seed, config.canvas, config.near_power
    )
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [_time_epoch(clips, epoch, name) for epoch in range(_NUM_ROUNDS)]
    finally:
        torch.set_num_threads(num_threads)
    medians_s: list[float] = [statistics.median(times_s) for times_s in zip(*rounds, strict=True)]
    return sum(medians_s)


def _time_epoch(clips: TrainingClips, epoch: int, name: str) -> list[float]:
    """Return the time to load the clips of each file; 0 for files that cannot be read."""
    times_s = []
    for index in track(range(len(clips)), len(clips), f"{name} {epoch + 1}/{_NUM_ROUNDS}"):
        started = time.perf_counter()
        failed = isinstance(clips[epoch, index], Failure)
        times_s.append(0.0 if failed else time.perf_counter() - started)
    return times_s


def _rates_by_workers(sample: _Sample, decoder: str) -> dict[int, float]:
    """Return clips per second by number of worker processes, up to one per core."""
    num_repeats = max(1, _WORKER_SAMPLES // len(sample.manifest.records))
    repeated = replace(sample.manifest, records=Records.concatenate([sample.manifest.records] * num_repeats))
    counts = [count for count in _WORKER_COUNTS if count <= num_usable_cores()]
    rates = {}
    for count in track(counts, len(counts), "workers"):
        config = replace(sample.config, decoder=decoder, num_workers=count, batch_size=4)
        data = TrainingData(config, repeated, sample.views, sample.spec, sample.seed)
        batches = iter(data.train_dataloader())
        next(batches)  # starts the workers, which is not timed
        started = time.perf_counter()
        num_samples = sum(len(batch.record) for batch in batches)
        rates[count] = num_samples * len(sample.views) / (time.perf_counter() - started)
    return rates
