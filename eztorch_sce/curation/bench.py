"""Which decoder is the fastest on one's own files, sampled as the run samples them."""

import json
import os
import statistics
import time
from dataclasses import asdict, dataclass, replace

import torch

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.cores import num_usable_cores
from eztorch_sce.data.config import CHOICE, DataConfig
from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.data.dataset import TrainingClips
from eztorch_sce.data.decoders.base import Decoder, Timing
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.media_table import check_writable
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.files import write_text
from eztorch_sce.progress import track
from eztorch_sce.registry import choices
from eztorch_sce.types import ClipSpan, Failure, InputSpec

_NUM_FILES = 24
_NUM_ROUNDS = 3
_LEVELS = 2.0  # mean difference of two decoders' frames that rounding explains, in gray levels
_NEARLY = 0.95  # a share of the best rate that is as good: fewer workers are then the better choice


@dataclass
class DecoderResult:
    """How a decoder did.

    Attributes:
        decoder: Its name.
        clips_per_s: In one process, views cut and resized as for training.
        num_refused: Files that it cannot read and PyAV can.
        num_different: Files of which its frames are not PyAV's.
        remark: Why it cannot be used, or a first file of those above.
    """

    decoder: str
    clips_per_s: float = 0.0
    num_refused: int = 0
    num_different: int = 0
    remark: str = ""

    @property
    def usable(self) -> bool:
        """Whether it returns what PyAV does, of every file."""
        return self.clips_per_s > 0 and not self.num_refused and not self.num_different


@dataclass
class BenchResult:
    """What `bench` found; `decoder.json` in the folder, which `data.decoder=auto` reads.

    Attributes:
        decoder: The fastest of those that can be used.
        num_workers: The fewest worker processes that load nearly as fast as any number does.
        threads: Decoding threads in each of them.
        by_workers: Clips per second by number of workers.
        decoders: How each did.
    """

    decoder: str
    num_workers: int
    threads: int
    by_workers: dict[int, float]
    decoders: list[DecoderResult]


def bench(config: DataConfig, manifest: Manifest, views: list[ViewConfig], spec: InputSpec, seed: int) -> BenchResult:
    """Measure every decoder on a sample of the videos of a run, one after the other on one thread.

    Raises:
        ConfigError: If there is no video to measure on, or the result cannot be kept beside them.
    """
    check_writable(config.folder())
    videos = [record for record in manifest.records if record.kind == "video"]
    some = videos[:: max(1, len(videos) // _NUM_FILES)][:_NUM_FILES]
    sample = Manifest(some, manifest.classes, manifest.source)
    reference = replace(config, decoder="pyav").build_decoder()
    readable = _readable(reference, sample, spec)
    if not readable.records:
        raise ConfigError([f"{manifest.source}: none of {len(some)} videos tried can be read; see `data doctor`"])
    results = [_measure(name, reference, readable, views, spec, config, seed) for name in choices("decoder")]
    best = max((result for result in results if result.usable), key=lambda result: result.clips_per_s)
    by_workers = _rates_by_workers(replace(config, decoder=best.decoder), readable, views, spec, seed)
    enough = next(number for number, rate in by_workers.items() if rate >= _NEARLY * max(by_workers.values()))
    result = BenchResult(best.decoder, enough, threads=1, by_workers=by_workers, decoders=results)
    file = config.folder() / CHOICE
    write_text(file, json.dumps(asdict(result), indent=2) + "\n")
    return result


def _readable(decoder: Decoder, manifest: Manifest, spec: InputSpec) -> Manifest:
    def works(path: str) -> bool:
        try:
            decoder.read(path, _compared, spec.num_frames)
        except MediaError:
            return False
        return True

    return replace(manifest, records=[record for record in manifest.records if works(record.path)])


def _compared(timing: Timing) -> list[ClipSpan]:
    """Return the stretches that the decoders' frames are compared in."""
    lasts_s = timing.duration_s
    return [ClipSpan(0.0, 0.2 * lasts_s), ClipSpan(0.5 * lasts_s, 0.9 * lasts_s)]


def _measure(
    name: str,
    reference: Decoder,
    manifest: Manifest,
    views: list[ViewConfig],
    spec: InputSpec,
    config: DataConfig,
    seed: int,
) -> DecoderResult:
    result = DecoderResult(name)
    try:
        decoder = choices("decoder")[name]().build()
    except ConfigError as error:
        result.remark = error.problems[0]
        return result
    for record in manifest.records:
        why = _difference(record.path, decoder, reference, spec.num_frames)
        result.num_refused += why.startswith("refused")
        result.num_different += why.startswith("differs")
        result.remark = result.remark or (f"{os.path.basename(record.path)} {why}" if why else "")
    clips = TrainingClips(manifest, views, spec, decoder, seed, config.canvas, config.near_power)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    try:
        rounds = [_time_epoch(clips, epoch, name) for epoch in range(_NUM_ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    seconds = sum(statistics.median(times) for times in zip(*rounds, strict=True))
    num_read = len(manifest.records) - result.num_refused
    result.clips_per_s = num_read * len(views) / seconds if num_read else 0.0
    return result


def _difference(path: str, decoder: Decoder, reference: Decoder, num_frames: int) -> str:
    expected = reference.read(path, _compared, num_frames)
    try:
        found = decoder.read(path, _compared, num_frames)
    except MediaError as error:
        return f"refused: {error.reason}"
    for ours, theirs in zip(expected, found, strict=True):
        if ours.frames.shape != theirs.frames.shape or (ours.pts_s - theirs.pts_s).abs().max() > 1e-3:
            return "differs: other frames"
        levels = (ours.frames.float() - theirs.frames.float()).abs().mean().item()
        if levels > _LEVELS:
            return f"differs: by {levels:.1f} gray levels in the mean"
    return ""


def _time_epoch(clips: TrainingClips, epoch: int, name: str) -> list[float]:
    seconds = []
    for index in track(range(len(clips)), len(clips), f"{name} {epoch + 1}/{_NUM_ROUNDS}"):
        started = time.perf_counter()
        refused = isinstance(clips[epoch, index], Failure)
        seconds.append(0.0 if refused else time.perf_counter() - started)
    return seconds


def _rates_by_workers(
    config: DataConfig, manifest: Manifest, views: list[ViewConfig], spec: InputSpec, seed: int
) -> dict[int, float]:
    repeated = replace(manifest, records=manifest.records * max(1, 96 // len(manifest.records)))
    numbers, rates = [number for number in (1, 2, 4, 8, 16, 32) if number <= num_usable_cores()], {}
    for number in track(numbers, len(numbers), "workers"):
        settings = replace(config, num_workers=number, batch_size=4)
        data = TrainingData(settings, repeated, views, spec, seed)
        batches = iter(data.train_dataloader())
        next(batches)  # the workers have started
        started = time.perf_counter()
        num_samples = sum(len(batch.record) for batch in batches)
        rates[number] = num_samples * len(views) / (time.perf_counter() - started)
    return rates
