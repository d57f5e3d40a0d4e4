"""`eztorch-sce replay`: a step of a training again, with its records, its views and the numbers of its layers.

The run directory is read, never written to.
"""

import csv
import json
import platform
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from eztorch_sce import tensor_file
from eztorch_sce.config import schema
from eztorch_sce.config.fit import fit_finetuning, fit_to_data
from eztorch_sce.config.in_python import recipe
from eztorch_sce.config.set_where import names_origins
from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.data.view_samples import RecordViews, record_views
from eztorch_sce.errors import ConfigError, DamagedFileError
from eztorch_sce.files import open_text
from eztorch_sce.launch import refuse_several
from eztorch_sce.methods.base import build_method
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.opening import BackboneSource, Objects, Opened, open_labeled, open_training, with_objects
from eztorch_sce.progress import counting, print_above
from eztorch_sce.report.versions import installed_versions
from eztorch_sce.settings import chosen
from eztorch_sce.training.checkpoint_files import checkpoint_files, step_of
from eztorch_sce.training.nonfinite_files import facts_of, kept_steps, state_file
from eztorch_sce.types import Failure

if TYPE_CHECKING:
    from eztorch_sce.training.classify_module import ClassifyModule
    from eztorch_sce.training.layer_watch import Place
    from eztorch_sce.training.pretrain_module import PretrainModule
    from eztorch_sce.training.replay import ReplayGuard

_TRAININGS: Mapping[type, str] = {schema.PretrainConfig: "pretrain", schema.FinetuneConfig: "finetune"}
_FEW_STEPS = 2  # worker processes would take longer to start than to read these


@dataclass
class Replay:
    """A step that was taken again.

    Attributes:
        step: Number of the step: how many steps come before it.
        epoch: Number of epochs before it.
        start: File of the state that the replay started from; None for the start of the training.
        losses: Loss of each batch of the step; None of a batch that had too few readable samples.
        kept: What the run kept of the step, see `nonfinite_files`; None if it kept nothing.
        logged: The loss that the run logged for the step; None if it was not logged.
        same_views: Whether the views are those of the run, bit for bit; None if the run kept no digest of them.
        records: Records of the step with their views and what these drew.
        failures: Records of the step that could not be read.
        place: Where the step first held a number that is not finite; None if all are finite.
        samples: View and path of each sample that the numbers at `place` belong to; empty if that is not known.
        notes: Why the numbers may differ from those of the run.
    """

    step: int
    epoch: int
    start: Path | None
    losses: list[float | None]
    kept: dict[str, Any] | None
    logged: float | None
    same_views: bool | None
    records: list[RecordViews]
    failures: list[Failure]
    place: "Place | None"
    samples: list[tuple[int, str]]
    notes: list[str]


@names_origins
def replay(
    run_dir: str | Path,
    step: int | None = None,
    *,
    accelerator: str | None = None,
    data_root: str | None = None,
    **objects: Any,
) -> Replay:
    """Take a step of a training again, and find where it first held a number that is not finite.

    On a CPU, with as many threads and processes as the run, the loss is that of the run bit for bit. If an earlier step
    is the first that is not finite, that one is replayed.

    Args:
        run_dir: Run directory of `pretrain` or `finetune`.
        step: Number of the step; None for the latest that the run kept because it was not finite.
        accelerator: "cpu", "gpu" or "auto"; None for the hardware of the run.
        data_root: Folder of the data, if they are no longer where the run read them.
        objects: Python objects that the run was given, as `pretrain` or `finetune` takes them.

    Raises:
        ConfigError: If there is no such run, step, device or data.
        MediaError: If too many files cannot be read.
    """
    refuse_several("replay")
    run = _Run.open(Path(run_dir), accelerator, data_root, objects)
    kept = kept_steps(run.directory)
    if step is None and not kept:
        raise ConfigError([f"{run.directory} keeps no step that was not finite: say which to replay, as in step=100"])
    wanted = kept[-1] if step is None else step
    guard = _take(run, wanted)
    if (earlier := guard.earlier) is not None:
        print_above(f"note: step {earlier}, before step {wanted}, is not finite: it is replayed")
        guard = _take(run, earlier)
    return _result(run, guard)


class _Start(NamedTuple):
    """State before a step: its file and content, or None for the start of the training."""

    step: int
    checkpoint: tuple[Path, dict[str, Any]] | None


@dataclass
class _Run:
    """A run whose steps are taken again.

    Attributes:
        directory: Run directory.
        config: Its settings, for a training in this process alone.
        original: Its settings as they were.
        objects: Python objects that it was given.
        module, data: Network and data of the last replay.
        start: State that the last replay started from.
    """

    directory: Path
    config: Any
    original: Any
    objects: dict[str, Any]
    module: "PretrainModule | ClassifyModule | None" = None
    data: TrainingData | None = None
    start: _Start = field(default_factory=lambda: _Start(0, None))

    @classmethod
    def open(cls, run_dir: Path, accelerator: str | None, data_root: str | None, objects: dict[str, Any]) -> "_Run":
        """Read the settings of a run."""
        file = run_dir / "config.yaml"
        if not file.is_file():
            raise ConfigError([f"{run_dir} is not a run directory: it has no config.yaml"])
        choices = {name: value for name, value in objects.items() if name in ("backbone", "loss", "method")}
        original = recipe(str(file), **choices)
        if type(original) not in _TRAININGS:
            raise ConfigError([f"{run_dir} is not a run of pretrain or finetune, whose steps can be replayed"])
        settings = original.trainer
        trainer = replace(
            settings,
            accelerator=accelerator or settings.accelerator,
            devices=1,
            num_nodes=1,
            strategy="auto",
            sync_batchnorm=False,
            compile=False,
        )
        if trainer.accelerator == "gpu" and not torch.cuda.is_available():
            raise ConfigError([f"{run_dir} was trained on a GPU, and torch finds none here: add accelerator=cpu"])
        if trainer.precision == "16-mixed" and not torch.cuda.is_available():
            trainer = replace(trainer, precision="32-true")
        config = replace(original, trainer=trainer)
        if data_root is not None:
            config = replace(config, data=replace(config.data, root=data_root))
        of_data: Objects = {name: objects[name] for name in ("data", "test_data", "backbone") if name in objects}  # type: ignore[assignment]
        return cls(run_dir, with_objects(config, type(config), of_data), original, objects)

    def build(self) -> None:
        """Open the data and build the network, as the command of the run does."""
        opened = self._open()
        config = self.config
        loaded = TrainingData(config.data, opened.train, opened.views, opened.spec, config.seed, config.trainer)
        self.data, views = loaded, loaded.augmentation
        batch_size = config.data.samples_per_step
        if isinstance(config, schema.PretrainConfig):
            from eztorch_sce.training.pretrain_module import PretrainModule

            method, loss = build_method(config.method, config.loss, opened.backbone)
            optimizer = chosen(config.optimizer)
            self.module = PretrainModule(method, views, optimizer, config.schedule, batch_size, config.ramps, loss)
            return
        from eztorch_sce.training.classify_module import ClassifyModule

        classifier = Classifier(opened.backbone, len(opened.train.classes), config.dropout)
        rates = config.layer_decay, config.mixup
        self.module = ClassifyModule(classifier, views, config.optimizer, config.schedule, batch_size, *rates)

    def _open(self) -> Opened:
        config = self.config
        if isinstance(config, schema.PretrainConfig):
            splits = config.data.open_for_pretraining(config.seed)
            self.config, _ = fit_to_data(config, splits.train)
            source = BackboneSource.for_pretraining(self.config)
        else:
            source = BackboneSource.of(config, self.objects.get("backbone"))
            splits = open_labeled(config.data, config.seed, source)
            self.config = fit_finetuning(config, splits.train)
        return open_training(self.config.data, splits, self.config.views, source, self.config.seed)

    def starting_state(self, step: int) -> _Start:
        """Return the latest intact state at or before a step."""
        files = [(kept, state_file(self.directory, kept)) for kept in kept_steps(self.directory)]
        files += [(step_of(file), file) for file in checkpoint_files(self.directory)]
        for before, file in sorted(files, reverse=True):
            if before <= step:
                try:
                    return _Start(before, (file, tensor_file.read(file)))
                except (DamagedFileError, OSError) as error:
                    print_above(f"note: {error}; an earlier state is used")
        return _Start(0, None)


def _take(run: _Run, step: int) -> "ReplayGuard":
    """Take the steps of a run up to one, and watch that one."""
    from eztorch_sce.training.nonfinite_files import NonFiniteFiles
    from eztorch_sce.training.replay import Replayed, ReplayGuard
    from eztorch_sce.training.trainer import fit_again

    run.start = run.starting_state(step)
    if run.start.checkpoint is not None:
        progress = run.start.checkpoint[1]["progress"]
        run.config = replace(run.config, trainer=replace(run.config.trainer, max_epochs=progress["epochs"]))
    num_before = step - run.start.step
    if num_before < _FEW_STEPS:
        run.config = replace(run.config, data=replace(run.config.data, num_workers=0))
    run.build()
    assert run.data is not None
    assert run.module is not None
    total = run.config.trainer.epochs * (len(run.data.dataset) // run.config.data.samples_per_step)
    if step >= total:
        raise ConfigError([f"step={step}: the training has {total} steps, from 0 to {total - 1}"])
    with ExitStack() as stack:
        advance = stack.enter_context(counting(num_before, "replay: steps before")) if num_before else lambda: None
        files = NonFiniteFiles(run.directory, lambda index: "", {})
        guard = ReplayGuard(files, run.config.trainer, step, advance)
        try:
            fit_again(run.module, run.data, run.config, run.start.checkpoint, guard)
        except Replayed:
            return guard
    raise ConfigError([f"step={step} was not taken: the data hold fewer batches than the run had"])


def _result(run: _Run, guard: "ReplayGuard") -> Replay:
    """Return what a replay has found."""
    assert run.data is not None
    assert run.module is not None
    batches = guard.batches
    records, dataset, augmentation = list[RecordViews](), run.data.dataset, run.data.augmentation
    for watched in batches:
        epochs = torch.full_like(watched.batch.record, guard.epoch)
        records += record_views(dataset, augmentation, watched.batch, epochs)
    found = next((watched for watched in batches if watched.watch.first is not None), None)
    place = None if found is None else found.watch.first
    samples = []
    if found is not None and place is not None:
        paths = [dataset.manifest.records[index].path for index in found.batch.record.tolist()]
        samples = [(view, paths[row]) for view, row in place.samples]
    kept = facts_of(run.directory, guard.step)
    same_views = _same_views(kept, [watched.views for watched in batches])
    notes = _notes(run, kept)
    if same_views is False:
        notes.append("the views are not those of the run: its files or its data settings have changed since")
    elif kept is not None and place is None:
        notes.append(
            "the step is finite here: it depended on what neither the state nor the data hold, such as another "
            "process, or a counter that an own loss or method keeps outside of its buffers"
        )
    failures = [failure for watched in batches for failure in watched.batch.failures]
    return Replay(
        guard.step,
        guard.epoch,
        None if run.start.checkpoint is None else run.start.checkpoint[0],
        [watched.loss for watched in batches],
        kept,
        _logged_loss(run.directory, guard.step),
        same_views,
        records,
        failures,
        place,
        samples,
        notes,
    )


def _same_views(kept: Mapping[str, Any] | None, digests: list[str]) -> bool | None:
    """Return whether the views have the digests that the run kept; None if it kept none for the same batches."""
    if kept is None or kept["world_size"] > 1:
        return None
    return [batch["views"] for batch in kept["processes"][0]] == digests


def _logged_loss(run_dir: Path, step: int) -> float | None:
    """Return the loss in `metrics.csv` of a step."""
    file = run_dir / "metrics.csv"
    if not file.is_file():
        return None
    with open_text(file) as stream:
        rows = [row["loss"] for row in csv.DictReader(stream) if row.get("step") == str(step) and row.get("loss")]
    return float(rows[-1]) if rows else None


def _notes(run: _Run, kept: Mapping[str, Any] | None) -> list[str]:
    """Return why the numbers may differ from those of the run."""
    before, now, notes = run.original.trainer, run.config.trainer, list[str]()
    world_size = (before.devices or 1) * (before.num_nodes or 1)
    if world_size > 1:
        norms = "synchronized batch norm, so the last digits differ"
        if not before.sync_batchnorm:
            norms = "batch norm of its own samples in each, so losses differ with networks that have it"
        notes.append(f"the run had {world_size} processes with {norms}; the batch of all goes through this one")
    if before.accelerator != now.accelerator or before.precision != now.precision:
        notes.append(
            f"the run used {before.accelerator} in {before.precision}, this is {now.accelerator} in {now.precision}: "
            "losses differ by rounding, and numbers that overflow there may not here"
        )
    if before.compile:
        notes.append("the run was compiled, and the replay is not: the last digits differ")
    facts = kept or {}
    device = torch.cuda.get_device_name() if now.accelerator == "gpu" else platform.machine()
    here = {"device": device, "threads": torch.get_num_threads()}
    notes += [
        f"{name} of the run: {facts[name]}, here: {value}; the last digits may differ"
        for name, value in here.items()
        if name in facts and facts[name] != value and before.accelerator == now.accelerator
    ]
    return notes + _other_versions(run.directory)


def _other_versions(run_dir: Path) -> list[str]:
    file, here = run_dir / "versions.json", installed_versions()
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    differing = [
        f"{name} {before[name]}" for name in ("eztorch_sce", "torch") if before.get(name, here[name]) != here[name]
    ]
    return [f"the run used {' and '.join(differing)}: the last digits may differ"] if differing else []
