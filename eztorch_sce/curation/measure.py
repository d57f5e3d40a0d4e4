"""Measurement of the speeds that `data plan` predicts from, on a few files of a folder, a few seconds each."""

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import numpy as np
import torch

from eztorch_sce.augment.view import View, evaluation_view
from eztorch_sce.config.parts import EvaluationViewsConfig
from eztorch_sce.cores import num_usable_cores
from eztorch_sce.curation.copying import encode
from eztorch_sce.curation.doctor_work import DoctorRow, Examinee, examine
from eztorch_sce.curation.rates import MergeSpeed, NetworkSpeed, Rates, Reading, Speed
from eztorch_sce.curation.settings import PrepareConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.dataset import EvaluationClips, EvaluationSampling
from eztorch_sce.data.decoders.base import Decoder
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.distributed import local_device
from eztorch_sce.errors import MediaError, counted
from eztorch_sce.evaluation.memory import InChunks
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.merge import merge
from eztorch_sce.jobs.runners.base import RunnerConfig
from eztorch_sce.jobs.work import Output, Settings, Shard, Work
from eztorch_sce.jobs.worker import work_on
from eztorch_sce.models.backbones.base import BackboneConfig, as_backbone, build_network
from eztorch_sce.models.memory_format import to_channels_last
from eztorch_sce.models.modes import evaluation_mode
from eztorch_sce.objects import title_of
from eztorch_sce.precision import autocast, precision_on
from eztorch_sce.progress import counting
from eztorch_sce.types import InputSpec, MediaRecord
from eztorch_sce.waiting import announced

_NUM_FILES = 24
_NUM_OPENED = 256  # files whose opening is timed
_FIRST_BYTES = 4096
_LIMIT_S = 4.0  # per measurement; at least one record is timed
_NUM_PASSES = 8  # of the network
_PASS_S = 1.0  # predicted seconds of a pass, from one on a single clip
_NUM_ROWS = 100_000  # records of the job that is merged
_ROW_BYTES = 100


def measure_rates(
    config: DataConfig, manifest: Manifest, spec: InputSpec, backbone: BackboneConfig, scaling: float
) -> Rates:
    """Return the speeds of this machine on a sample of the files.

    Args:
        config: The settings of the data.
        manifest: The files.
        spec: Frames, length and size of a clip.
        backbone: The network that computes features.
        scaling: Speed of as many processes as there are cores, over that of one times their number.
    """
    from eztorch_sce import __version__

    open_s = _seconds_to_open(manifest)  # before anything else has read the files
    sample = _sample(manifest, _NUM_FILES)
    records = list(sample.records)
    rows: list[DoctorRow] = []
    with _one_thread():
        doctor = _speed_of(lambda index: _examine(records[index], rows), len(records), "doctor")
        prepare = _prepare_speed([record.path for record in records if record.kind == "video"])
        reading = _reading_speed(sample, spec, config.build_decoder())
    return Rates(
        version=__version__,
        date=date.today().isoformat(),
        machine=_cpu_name(),
        cores=num_usable_cores(),
        num_gpus=torch.cuda.device_count(),
        folder_records=len(manifest.records),
        num_records=len(records),
        videos=sum(record.kind == "video" for record in records) / len(records),
        bytes_per_record=statistics.fmean(row.bytes for row in rows),
        duration_s=statistics.fmean(row.duration_s for row in rows),
        open_s=open_s,
        scaling=min(1.0, scaling),
        doctor=doctor,
        prepare=prepare,
        reading=reading,
        network=_network_speed(backbone, spec),
        merge=_merge_speed(),
    )


def _sample(manifest: Manifest, num_files: int) -> Manifest:
    """Return a few records, evenly spaced in the manifest, in random order: a measurement may end before the last."""
    records = manifest.records
    indices = np.linspace(0, len(records) - 1, min(num_files, len(records))).round().astype(np.int64)
    order = np.random.default_rng(0).permutation(len(indices))
    return Manifest(records.take(indices[order]), manifest.classes, manifest.source)


def _seconds_to_open(manifest: Manifest) -> float:
    """Return the mean time to ask for the status of a file, open it and read its first bytes; 0 if none can be opened.

    Frame folders and members of shards are left out.
    """
    times_s = []
    for path in _sample(manifest, _NUM_OPENED).records.paths():
        started = time.perf_counter()
        try:
            os.stat(path)
            with open(path, "rb", buffering=0) as file:
                file.read(_FIRST_BYTES)
        except OSError:
            continue
        times_s.append(time.perf_counter() - started)
    return statistics.fmean(times_s) if times_s else 0.0


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, as worker processes do."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _speed_of(work: Callable[[int], int], num_records: int, title: str) -> Speed:
    """Return the speed of work on records in this process, timed until a few seconds are spent.

    Args:
        work: Works on the record of an index, and returns the bytes that it has written. The first record is worked on
            twice, since the first time loads libraries.
        num_records: Number of records.
        title: Title of the progress bar.
    """
    work(0)
    seconds, num_written, num_done = 0.0, 0, 0
    before = _bytes_read_so_far()
    with counting(num_records, f"{title}, at most {_LIMIT_S:g} s") as advance:
        while num_done < num_records and seconds < _LIMIT_S:
            started = time.perf_counter()
            num_written += work(num_done)
            seconds += time.perf_counter() - started
            num_done += 1
            advance()
    num_read = _bytes_read_so_far() - before
    return Speed(num_done / seconds, num_read / num_done, num_written / num_done, num_done)


def _bytes_read_so_far() -> int:
    """Return the bytes that this process has read from files; 0 where the system does not count them."""
    try:
        with open("/proc/self/io", encoding="ascii") as file:
            return int(file.readline().removeprefix("rchar:"))
    except (OSError, ValueError):  # not Linux, or a container that hides it
        return 0


def _examine(record: MediaRecord, rows: list[DoctorRow]) -> int:
    """Inspect a record, and append its row."""
    rows.append(examine(Examinee(record.path, record.kind, full=False)))
    return 0


def _prepare_speed(videos: list[str]) -> Speed | None:
    """Return the speed of copying videos with the default settings, and of inspecting the copies."""
    if not videos:
        return None
    with tempfile.TemporaryDirectory(prefix="eztorch_sce-bench-") as folder:
        target = Path(folder, "copy.mp4")

        def copy(index: int) -> int:
            try:
                encode(videos[index], target, PrepareConfig())
            except MediaError:
                return 0  # named by `data prepare` when it runs
            examine(Examinee(str(target), "video", full=False))
            return target.stat().st_size

        return _speed_of(copy, len(videos), "prepare")


def _reading_speed(sample: Manifest, spec: InputSpec, decoder: Decoder) -> Reading:
    """Return the speed of reading the clips and crops of an evaluation with its default settings."""
    views = EvaluationViewsConfig()
    short_side = views.short_side or spec.test_short_side

    def speed_of_reading(num_clips: int) -> Speed:
        dataset = EvaluationClips(sample, spec, decoder, EvaluationSampling(num_clips, views.num_crops, short_side))

        def read(index: int) -> int:
            dataset[0, index]  # a file that cannot be read is a failure, which takes time too
            return 0

        return _speed_of(read, len(dataset), f"reading of {counted(num_clips, 'clip')}")

    all_clips = None if sample.records.all_images() else speed_of_reading(views.num_clips)
    return Reading(speed_of_reading(1), all_clips, views.num_clips, views.num_crops)


def _network_speed(config: BackboneConfig, spec: InputSpec) -> NetworkSpeed:
    """Return the speed of a network on the device of this machine, as `extract` runs it."""
    device = local_device("auto")
    network = as_backbone(build_network(config), spec.num_frames, spec.size).to(device)
    if device.type == "cuda":
        to_channels_last(network)
    normalize = View(evaluation_view(spec), channels_last=device.type == "cuda").to(device)
    outputs_of = InChunks(lambda clips: network(normalize(clips)).float())
    shape = (3, spec.num_frames, spec.size, spec.size)

    def seconds_for(num_views: int) -> float:
        clips = torch.randint(256, (num_views, *shape), dtype=torch.uint8, device=device)
        started = time.perf_counter()
        outputs_of(clips).sum().item()  # waits for the device
        return time.perf_counter() - started

    seconds, num_passes = 0.0, 0
    with torch.no_grad(), evaluation_mode(network), autocast(device, precision_on(device)):
        seconds_for(1)  # loads libraries, and chooses how many clips are computed at once
        num_views = min(outputs_of.rows, max(1, int(_PASS_S / seconds_for(1))))
        seconds_for(num_views)
        with counting(_NUM_PASSES, f"features, at most {_LIMIT_S:g} s") as advance:
            while num_passes < _NUM_PASSES and seconds < _LIMIT_S:
                seconds += seconds_for(num_views)
                num_passes += 1
                advance()
    return NetworkSpeed(
        backbone=title_of(config),
        num_features=network.num_features,
        num_frames=spec.num_frames,
        size=spec.size,
        device="cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
        threads=torch.get_num_threads() if device.type == "cpu" else 0,
        views_per_s=num_passes * num_views / seconds,
    )


class Blank(Work):
    """Gives every record some bytes, to time what a job does besides the work on its records."""

    command = "data bench"

    def settings(self) -> Settings:
        """Return no settings."""
        return {}

    @classmethod
    def load(cls, settings: Settings) -> "Blank":
        """Return the work."""
        return cls()

    def process(
        self, shards: Iterable[Shard], num_workers: int | None, advance: Callable[[int], None]
    ) -> Iterator[Output]:
        """Yield the records of each shard with a column of bytes."""
        import pyarrow as pa

        for number, rows in shards:
            column = pa.array([bytes(_ROW_BYTES)] * len(rows), pa.large_binary())
            yield Output(number, pa.table({"key": rows["key"], "bytes": column}), {})


def _merge_speed() -> MergeSpeed:
    """Return the speed at which a job describes its records and merges its outputs, which the driver does alone."""
    import pyarrow as pa

    keys = [f"class {number % 700}/video {number:08d}.mp4".encode() for number in range(_NUM_ROWS)]
    records = pa.table({"key": pa.array(keys, pa.large_binary())})
    with tempfile.TemporaryDirectory(prefix="eztorch_sce-bench-") as folder, announced("merging a job"):
        started = time.perf_counter()
        job = Job.create(folder, Blank(), records, RunnerConfig.shard_records)
        seconds = time.perf_counter() - started
        work_on(folder, range(job.count), num_workers=1)
        started = time.perf_counter()
        table = merge(job).table
        seconds += time.perf_counter() - started
        row_bytes = table.nbytes / len(table)
        return MergeSpeed(len(table) / seconds, row_bytes, row_bytes - _ROW_BYTES, len(table))


def _cpu_name() -> str:
    """Return the model of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
