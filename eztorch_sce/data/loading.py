"""Loaders of batches of clips."""

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from eztorch_sce import distributed
from eztorch_sce.augment.policies import policy, view_messages
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.augment.views import Views
from eztorch_sce.cores import num_local_processes, spare_cores
from eztorch_sce.data.collate import collate
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.dataset import EpochSampler, EvaluationClips, EvaluationSampling, TrainingClips
from eztorch_sce.data.shard_batches import ShardBatches, ShardClips, ShardSize
from eztorch_sce.data.shared_memory import Supply, batch_bytes, clip_bytes, fitted
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.worker_processes import WatchedDataset, WatchedIterator, begin_worker, starting
from eztorch_sce.errors import ConfigError, LoadingError, MediaError, Stopped
from eztorch_sce.home_folders import with_home_folders
from eztorch_sce.host_memory import reuse_large_buffers
from eztorch_sce.launch import find_launch, is_first_process
from eztorch_sce.progress import print_above
from eztorch_sce.settings import invalid_settings
from eztorch_sce.types import Batch, Failure, InputSpec

_EVALUATION_BYTES = 2**25  # of a batch: with 16 workers and 2 batches each, 1 GB of shared memory
_MAX_RECORDS = 256  # more would leave workers without work where images are small


class TrainerSettings(Protocol):
    """The settings of `TrainerConfig` that divide a step, resolved for a machine."""

    accelerator: str
    accumulate: int
    devices: int | None

    @property
    def world_size(self) -> int | None:
        """Number of processes on all machines."""


class Division(NamedTuple):
    """Division of the samples of an optimizer step.

    Attributes:
        accumulate: Loader batches per optimizer step.
        world_size: Processes on all machines.
        per_machine: Processes on this machine, which share its cores and its shared memory.
        on_gpu: Whether the batches go to a GPU.
    """

    accumulate: int
    world_size: int
    per_machine: int
    on_gpu: bool

    @classmethod
    def of(cls, trainer: TrainerSettings) -> "Division":
        """Return the division among the processes of a training."""
        return cls(trainer.accumulate, trainer.world_size or 1, trainer.devices or 1, trainer.accelerator == "gpu")

    @classmethod
    def launched(cls) -> "Division":
        """Return the division among the launched processes, each of which uses its GPU if there is one."""
        return cls(1, distributed.world_size(), num_local_processes(), torch.cuda.is_available())


class TimedLoader(DataLoader[Any]):
    """DataLoader that records how long its consumer waited for batches, and ends if a worker process dies or hangs.

    Args:
        dataset: The records; an item is (epoch, record index), see `EpochSampler`.
        timeout_s: Seconds that a worker process may take for one record.
        settings: Those of `torch.utils.data.DataLoader`.

    Attributes:
        waited_s: Total waiting time in seconds.
        may_stop: Whether a signal may end the command while a batch is awaited.

    Raises:
        Stopped: In an iteration, if a signal asks the command to end.
        LoadingError: In an iteration, if a worker process dies or hangs, or shared memory or open files run out.
    """

    waited_s: float = 0.0
    may_stop: bool = True

    def __init__(self, dataset: Dataset[Any], timeout_s: float = 45.0, **settings: Any) -> None:
        self.timeout_s = timeout_s
        self._watched: WatchedIterator | None = None
        num_workers = settings.get("num_workers", 0)
        watched = WatchedDataset(dataset, num_workers) if num_workers else dataset
        super().__init__(watched, worker_init_fn=begin_worker, **settings)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        started = time.perf_counter()
        try:
            batches = starting(super().__iter__)  # starts the workers
            while True:
                batch = next(batches, None)
                self.waited_s += time.perf_counter() - started
                if batch is None:
                    return
                yield batch
                started = time.perf_counter()
        except (LoadingError, Stopped):
            self.end_workers(at_once=True)
            raise

    def feed(self, device: torch.device) -> None:
        """Deliver the batches of later iterations in page-locked memory if the device is a GPU."""
        self.pin_memory = device.type == "cuda"

    def _get_iterator(self) -> Any:
        """Return an iterator over the batches, the same for all epochs if the workers persist. Called by torch."""
        if self.num_workers == 0:
            return super()._get_iterator()
        self.check_worker_number_rationality()
        self._watched = WatchedIterator(self, self.timeout_s, self.may_stop)
        return self._watched

    def end_workers(self, at_once: bool = False) -> None:
        """End the worker processes; another iteration starts new ones.

        Args:
            at_once: Do not wait for what they read.
        """
        if self._watched is not None:
            self._watched.end(at_once)
        self._watched = self._iterator = None


def evaluation_loader(
    config: DataConfig, manifest: Manifest, spec: InputSpec, sampling: EvaluationSampling
) -> TimedLoader:
    """Return a loader of the clips and crops of each record, in the order of the manifest.

    Call `feed` with the device of the network before an iteration.
    """
    if manifest.records.all_images():
        sampling = sampling._replace(num_clips=1)  # an image has no time to spread clips over
    dataset = EvaluationClips(manifest, spec, config.build_decoder(), sampling)
    sampler = EpochSampler(len(manifest.records), seed=0, shuffle=False)
    batch_size = _batch_size_of(spec, sampling)
    supply, batch_size = _evaluation_supply(config, dataset.sample_bytes, batch_size, len(sampler))
    return TimedLoader(dataset, config.timeout_s, **_settings(sampler, batch_size, supply, is_training=False))


def shard_loader(
    config: DataConfig,
    manifest: Manifest,
    spec: InputSpec,
    samplings: Sequence[EvaluationSampling],
    sizes: Sequence[ShardSize],
) -> tuple[TimedLoader, ShardBatches]:
    """Return a loader of the clips and crops of the records of shards, and the batches that its pieces make up.

    The sizes of the batches are those of `evaluation_loader`. Call `feed` before an iteration.

    Args:
        config: Settings of the loader.
        manifest: The records of all shards, one shard after the other.
        spec: The input of the network.
        samplings: Clips and crops of the records of each split.
        sizes: The records of each shard.
    """
    decoder = config.build_decoder()
    dataset = ShardClips([EvaluationClips(manifest, spec, decoder, sampling) for sampling in samplings])
    batch_sizes = [_batch_size_of(spec, sampling) for sampling in samplings]
    num_records = -(-len(manifest.records) // distributed.world_size())
    supply, piece_size = _evaluation_supply(config, dataset.sample_bytes, max(batch_sizes), num_records)
    batches = ShardBatches(sizes, batch_sizes, piece_size)
    settings: dict[str, Any] = {"batch_sampler": batches, "collate_fn": collate, **_workers_of(supply)}
    return TimedLoader(dataset, config.timeout_s, **settings), batches


def _batch_size_of(spec: InputSpec, sampling: EvaluationSampling) -> int:
    if sampling.clips != "even":
        return 1  # videos of different length are covered by different numbers of clips, which cannot be stacked
    return evaluation_batch_size(spec, sampling.num_clips * sampling.num_crops)


def _evaluation_supply(config: DataConfig, sample_bytes: int, batch_size: int, num_records: int) -> tuple[Supply, int]:
    """Return the workers of an evaluation and the records that each loads at once, so that shared memory suffices."""
    num_processes = num_local_processes()
    wanted = Supply(min(config.workers(num_processes), -(-num_records // batch_size)), config.prefetch)
    batch_size = min(batch_size, wanted.largest_batch(sample_bytes, num_processes))
    needed = batch_bytes(batch_size, sample_bytes)
    return _fitted(wanted, needed, num_processes, "evaluation", or_none=True), batch_size


def evaluation_batch_size(spec: InputSpec, num_views: int) -> int:
    """Return the records per batch of an evaluation: as many as 32 MB hold, at least 1 and at most 256.

    A batch waits in shared memory as raw views, uint8. How many of them go through the network at once is another
    question, which `evaluation.memory` answers from the memory of the device.

    Args:
        spec: Frames and size of a view.
        num_views: Views of each record.
    """
    bytes_per_record = num_views * clip_bytes(spec.num_frames, spec.size)
    return max(1, min(_MAX_RECORDS, _EVALUATION_BYTES // bytes_per_record))


class TrainingLoader(TimedLoader):
    """Loader of the training batches of this process: each iteration is a new epoch of random clips.

    The processes and the accumulated batches of a step share `data.batch_size`. The last step of an epoch is left out
    if it has fewer samples.

    Args:
        clips: The dataset.
        sampler: Order of the records.
        config: Settings of the data.
        division: Division of an optimizer step among processes and batches.

    Attributes:
        manifest: The records.
        spec: Input of the network: give it to `extract_features`.
        supply: Worker processes, and batches that each prepares ahead.
        bytes_ahead: The most shared memory that the batches take.
        augment: Turns a batch into the views that the network receives.
        samples_per_batch: Samples of a batch of all processes together.
    """

    def __init__(self, clips: TrainingClips, sampler: EpochSampler, config: DataConfig, division: Division) -> None:
        batch_size = config.samples_per_step // (division.world_size * division.accumulate)
        sampler.divide(config.samples_per_step, batch_size)
        num_batches = len(clips) // (division.world_size * batch_size)
        wanted = Supply(min(config.workers(division.per_machine), max(1, num_batches)), config.prefetch)
        needed = batch_bytes(batch_size, clips.sample_bytes)
        supply = _fitted(wanted, needed, division.per_machine, "training")
        super().__init__(clips, config.timeout_s, **_settings(sampler, batch_size, supply, is_training=True))
        self.may_stop = division.world_size == 1  # several processes learn of the signal in their next step
        self.pin_memory = division.on_gpu
        self.supply, self.bytes_ahead = supply, supply.bytes_for(needed)
        self.manifest, self.spec = clips.manifest, clips.spec
        self.augment = Views(clips.views, clips.seed, clips.canvas)
        self.augment.num_threads = spare_cores(supply.num_workers, division.per_machine)
        self.samples_per_batch = batch_size * division.world_size
        self._order, self._epoch, self._num_samples = sampler, 0, 0
        reuse_large_buffers()

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._epoch, self._num_samples = self._order.epoch, self._order.num_skipped
        for batch in super().__iter__():
            self._num_samples += self.samples_per_batch
            yield batch
        self._epoch, self._num_samples = self._epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """Return the place in the data: the epoch, and the samples of all processes that it has delivered."""
        return {"epoch": self._epoch, "samples": self._num_samples}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration go on from a place; the number of processes and workers may be another than before."""
        self._order.start_at(state["epoch"], state["samples"])
        self._epoch, self._num_samples = state["epoch"], state["samples"]


def training_clips(
    config: DataConfig, manifest: Manifest, views: list[ViewConfig], spec: InputSpec, seed: int
) -> TrainingClips:
    """Return the dataset of random clips of a training."""
    return TrainingClips(manifest, views, spec, config.build_decoder(), seed, config.canvas, config.near_power)


class ReportingLoader(TrainingLoader):
    """Training loader for your own loop, which reports unreadable files as the training commands do.

    A file that cannot be read is left out of its batch with a warning, or raises MediaError if `data.on_error=raise` or
    if more than `data.max_unreadable` of the records cannot be read.
    """

    def __init__(self, clips: TrainingClips, sampler: EpochSampler, config: DataConfig) -> None:
        super().__init__(clips, sampler, config, Division.launched())
        self.unreadable: set[str] = set()
        self.most_unreadable = config.max_unreadable * len(clips) if config.on_error == "skip" else 0.0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            for failure in batch.failures:
                self._report(failure)
            if len(batch.record) >= 2 or not batch.failures:
                yield batch
            elif distributed.world_size() > 1:  # the other processes take the step, and wait for this one
                first = batch.failures[0]
                raise MediaError(first.path, f"{first.reason}. Too few files of a batch can be read to train on it")

    def _report(self, failure: Failure) -> None:
        if failure.path in self.unreadable:
            return
        self.unreadable.add(failure.path)
        if len(self.unreadable) > self.most_unreadable:
            count = f"{len(self.unreadable)} of {len(self.manifest.records)} files"
            cure = "repair or remove them, or raise data.max_unreadable"
            raise MediaError(failure.path, f"{failure.reason}. {count} could not be read: {cure}")
        warnings.warn(f"left out of training: {failure.path}: {failure.reason}", stacklevel=4)


def training_loader(config: DataConfig, views: str | Sequence[ViewConfig], seed: int = 0) -> TrainingLoader:
    """Open data and return a loader of batches to train on in your own loop.

    Records and draws are those of `pretrain` with the same settings: labeled data without a test split are divided, and
    the part that an evaluation tests on is left out. Settings of the clips that are null are those of `InputSpec`.

    Where several processes are launched (by torchrun, for instance), call `torch.distributed.init_process_group` first.

    Args:
        config: The data, and the batch size of an optimizer step over all processes.
        views: The views of each sample, or the name of a published list of views.
        seed: Seed of the order, the clips and the views.

    Raises:
        ConfigError: If settings are invalid, files are missing, there are fewer records than samples in a batch, or
            processes were launched and are not connected.
    """
    view_configs = policy(views) if isinstance(views, str) else list(views)
    config = with_home_folders(config)
    if messages := [*invalid_settings(config, "data"), *view_messages(view_configs), *_process_messages(config)]:
        raise ConfigError(messages)
    manifest = config.open_for_pretraining(seed).train
    check_batch_size(config, manifest)
    view_configs = [view.filled_in(InputSpec()) for view in view_configs]
    spec = input_spec(config, manifest, InputSpec(), view_configs[0])
    clips = TrainingClips(manifest, view_configs, spec, config.build_decoder(), seed, config.canvas, config.near_power)
    return ReportingLoader(clips, EpochSampler(len(manifest.records), seed, shuffle=True), config)


def input_spec(data: DataConfig, manifest: Manifest, base: InputSpec, view: ViewConfig | None = None) -> InputSpec:
    """Return the input of a network: `base`, overridden by the settings of the data and of the view."""
    if manifest.records.all_images():
        data = replace(data, num_frames=1)  # an image is a clip with T = 1
    spec = replace(base, num_frames=data.num_frames or base.num_frames, clip_s=data.clip_s or base.clip_s)
    if data.frame_stride or data.clip_s:  # overrides the sampling that the weights were trained with
        spec = replace(spec, frame_stride=data.frame_stride)
    if view is None:
        return spec
    return replace(spec, size=view.size or spec.size, stats=view.stats or spec.stats, input=view.input or spec.input)


def check_batch_size(data: DataConfig, manifest: Manifest) -> None:
    """Raise ConfigError if a batch has more samples than there are records."""
    num_records, batch_size = len(manifest.records), data.samples_per_step
    if num_records < batch_size:
        raise ConfigError(
            [
                f"data.batch_size={batch_size} is more than the {num_records} records of {manifest.source}: "
                f"set it to {num_records} or less"
            ]
        )


def _process_messages(config: DataConfig) -> list[str]:
    """Return a message if launched processes are not connected, or cannot share a batch equally."""
    launch, world_size = find_launch(), distributed.world_size()
    if launch is not None and launch.world_size > 1 and world_size == 1:
        started = f"{launch.launcher} started {launch.world_size} processes ({launch.variables})"
        return [f"{started}, which are not connected: call torch.distributed.init_process_group first"]
    if config.samples_per_step % world_size:
        nearest = max(1, round(config.samples_per_step / world_size)) * world_size
        what = f"data.batch_size={config.samples_per_step} is divided among {world_size} processes"
        return [f"{what}: set a multiple of {world_size}, such as {nearest}"]
    return []


def _fitted(wanted: Supply, batch: int, num_processes: int, title: str, or_none: bool = False) -> Supply:
    """Return the workers and batches ahead that fit into shared memory, and print a note if they are fewer.

    Args:
        wanted: Workers and batches ahead of each process.
        batch: Bytes of a batch.
        num_processes: Processes of the run on this machine.
        title: What is loaded.
        or_none: Load without workers if none fits, instead of raising an error.

    Raises:
        ConfigError: If no worker fits.
    """
    try:
        supply, note = fitted(wanted, batch, num_processes, title)
    except ConfigError as error:
        if not or_none:
            raise
        supply, note = Supply(0, wanted.prefetch), f"{error.problems[0]}. It now loads without workers"
    if note and is_first_process():
        print_above(f"note: {note}")
    return supply


def _settings(sampler: EpochSampler, batch_size: int, supply: Supply, is_training: bool) -> dict[str, Any]:
    """Return the settings of a DataLoader. In training, the last small batch is left out, and the workers persist."""
    return {
        "batch_size": batch_size,
        "sampler": sampler,
        **_workers_of(supply),
        "collate_fn": collate,
        "drop_last": is_training,
        "persistent_workers": is_training and supply.num_workers > 0,
    }


def _workers_of(supply: Supply) -> dict[str, Any]:
    return {
        "num_workers": supply.num_workers,
        "prefetch_factor": supply.prefetch if supply.num_workers else None,
    }
