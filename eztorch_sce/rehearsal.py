"""Dry run of a command: everything is checked that can fail, a few records are read, and nothing is written.

Data, weights and network are opened by the functions that the command itself calls.
"""

import math
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from typing_extensions import Unpack

from eztorch_sce import signals
from eztorch_sce.config import schema
from eztorch_sce.config.fit import fit_finetuning, fit_to_data
from eztorch_sce.config.parts import CommandConfig
from eztorch_sce.config.set_where import names_origins
from eztorch_sce.data.collate import stack
from eztorch_sce.data.dataset import EpochSampler
from eztorch_sce.data.loading import Division, TrainingLoader, training_clips
from eztorch_sce.data.shared_memory import in_units
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.distributed import local_device
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.evaluation.base import EvaluationConfig, ExtractConfig, FeaturesConfig
from eztorch_sce.evaluation.features import RecordViews, read_features
from eztorch_sce.evaluation.linear import LinearConfig
from eztorch_sce.extraction import open_classifier, open_for_features, rehearse_shards, views_of
from eztorch_sce.launch import refuse_several
from eztorch_sce.methods.base import build_method
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.models.modes import evaluation_mode
from eztorch_sce.models.weights import BACKBONE_FILE, CLASSIFIER_FILE
from eztorch_sce.objects import is_ours, title_of
from eztorch_sce.opening import (
    BackboneSource,
    Network,
    Objects,
    Opened,
    open_labeled,
    open_training,
    summarize,
    with_objects,
    with_settings_of_weights,
)
from eztorch_sce.planning.plan import needed_memory
from eztorch_sce.precision import precision_on
from eztorch_sce.progress import in_words
from eztorch_sce.report.run_decision import AGAIN, FINISHED, GOING_ON, NEW, existing_parent
from eztorch_sce.report.run_directory import planned_run_dir
from eztorch_sce.training.checkpoint_files import CHECKPOINTS
from eztorch_sce.training.config import TrainerConfig
from eztorch_sce.types import Batch, Failure, Sample
from eztorch_sce.waiting import announced

_TOPICS = (
    *("run", "features", "network", "records", "shards", "runner", "views", "decoding", "loading"),
    *("device", "steps", "memory", "time", "writes"),
)
_DECISIONS = {
    AGAIN: "the run there ended before its first checkpoint and starts again",
    GOING_ON: "the run there goes on",
    FINISHED: "the run there is finished, so nothing is left to do",
}
_COLUMN = 12  # where the text of a topic starts
_NUM_RECORDS = 4  # read as a sample: spread over the split
_NUM_TIMED = 2  # records in a timed step: batch statistics need two
_PER_WEIGHT = {"sgd": 1, "lars": 1, "adamw": 2}  # numbers that an optimizer keeps for each
_SLOW_S = 1.0  # of a pass that is timed once only
_MARGIN = 2**20  # bytes for settings, metrics and predictions


@dataclass
class DryRun:
    """What a command would do.

    Attributes:
        command: The command.
        rows: What was found and what would happen, in words, by topic.
        run_dir: The run directory that the command would use.
        script: Lines of the job script that would be submitted, if any.
    """

    command: str
    rows: dict[str, str]
    run_dir: Path
    script: Sequence[str] = ()

    def lines(self, width: int) -> list[str]:
        """Return the lines to print, at most `width` characters wide."""
        lines, indent = [f"dry run of {self.command}: no mistakes found, and nothing was written"], " " * _COLUMN
        for topic in sorted(self.rows, key=_TOPICS.index):
            first = f"  {topic}".ljust(_COLUMN)
            lines += textwrap.wrap(self.rows[topic], width, initial_indent=first, subsequent_indent=indent)
        return [*lines, *self.script]


@names_origins
def dry_run(config: CommandConfig, **objects: Unpack[Objects]) -> DryRun:
    """Check a training or an evaluation without running it, in seconds, and return what it would do.

    Beside the settings, it checks that the data are found and have the labels and classes that are needed, that a few
    records can be decoded, that weights fit the network and the network the data, and that memory, shared memory and
    the disk have room. Nothing is written.

    Args:
        config: The config of `pretrain`, `finetune`, `test`, `extract` or an evaluation.
        objects: Python objects in the place of settings, see `opening.Objects`.

    Raises:
        ConfigError: With all problems at once.
    """
    refuse_several("a dry run")
    config = with_objects(config, CommandConfig, objects)
    rehearsal = _Rehearsal(config)
    with rehearsal.collecting():
        rehearsal.plan_run()
    with rehearsal.collecting():
        rehearsal.open(objects.get("backbone"))
    if rehearsal.problems:
        raise ConfigError(rehearsal.problems)
    return DryRun(rehearsal.command, rehearsal.rows, rehearsal.run_dir, rehearsal.script)


def _command_of(config: CommandConfig) -> str:
    names = {schema.PretrainConfig: "pretrain", schema.FinetuneConfig: "finetune", ExtractConfig: "extract"}
    names[schema.ClassifierTestConfig] = "test"
    if isinstance(config, EvaluationConfig):
        return title_of(config)
    if type(config) not in names:
        raise TypeError(
            f"expected the config of pretrain, finetune, test, extract or an evaluation, got {type(config).__name__}"
        )
    return names[type(config)]


@dataclass
class _Rehearsal:
    """A dry run in progress, with the problems found so far."""

    config: CommandConfig
    problems: list[str] = field(default_factory=list)
    rows: dict[str, str] = field(default_factory=dict)
    run_dir: Path = Path()
    script: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.command = _command_of(self.config)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Note the problems of a stage; what does not depend on it is still checked."""
        try:
            yield
        except ConfigError as error:
            self.problems += error.problems
        except MediaError as error:
            self.problems.append(f"cannot read {error}")

    def plan_run(self) -> None:
        """Find the run directory, and check what the command would do there."""
        self.run_dir, decision = planned_run_dir(self.command, self.config)
        self.config = decision.config
        if decision.kind != NEW:
            changes = "".join(f"; {each.setting} changes from {each.before} to {each.now}" for each in decision.changes)
            self.rows["run"] = f"{self.run_dir}: {_DECISIONS[decision.kind]}{changes}"

    def open(self, backbone: Network | None) -> None:
        """Open what the command opens, and check it."""
        config = self.config
        if isinstance(config, schema.PretrainConfig):
            self._pretrain(config)
        elif isinstance(config, schema.FinetuneConfig) or (isinstance(config, LinearConfig) and config.views):
            self._train_with_labels(config, backbone)
        elif isinstance(config, schema.ClassifierTestConfig):
            opened, _ = open_classifier(config, backbone)
            self._network(opened.backbone, opened)
            self._evaluate(config, opened, [opened.labeled_test])
        elif isinstance(config, FeaturesConfig):
            self._features(config, backbone)

    def _pretrain(self, config: schema.PretrainConfig) -> None:
        config = with_settings_of_weights(config)
        splits = config.data.open_for_pretraining(config.seed)
        if config.online.every_n_epochs:
            config.online.open(config.data, config.seed)
        summarize(splits, config.data.seen_by_pretraining(splits))
        config, _ = fit_to_data(config, splits.train)
        source = BackboneSource.for_pretraining(config)
        opened = open_training(config.data, splits, config.views, source, config.seed)
        method, _ = build_method(config.method, config.loss, opened.backbone)
        assert isinstance(method, nn.Module)
        self._network(method, opened)
        with self.collecting():
            self._memory(config)
        with self.collecting():
            batch, seconds = self._loading(config.data, opened, config.trainer, config.seed)
            step_s = None
            if config.trainer.accelerator == "cpu" and batch is not None:
                step_s = _step_seconds(lambda views: method(views).loss, batch, config.data.samples_per_step)
            self._length(len(splits.train.records), config.data.samples_per_step, config.trainer, step_s, seconds)
        self._disk(
            {
                CHECKPOINTS: config.run.keep * (_bytes(method) + _optimizer_bytes(method, config.optimizer)),
                BACKBONE_FILE: _bytes(opened.backbone) * _num_saved(config),
            },
            config.run.keep,
        )

    def _train_with_labels(self, config: schema.FinetuneConfig | LinearConfig, backbone: Network | None) -> None:
        """Check classifier training on random views: `finetune`, or `linear` with views."""
        source = BackboneSource.of(config, backbone)
        splits = open_labeled(config.data, config.seed, source)
        summarize(splits)
        is_finetuning = isinstance(config, schema.FinetuneConfig)
        if isinstance(config, schema.FinetuneConfig):
            config = fit_finetuning(config, splits.train)
        opened = open_training(config.data, splits, config.views, source, config.seed)
        classifier = Classifier(opened.backbone, len(opened.train.classes))
        self._network(classifier, opened)
        with self.collecting():
            batch, seconds = self._loading(config.data, opened, config.trainer, config.seed)
            step_s = None
            if config.trainer.accelerator == "cpu" and batch is not None:
                samples = config.data.samples_per_step
                step_s = _step_seconds(lambda views: classifier(views[0]).sum(), batch, samples, learns=is_finetuning)
            self._length(len(splits.train.records), config.data.samples_per_step, config.trainer, step_s, seconds)
        with self.collecting():
            self._read(views_of(config, opened, opened.labeled_test, "test split", torch.device("cpu")))
        state = _bytes(classifier) + _optimizer_bytes(classifier, config.optimizer)
        self._disk({CHECKPOINTS: config.run.keep * state, CLASSIFIER_FILE: _bytes(classifier)}, config.run.keep)

    def _features(self, config: FeaturesConfig, backbone: Network | None) -> None:
        labeled = isinstance(config, EvaluationConfig)
        if config.features is not None:
            banks = read_features(config.features, labeled)
            if isinstance(config, EvaluationConfig):
                config.check_records(banks[0].labels, banks[1].labels, banks[0].classes)
            sizes = ", ".join(
                f"{len(bank.features)} {name}" for bank, name in zip(banks, ("train", "test"), strict=True)
            )
            self.rows["features"] = f"{sizes} records of {banks[0].features.shape[1]} numbers"
            return self._disk({})
        opened, _ = open_for_features(config, backbone, labeled)
        self._network(opened.backbone, opened)
        if isinstance(config, ExtractConfig):
            with self.collecting():
                self.rows["shards"], *described = rehearse_shards(config, opened, self.run_dir)
                self.rows |= {"runner": described[0]} if described else {}
                self.script = described[1:]
        self._evaluate(config, opened, [split for split in (opened.train, opened.test) if split is not None])

    def _evaluate(
        self, config: FeaturesConfig | schema.ClassifierTestConfig, opened: Opened, splits: Sequence[Manifest]
    ) -> None:
        """Check an evaluation on clips and crops of some splits."""
        device = local_device(config.accelerator)
        self.rows["device"] = f"{device.type}, {precision_on(device, config.precision)}"
        total_s = 0.0
        for number, split in enumerate(splits):
            with self.collecting():
                views = views_of(config, opened, split, "records", torch.device("cpu"))
                batch, load_s = self._read(views)
                clips = sum(len(frames) for frames in batch.frames)
                per_record = len(batch.frames)
                compute_s = 0.0 if device.type != "cpu" else _forward_seconds(opened.backbone, batch) / clips
                workers = max(1, views.loader.num_workers)
                total_s += len(split.records) * max(load_s / workers, compute_s * per_record)
                if number == 0:
                    spec = opened.spec
                    each = f"{spec.num_frames} frames of {spec.size} px" if spec.num_frames > 1 else f"{spec.size} px"
                    self.rows["views"] = f"{per_record} per record, {each}"
        self.rows["records"] = ", ".join(f"{len(split.records)} ({split.source})" for split in splits)
        computed = "" if device.type == "cpu" else ", if the GPU is not slower than loading"
        self.rows["time"] = f"about {in_words(total_s)}{computed}"
        num_features = opened.backbone.num_features
        is_written = isinstance(config, ExtractConfig)
        size = sum(4 * len(split.records) * num_features for split in splits)
        self._disk({"features_train.pt, features_test.pt": size} if is_written else {})

    def _network(self, network: nn.Module, opened: Opened) -> None:
        weights = f", weights={opened.source.file}" if opened.source.file else ""
        own, everything = (_short(_count(each)) for each in (opened.backbone, network))
        more = f"; {everything} with heads and copies" if everything != own else ""
        self.rows["network"] = f"{title_of(opened.source.config)}, {own} parameters{more}{weights}"

    def _loading(
        self, data: Any, opened: Opened, trainer: TrainerConfig, seed: int
    ) -> tuple[list[Tensor] | None, float]:
        """Read some records, and return their views for a step and the seconds per record of all workers together."""
        clips = training_clips(data, opened.train, opened.views, opened.spec, seed)
        loader = TrainingLoader(clips, EpochSampler(len(clips), seed, shuffle=True), data, Division.of(trainer))
        batch, load_s = self._sampled(clips, opened.train, data.decoder_name())
        spec = opened.spec
        sizes = " + ".join(str(view.size) for view in opened.views)
        frames = f"{spec.num_frames} frames of " if spec.num_frames > 1 else ""
        self.rows["views"] = f"{len(opened.views)} per record: {frames}{sizes} px"
        self.rows["loading"] = f"{loader.supply}; at most {in_units(loader.bytes_ahead)} of shared memory per process"
        return loader.augment(batch).views, load_s / max(1, loader.supply.num_workers) / (trainer.devices or 1)

    def _read(self, views: RecordViews) -> tuple[Batch, float]:
        dataset = views.loader.dataset
        dataset = getattr(dataset, "dataset", dataset)  # inside the one that watches the workers
        batch, seconds = self._sampled(dataset, views.manifest, views.protocol["decoder"])
        cure = "evaluations need every file: repair it or leave it out"
        self.problems += [f"cannot read {each.path}: {each.reason}; {cure}" for each in batch.failures]
        return batch, seconds

    def _sampled(self, dataset: Dataset[Any], manifest: Manifest, decoder: str) -> tuple[Batch, float]:
        """Read some records spread over a split, and return them as a batch and the seconds per record."""
        num_records = len(manifest.records)
        decoder = "" if manifest.records.all_images() else f" by {decoder}"
        indices = sorted({num_records * part // _NUM_RECORDS for part in range(_NUM_RECORDS)})
        items: list[Sample | Failure] = []
        times = [time.perf_counter()]
        for index in indices:
            items.append(dataset[0, index])
            times.append(time.perf_counter())
        seconds = float(np.median(np.diff(times)))  # the first one also starts the decoder
        failures = [item for item in items if isinstance(item, Failure)]
        if len(failures) == len(items):
            raise MediaError(failures[0].path, f"{failures[0].reason} (and none of {len(items)} records can be read)")
        unreadable = f"; unreadable: {failures[0].path}: {failures[0].reason}" if failures else ""
        read = f"{len(items) - len(failures)} of {len(items)} sampled records read{decoder}"
        self.rows["decoding"] = f"{read}, {_short_s(seconds)} each{unreadable}"
        num_views = next(len(item.frames) for item in items if isinstance(item, Sample))
        return stack([item for item in items if isinstance(item, Failure) or len(item.frames) == num_views]), seconds

    def _memory(self, config: schema.PretrainConfig) -> None:
        """Compare the memory that the training needs with that of the device."""
        if not all(is_ours(each) for each in (config.backbone, config.method, config.loss)):
            self.rows["memory"] = "not estimated: the backbone, method or loss is not from this package"
            return
        with announced("measuring the networks"):
            needed = needed_memory(config)
        on_gpu = config.trainer.accelerator == "gpu"
        available = torch.cuda.mem_get_info(0)[0] if on_gpu else _free_host_memory()
        if available is not None and needed > available:
            kind = "the GPU" if on_gpu else "this machine"
            cures = "set a smaller data.batch_size, trainer.accumulate=2 or trainer.checkpointing=true"
            needs = f"data.batch_size={config.data.batch_size} needs about {in_units(needed)} of memory"
            raise ConfigError([f"{needs}, and {kind} has {in_units(available)} free: {cures}"])
        free = "" if available is None else f", of {in_units(available)} free"
        self.rows["memory"] = f"about {in_units(needed)} for tensors{free}"

    def _length(
        self, num_records: int, batch: int, trainer: TrainerConfig, step_s: float | None, load_s: float
    ) -> None:
        steps = max(1, num_records // batch)
        total = steps * trainer.epochs
        self.rows["device"] = f"{trainer.devices} x {trainer.accelerator}, {trainer.precision}"
        self.rows["steps"] = f"{total}: {trainer.epochs} epochs of {steps} steps of {batch} records"
        loading_s = load_s * batch
        if step_s is None:
            self.rows["time"] = (
                f"at least {in_words(total * loading_s)}, for loading alone; `plan` estimates the time on GPUs"
            )
        else:
            self.rows["time"] = f"about {in_words(total * max(step_s, loading_s))}, from one step"

    def _disk(self, files: Mapping[str, int], keep: int = 1) -> None:
        """Compare the size of what would be written, `keep` checkpoints among it, with the free space."""
        needed = sum(files.values()) + _MARGIN
        free = shutil.disk_usage(existing_parent(self.run_dir)).free
        needed += files.get(CHECKPOINTS, 0) // keep  # a new one is complete before the oldest is removed
        if needed > free:
            where = f"run.dir={self.run_dir}"
            cure = "free some space, or choose a folder on another disk"
            self.problems.append(f"{where} needs {in_units(needed)}, and its disk has {in_units(free)} free: {cure}")
        listed = ", ".join(f"{name} {in_units(size)}" for name, size in files.items()) or "results"
        self.rows["writes"] = f"{self.run_dir}: {listed}; {in_units(free)} free"


def _step_seconds(
    loss: Callable[[list[Tensor]], Tensor], views: list[Tensor], batch_size: int, learns: bool = True
) -> float:
    """Return the seconds of a forward and backward pass of a batch, on the CPU, from a pass of fewer records."""

    def timed(count: int) -> float:
        return _seconds_of(lambda: _passes(loss, _repeated(views, count), learns))

    count = _NUM_TIMED
    seconds = timed(count)
    if seconds < _SLOW_S:  # the first pass of a quick network mostly takes the time of its start
        seconds = timed(count)
    if seconds < _SLOW_S / 2:  # and that of few records the time of its launches
        count = max(_NUM_TIMED, min(batch_size, int(_NUM_TIMED * _SLOW_S / 2 / seconds)))
        seconds = timed(count)
    return seconds * batch_size / count


def _repeated(views: list[Tensor], count: int) -> list[Tensor]:
    """Return views of `count` records, each record as often as needed."""
    return [view[torch.arange(count) % len(view)] for view in views]


def _passes(loss: Callable[[list[Tensor]], Tensor], views: list[Tensor], learns: bool) -> None:
    with torch.set_grad_enabled(learns):
        value = loss(views)
        if learns:
            value.backward()


def _seconds_of(function: Callable[[], object]) -> float:
    signals.poll()
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _forward_seconds(backbone: nn.Module, batch: Batch) -> float:
    """Return the seconds of a forward pass of a sample batch, on the CPU: of one view, times their number."""
    frames = batch.frames[0].float() / 255
    with evaluation_mode(backbone):
        seconds = _seconds_of(lambda: backbone(frames))
        return len(batch.frames) * (_seconds_of(lambda: backbone(frames)) if seconds < _SLOW_S else seconds)


def _short_s(seconds: float) -> str:
    """Return a short time.

    >>> _short_s(0.0021), _short_s(0.324), _short_s(4.99)
    ('2.1 ms', '324 ms', '5.0 s')
    """
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.1f} ms"


def _bytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def _optimizer_bytes(network: nn.Module, optimizer: object) -> int:
    learned = sum(parameter.nbytes for parameter in network.parameters() if parameter.requires_grad)
    return _PER_WEIGHT.get(title_of(optimizer), 2) * learned


def _num_saved(config: schema.PretrainConfig) -> int:
    every = config.run.save_every_n_epochs
    return 1 + (0 if every is None else math.ceil(config.trainer.epochs / every))


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _short(count: int) -> str:
    """Return a number of parameters in words.

    >>> _short(11_689_512), _short(340)
    ('11.7 million', '340')
    """
    if count >= 1e6:
        return f"{count / 1e6:.3g} million"
    return f"{count / 1e3:.3g} thousand" if count >= 1e3 else str(count)


def _free_host_memory() -> int | None:
    """Return the bytes of memory that are free on this machine; None where the system does not say."""
    file = Path("/proc/meminfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
