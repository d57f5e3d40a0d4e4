"""The commands as functions that take a config and return a report.

The command line, the scripts in tools/ and Python code all call these functions. Each one reads straight down: validate
the config, open the data and the network, open the run directory, train or score, report. Functions that train import
the training code themselves, so that the others start without Lightning.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from eztorch_sce import distributed, registry
from eztorch_sce.augment.view import View
from eztorch_sce.augment.views import Views
from eztorch_sce.chance import Chance, chance_levels
from eztorch_sce.config import schema
from eztorch_sce.config.fit import fit_finetuning, fit_input, fit_to_data, fit_to_plan
from eztorch_sce.config.parts import EvaluationViewsConfig
from eztorch_sce.data.loading import input_spec
from eztorch_sce.data.sources.labels import with_classes
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.provenance import Provenance
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.evaluation.base import EvaluationConfig, ExtractConfig, FeaturesConfig
from eztorch_sce.evaluation.classifier import classifier_accuracy
from eztorch_sce.evaluation.features import read_features, record_features, record_views
from eztorch_sce.evaluation.few_shot import FewShotConfig
from eztorch_sce.evaluation.knn import KnnConfig
from eztorch_sce.evaluation.linear import (
    LinearConfig,
    LinearHeads,
    Probe,
    choice_metrics,
    heads_accuracies,
    sweep_metrics,
    train_heads,
)
from eztorch_sce.evaluation.retrieval import RetrieveConfig
from eztorch_sce.evaluation.svm import SvmConfig
from eztorch_sce.launch import is_first_process, refuse_several
from eztorch_sce.methods.base import build_method
from eztorch_sce.models.backbones.base import as_backbone
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.models.weights import save_weights
from eztorch_sce.opening import (
    BackboneSource,
    Opened,
    check_classes,
    open_evaluation,
    open_for_extraction,
    open_labeled,
    open_test,
    open_training,
    summarize,
    summarize_features,
)
from eztorch_sce.report.protocol import evaluation_card, seen_card, train_card, training_card
from eztorch_sce.report.run_directory import open_run, write_by_class, write_report
from eztorch_sce.types import FeatureBank, InputSpec, Report

if TYPE_CHECKING:
    from eztorch_sce.curation.bench import BenchResult
    from eztorch_sce.planning.plan import Plan


def pretrain(config: schema.PretrainConfig) -> Report:
    """Train a backbone without labels, and write `backbone.pt`, `last.ckpt`, metrics and `report.json`.

    Raises:
        ConfigError: If settings are invalid or files are missing; raised before any expensive work starts.
        MediaError: If too many files cannot be read.
    """
    from eztorch_sce.data.datamodule import TrainingData
    from eztorch_sce.training.callbacks import num_unreadable
    from eztorch_sce.training.checkpoint import SaveBackbone
    from eztorch_sce.training.online import OnlineEvaluation
    from eztorch_sce.training.pretrain_module import PretrainModule
    from eztorch_sce.training.trainer import fit

    config = schema.validate(config)
    splits = config.data.open_for_pretraining(config.seed)
    labeled = config.online.open(config.data, config.seed) if config.online.every_n_epochs else None
    own_data = labeled if config.online.has_own_data else None
    summary = summarize(splits, config.data.seen_by_pretraining(splits), own_data)
    config, choices = fit_to_data(config, splits.train)
    source = BackboneSource.from_config(config.backbone)
    opened = open_training(config.data, splits, config.views, source, config.seed)
    online = None
    if labeled is not None:
        online = OnlineEvaluation(config.online, config.data, labeled, opened.spec, config.seed)

    method, loss = build_method(config.method, config.loss, opened.backbone)

    run_dir = open_run("pretrain", config)
    views = Views(opened.views, config.seed, config.data.canvas)
    module = PretrainModule(
        method, views, config.optimizer, config.schedule, config.data.samples_per_step, config.ramps, loss
    )
    data = TrainingData(config.data, opened.train, opened.views, opened.spec, config.seed, config.trainer.accumulate)
    callbacks: list[Any] = [] if online is None else [online]
    if config.run.save_every_n_epochs:
        every = config.run.save_every_n_epochs
        callbacks.append(SaveBackbone(run_dir, every, config.backbone, opened.spec, splits))
    trainer = fit(module, data, config, run_dir, callbacks)

    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    metrics["unreadable"] = float(num_unreadable(run_dir))
    provenance = Provenance.of(splits, labeled=False)
    if trainer.is_global_zero:
        classes = opened.train.classes
        trained = as_backbone(method.backbone, opened.spec.num_frames, opened.spec.size)
        save_weights(run_dir / "backbone.pt", trained, config.backbone, opened.spec, None, classes, provenance)
    protocol = {
        "data": opened.train.source,
        "data_summary": summary,
        "records": len(opened.train.records),
        "input": asdict(opened.spec),
        "training": training_card(config),
        "chosen": [str(choice) for choice in choices],
    }
    chance: dict[str, Chance] = {}
    if online is not None:
        protocol["online"] = online.protocol(provenance)
        chance = online.chance()
    return _report("pretrain", config, metrics, protocol, run_dir, chance)


def plan(config: schema.PlanConfig) -> "Plan":
    """Estimate the parameters, FLOPs, memory, network traffic and time of a pretraining without running it.

    Raises:
        ConfigError: If settings are invalid.
    """
    from eztorch_sce.data.sources.published import published
    from eztorch_sce.planning.plan import plan_pretraining

    config = schema.validate(config)
    num_records = config.num_records or published(config.data.layout, config.data.split).train
    config, chosen = fit_to_plan(config, num_records)
    return plan_pretraining(config, num_records, chosen)


def finetune(config: schema.FinetuneConfig) -> Report:
    """Train a classifier from weights or from scratch, test it on clips and crops, and write `classifier.pt`.

    Raises:
        ConfigError: If settings are invalid or files are missing; raised before any expensive work starts.
        MediaError: If too many train files, or any test file, cannot be read.
    """
    from eztorch_sce.data.datamodule import TrainingData
    from eztorch_sce.training.callbacks import num_unreadable
    from eztorch_sce.training.classify_module import ClassifyModule
    from eztorch_sce.training.trainer import fit

    config = schema.validate(config)
    if config.weights is None:
        source = BackboneSource.from_config(config.backbone)
    else:
        source = BackboneSource.from_weights(config.weights, config.untrained)
    splits = open_labeled(config.data, config.seed, source)
    summary = summarize(splits)
    config = fit_finetuning(config, splits.train)
    opened = open_training(config.data, splits, config.views, source, config.seed)

    run_dir = open_run("finetune", config)
    classifier = Classifier(opened.backbone, len(opened.train.classes), config.dropout)
    if config.probe_first:
        _start_from_probe(classifier, opened, config)
    module = ClassifyModule(
        classifier,
        Views(opened.views, config.seed, config.data.canvas),
        config.optimizer,
        config.schedule,
        config.data.samples_per_step,
        config.layer_decay,
        config.mixup,
    )
    data = TrainingData(config.data, opened.train, opened.views, opened.spec, config.seed, config.trainer.accumulate)
    trainer = fit(module, data, config, run_dir, [])
    if trainer.is_global_zero:
        provenance = Provenance.of(splits, labeled=True, earlier=None if source.untrained else source.provenance)
        save_weights(
            run_dir / "classifier.pt",
            opened.backbone,
            source.config,
            opened.spec,
            classifier,
            opened.train.classes,
            provenance,
        )

    test_views = record_views(config.data, config.test, opened.spec, opened.labeled_test, "test split")
    scores = classifier_accuracy(classifier, test_views, trainer.strategy.root_device)
    metrics = scores.metrics | {
        "loss": float(trainer.callback_metrics.get("loss", float("nan"))),
        "unreadable": float(num_unreadable(run_dir)),
    }
    protocol = test_views.protocol | _card_of(opened, summary)
    protocol |= {"train": opened.train.source, "training": training_card(config)}
    return _report("finetune", config, metrics, protocol, run_dir, _chance_of(metrics, opened))


def _start_from_probe(classifier: Classifier, opened: Opened, config: schema.FinetuneConfig) -> None:
    """Initialize the linear layer of a classifier from a linear probe on one clip and crop of each train record."""
    device = distributed.local_device(config.trainer.accelerator)
    one_clip = EvaluationViewsConfig(num_clips=1, num_crops=1)
    title = "features for the initial classifier"
    bank = record_features(
        opened.backbone, record_views(config.data, one_clip, opened.spec, opened.train, title), device
    )
    heads = train_heads(bank, len(opened.train.classes), Probe(seed=config.seed), device)
    classifier.linear.load_state_dict(heads.heads[0].state_dict())


def test(config: schema.ClassifierTestConfig) -> Report:
    """Test a fine-tuned classifier on clips and crops, with softmax averaged over those of each record.

    Raises:
        ConfigError: If settings are invalid, files are missing, or the classes are not those of the classifier.
        MediaError: If a file cannot be read.
    """
    config = schema.validate(config)
    source = BackboneSource.from_weights(config.weights)
    if source.weights is None or source.weights.head is None:
        raise ConfigError(
            [f"weights={config.weights} contains no classifier: set weights to the run directory of `finetune`"]
        )
    splits = open_test(config.data, config.seed, source)
    splits = splits._replace(test=with_classes(splits.labeled_test, source.weights.classes))
    summary = summarize(splits)
    opened = open_evaluation(config.data, splits, source, config.seed)
    check_classes(opened.labeled_test, source.weights.classes)

    run_dir = open_run("test", config)
    classifier = Classifier(opened.backbone, len(source.weights.classes))
    classifier.linear.load_state_dict(source.weights.head)
    views = record_views(config.data, config.test, opened.spec, opened.labeled_test, "test split")
    scores = classifier_accuracy(classifier, views, distributed.join_on(config.accelerator))
    chance = _chance_of(scores.metrics, opened)
    protocol = views.protocol | _card_of(opened, summary)
    return _report("test", config, scores.metrics, protocol, run_dir, chance)


test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it from a file that imports it


def extract(config: ExtractConfig) -> Report:
    """Write the features of the train and test splits to `features_train.pt` and `features_test.pt`.

    Labeled data without a test split are divided as for an evaluation; unlabeled data have one split.

    Raises:
        ConfigError: If settings are invalid or files are missing; raised before any expensive work starts.
        MediaError: If a file cannot be read.
    """
    config = schema.validate(config)
    device = distributed.join_on(config.accelerator)
    train, test, run_dir = _features(config, "extract", device, labeled=False)
    metrics = {"train_records": float(len(train.features)), "features": float(train.features.shape[1])}
    if test is not None:
        metrics["test_records"] = float(len(test.features))
    if is_first_process():
        train.save(run_dir / "features_train.pt")
        if test is not None:
            test.save(run_dir / "features_test.pt")
    return _report("extract", config, metrics, train.protocol, run_dir)


def evaluate(config: EvaluationConfig) -> Report:
    """Score the features of a frozen backbone by any registered evaluation.

    If the evaluation has metrics per class, they are written to `by_class.csv` in the run directory.

    Raises:
        ConfigError: If settings are invalid, files are missing, or the evaluation needs more data.
        MediaError: If a file cannot be read.
    """
    config = schema.validate(config)
    if isinstance(config, LinearConfig) and config.views:
        return _linear_on_views(config)
    command = registry.name_of(config)
    device = distributed.join_on(config.accelerator)
    train, test, run_dir = _features(config, command, device, labeled=True)
    assert test is not None  # labeled data always have a test split
    scores = config.evaluate(train, test, device)
    if scores.by_class:
        write_by_class(run_dir, scores.by_class)
    protocol = test.protocol | {"train": train_card(train.protocol)} | evaluation_card(config)
    ways = config.ways if isinstance(config, FewShotConfig) else None
    chance = chance_levels(scores.metrics, train.labels, test.labels, len(test.classes), ways)
    return _report(command, config, scores.metrics, protocol, run_dir, chance)


def knn(config: KnnConfig) -> Report:
    """Classify test records by the vote of the nearest train records; see `evaluate`."""
    return evaluate(config)


def linear(config: LinearConfig) -> Report:
    """Classify test records by linear classifiers trained on the train split; see `evaluate`."""
    return evaluate(config)


def retrieve(config: RetrieveConfig) -> Report:
    """Search the train split for records of each test record's class; see `evaluate`."""
    return evaluate(config)


def svm(config: SvmConfig) -> Report:
    """Rank test records by a linear support vector machine per class; see `evaluate`."""
    return evaluate(config)


def few_shot(config: FewShotConfig) -> Report:
    """Classify test records by the nearest centroid of a few train records, in many tasks; see `evaluate`."""
    return evaluate(config)


def _linear_on_views(config: LinearConfig) -> Report:
    """Train linear classifiers on features of new random views in every epoch, and test them on clips and crops."""
    from eztorch_sce.data.datamodule import TrainingData
    from eztorch_sce.training.probe_module import ProbeModule, ValidationHeads
    from eztorch_sce.training.trainer import fit

    source = BackboneSource.from_weights(config.weights, config.untrained)
    splits = open_labeled(config.data, config.seed, source)
    summary = summarize(splits)
    opened = open_training(config.data, splits, config.views, source, config.seed)
    held_out = config.held_out(opened.train) if config.probe().selects_on_validation else None

    run_dir = open_run("linear", config)
    heads = LinearHeads(opened.backbone.num_features, len(opened.train.classes), config.probe().lrs)
    views = Views(opened.views, config.seed, config.data.canvas)
    validation = None if held_out is None else ValidationHeads(heads, held_out)
    module = ProbeModule(
        opened.backbone, heads, views, config.optimizer, config.schedule, config.data.samples_per_step, validation
    )
    data = TrainingData(config.data, opened.train, opened.views, opened.spec, config.seed, config.trainer.accumulate)
    trainer = fit(module, data, config, run_dir, [])

    device, choice = trainer.strategy.root_device, {}
    if validation is not None:
        chosen_on = opened.train.with_records(
            opened.train.records.where(validation.held_out.cpu().numpy()), "validation"
        )
        records = record_views(config.data, config.test, opened.spec, chosen_on, "validation records")
        records = records._replace(skip_unreadable=True)
        choice = choice_metrics(heads.lrs, heads_accuracies(opened.backbone, validation.heads, records, device))
        heads = heads.only(choice["linear_lr"])
    test_views = record_views(config.data, config.test, opened.spec, opened.labeled_test, "test split")
    accuracies = heads_accuracies(opened.backbone, heads, test_views, device)
    metrics = sweep_metrics(heads.lrs, accuracies) | choice
    protocol = test_views.protocol | _card_of(opened, summary)
    protocol |= {"train": opened.train.source, "training": training_card(config)}
    return _report("linear", config, metrics, protocol, run_dir, _chance_of(metrics, opened))


def show_views(config: schema.ShowViewsConfig) -> Report:
    """Draw the views of some records and their random parameters, and write `views.png` or `views.webp`.

    Raises:
        ConfigError: If settings are invalid or files are missing; raised before any expensive work starts.
        MediaError: If none of the records can be read.
    """
    from eztorch_sce.data.collate import collate
    from eztorch_sce.data.datamodule import TrainingData
    from eztorch_sce.report.contact_sheet import sheet_rows, write_contact_sheet

    refuse_several("show-views")
    config = schema.validate(config)
    splits = config.data.open_for_pretraining(config.seed)
    summary, manifest = summarize(splits, config.data.seen_by_pretraining(splits)), splits.train
    pretraining = schema.PretrainConfig(data=config.data, views=config.views, adjust=config.adjust)
    fitted = fit_input(schema.validate(pretraining), manifest)
    config = replace(config, data=fitted.data, views=fitted.views, adjust={})
    views = [view.filled_in(InputSpec()) for view in config.views]
    spec = input_spec(config.data, manifest, InputSpec(), views[0])
    needing_frames = [number for number, view in enumerate(views) if View(view).needs_frames]
    if spec.num_frames == 1 and needing_frames:
        raise ConfigError(
            [f"views.{number} compares frames, but {manifest.source} holds single images" for number in needing_frames]
        )

    run_dir = open_run("show-views", config)
    data = TrainingData(config.data, manifest, views, spec, config.seed)
    data.sampler.set_epoch(config.epoch)
    samples = [data.dataset[key] for key in list(data.sampler)[: config.num_samples]]
    batch = collate(samples)
    if not batch.frames:
        raise MediaError(batch.failures[0].path, batch.failures[0].reason)
    on_device = Views(views, config.seed, config.data.canvas)
    file = write_contact_sheet(run_dir / "views", sheet_rows(data.dataset, on_device, batch))
    counts = {"records": len(batch.record), "unreadable": len(batch.failures), "views": len(views)}
    metrics = {name: float(count) for name, count in counts.items()}
    protocol = {
        "data": manifest.source,
        "data_summary": summary,
        "file": file.name,
        "epoch": config.epoch,
        "input": asdict(spec),
    }
    return _report("show-views", config, metrics, protocol, run_dir)


def bench(config: schema.PretrainConfig) -> "BenchResult":
    """Measure the decoders on clips sampled as in pretraining, and store the fastest for `data.decoder=auto`.

    Raises:
        ConfigError: If settings are invalid or files are missing.
    """
    from eztorch_sce.curation.bench import bench as bench_decoders

    refuse_several("data bench")
    config = schema.validate(config)
    config.data = replace(config.data, decoder="pyav")  # "auto" would read the result of this measurement
    splits = config.data.open_for_pretraining(config.seed)
    summarize(splits, config.data.seen_by_pretraining(splits))
    manifest = splits.train
    config = fit_input(config, manifest)
    data = config.data
    spec = input_spec(data, manifest, InputSpec(), config.views[0])
    return bench_decoders(data, manifest, config.views, spec, config.seed)


def _features(
    config: FeaturesConfig, command: str, device: torch.device, labeled: bool
) -> tuple[FeatureBank, FeatureBank | None, Path]:
    """Read or extract the features of both splits, after opening the run directory."""
    if config.features is not None:
        banks = read_features(config.features, labeled)
        if isinstance(config, EvaluationConfig):
            config.check_records(banks[0].labels, banks[1].labels, banks[0].classes)
        banks[1].protocol["data_summary"] = summarize_features(*banks, config.features)
        return banks[0], banks[1], open_run(command, config)

    source = BackboneSource.from_weights(config.weights, config.untrained)
    open_data = open_labeled if labeled else open_for_extraction
    splits = open_data(config.data, config.seed, source)
    summary = summarize(splits)
    opened = open_evaluation(config.data, splits, source, config.seed)
    if isinstance(config, EvaluationConfig):
        train_labels, test_labels = (
            torch.from_numpy(split.records.labels).long() for split in (opened.train, opened.labeled_test)
        )
        config.check_records(train_labels, test_labels, opened.train.classes)
    run_dir = open_run(command, config)
    train = _extract(opened, opened.train, config, device, "train split")
    test = None if opened.test is None else _extract(opened, opened.test, config, device, "test split")
    for bank in [train] if test is None else [train, test]:
        bank.protocol |= _card_of(opened, summary)
    return train, test, run_dir


def _extract(
    opened: Opened, manifest: Manifest, config: FeaturesConfig, device: torch.device, title: str
) -> FeatureBank:
    return record_features(
        opened.backbone, record_views(config.data, config.test, opened.spec, manifest, title), device
    )


def _card_of(opened: Opened, summary: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a protocol card that tells which records were used, and with which weights."""
    card = {"data_summary": summary, "weights": opened.source.card()}
    if opened.test is not None:
        card["seen_in_pretraining"] = seen_card(opened.test.records, opened.source)
    return card


def _chance_of(metrics: dict[str, float], opened: Opened) -> dict[str, Chance]:
    train, test = opened.train, opened.labeled_test
    return chance_levels(metrics, train.records.labels, test.records.labels, len(train.classes))


def _report(
    command: str,
    config: Any,
    metrics: dict[str, float],
    protocol: dict[str, Any],
    run_dir: Path,
    chance: dict[str, Chance] | None = None,
) -> Report:
    return write_report(Report(command, metrics, protocol | {"seed": config.seed}, run_dir, chance or {}))
