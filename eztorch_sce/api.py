"""The commands as functions that take a config and return a report.

The command line, the scripts in tools/ and Python code all call these functions. Each one reads straight down: validate
the config, open the data and the network, open the run directory, train or score, report. Functions that train import
the training code themselves, so that the others start without Lightning.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from typing_extensions import Unpack

from eztorch_sce import distributed, signals
from eztorch_sce.augment.view import View
from eztorch_sce.augment.views import Views
from eztorch_sce.chance import Chance, chance_levels
from eztorch_sce.config import schema
from eztorch_sce.config.fit import fit_finetuning, fit_input, fit_network, fit_to_data, fit_to_plan
from eztorch_sce.config.set_where import names_origins
from eztorch_sce.data.loading import input_spec
from eztorch_sce.data.sources.provenance import Provenance
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.evaluation.base import EvaluationConfig, ExtractConfig, checked_scores
from eztorch_sce.evaluation.classifier import classifier_accuracy
from eztorch_sce.evaluation.features import sampling_of
from eztorch_sce.evaluation.few_shot import FewShotConfig
from eztorch_sce.evaluation.knn import KnnConfig
from eztorch_sce.evaluation.linear import LinearConfig
from eztorch_sce.evaluation.retrieval import RetrieveConfig
from eztorch_sce.evaluation.sharded_rows import as_listed, scores_as_listed
from eztorch_sce.evaluation.svm import SvmConfig
from eztorch_sce.extraction import (
    extract_to_run,
    features_of_splits,
    open_classifier,
    records_card,
    start_from_probe,
    views_of,
)
from eztorch_sce.launch import is_first_process, refuse_several
from eztorch_sce.linear_on_views import linear_on_views
from eztorch_sce.methods.base import build_method
from eztorch_sce.models.backbones.base import as_backbone
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.models.weights import BACKBONE_FILE, CLASSIFIER_FILE, check_savable, save_weights
from eztorch_sce.objects import title_of
from eztorch_sce.opening import (
    BackboneSource,
    Network,
    Objects,
    go_on,
    of_kind,
    open_labeled,
    open_training,
    summarize,
    with_objects,
    with_settings_of_weights,
)
from eztorch_sce.report.health import say_health
from eztorch_sce.report.protocol import evaluation_card, pretraining_card, train_card, training_card
from eztorch_sce.report.run_directory import check_run, open_run
from eztorch_sce.report.run_session import in_run_directory
from eztorch_sce.results import chance_of, finish, write_results
from eztorch_sce.settings import chosen
from eztorch_sce.types import InputSpec, Report

if TYPE_CHECKING:
    from eztorch_sce.config.names import LossName, MethodName
    from eztorch_sce.curation.bench import BenchResult
    from eztorch_sce.curation.rates import Rates
    from eztorch_sce.data.sources.source import Source, SourceConfig
    from eztorch_sce.losses.pairs import Loss, LossConfig
    from eztorch_sce.methods.base import Method, MethodConfig
    from eztorch_sce.planning.plan import Plan
    from eztorch_sce.training.trainer import Callback, Logger


@distributed.ends_together
@in_run_directory
@names_origins
def pretrain(
    config: schema.PretrainConfig,
    *,
    backbone: Network | None = None,
    loss: "LossConfig | Loss | LossName | None" = None,
    method: "MethodConfig | Method | MethodName | None" = None,
    data: "Source | SourceConfig | str | None" = None,
    test_data: "Source | None" = None,
    callbacks: Sequence["Callback"] = (),
    loggers: Sequence["Logger"] = (),
) -> Report:
    """Train a backbone without labels, and write `backbone.safetensors`, checkpoints, metrics and `report.json`.

    `backbone`, `loss` and `method` replace those of the config. Each is a name, a config or an object, which is trained
    in place.

    Args:
        config: The settings.
        backbone: Network from clips (B, C, T, H, W), or from images (B, C, H, W), to features (B, F).
        loss: Any callable on queries, keys and negatives, see `losses.pairs.Loss`.
        method: A module that holds its backbone and its loss, see `methods.base.Method`.
        data: Records that replace the files of the config.
        test_data: Records that evaluations will test on, and that are not trained on.
        callbacks: Callbacks of Lightning, in addition to those of this package.
        loggers: Loggers of Lightning, in addition to those of this package.

    Raises:
        ConfigError: If settings are invalid or files are missing; raised before any expensive work starts.
        MediaError: If too many files cannot be read.
    """
    from eztorch_sce.training.trainer import check_hooks

    objects = Objects(backbone=backbone, data=data, test_data=test_data)
    config = with_objects(config, schema.PretrainConfig, objects, loss=loss, method=method)
    check_hooks(callbacks, loggers)
    return _pretrain(config, callbacks, loggers)


def _pretrain(config: schema.PretrainConfig, callbacks: Sequence["Callback"], loggers: Sequence["Logger"]) -> Report:
    from eztorch_sce.data.datamodule import TrainingData
    from eztorch_sce.training.callbacks import unreadable_paths
    from eztorch_sce.training.checkpoint import SaveBackbone
    from eztorch_sce.training.determinism import determinism_of
    from eztorch_sce.training.online import OnlineEvaluation
    from eztorch_sce.training.pretrain_module import PretrainModule
    from eztorch_sce.training.trainer import fit

    config = with_settings_of_weights(check_run("pretrain", config))
    splits = config.data.open_for_pretraining(config.seed)
    labeled = config.online.open(config.data, config.seed) if config.online.every_n_epochs else None
    own_data = labeled if config.online.has_own_data else None
    summary = summarize(splits, config.data.seen_by_pretraining(splits), own_data)
    config, choices = fit_to_data(config, splits.train)
    source = BackboneSource.for_pretraining(config)
    opened = open_training(config.data, splits, config.views, source, config.seed)
    online = None
    if labeled is not None:
        online = OnlineEvaluation(config.online, config.data, labeled, opened.spec, config.seed)

    method, loss = build_method(config.method, config.loss, opened.backbone)
    going_on = go_on(method, opened)
    trained = as_backbone(method.backbone, opened.spec.num_frames, opened.spec.size)
    check_savable(trained, chosen(config.backbone))

    loaded = TrainingData(config.data, opened.train, opened.views, opened.spec, config.seed, config.trainer)
    run_dir = open_run("pretrain", config, opened.train.records, chosen=choices)
    views = loaded.augmentation
    module = PretrainModule(
        method, views, chosen(config.optimizer), config.schedule, config.data.samples_per_step, config.ramps, loss
    )
    every = config.run.save_every_n_epochs
    saver = SaveBackbone(run_dir, every, trained, chosen(config.backbone), opened.spec, splits, source.provenance)
    own_callbacks = [saver] if online is None else [online, saver]
    trainer = fit(module, loaded, config, run_dir, [*own_callbacks, *callbacks], loggers)

    saver.write(BACKBONE_FILE)
    if is_first_process():
        say_health(run_dir)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name not in ("lr", "momentum")}
    metrics["unreadable"] = float(len(unreadable_paths(run_dir)))
    protocol = pretraining_card(config, opened, choices) | {"data_summary": summary}
    if source.weights is not None:
        protocol["started_from"] = source.card() | going_on
    chance: dict[str, Chance] = {}
    if online is not None:
        protocol["online"] = online.protocol(saver.provenance)
        chance = online.chance()
    report = Report("pretrain", metrics, protocol, run_dir, chance, determinism=determinism_of(trainer))
    return finish(report, config)


@signals.watched()
@names_origins
def plan(config: schema.PlanConfig) -> "Plan":
    """Estimate the parameters, FLOPs, memory, network traffic and time of a pretraining without running it.

    Raises:
        ConfigError: If settings are invalid.
    """
    from eztorch_sce.data.sources.published import published
    from eztorch_sce.planning.plan import plan_pretraining

    config = with_settings_of_weights(schema.validate(config))
    num_records = config.num_records or published(config.data.layout, config.data.split).train
    config, chosen = fit_to_plan(config, num_records)
    return plan_pretraining(config, num_records, chosen)


@distributed.ends_together
@in_run_directory
@names_origins
def finetune(
    config: schema.FinetuneConfig,
    *,
    backbone: Network | None = None,
    data: "Source | SourceConfig | str | None" = None,
    test_data: "Source | None" = None,
    callbacks: Sequence["Callback"] = (),
    loggers: Sequence["Logger"] = (),
) -> Report:
    """Train a classifier from weights or from scratch, test it on clips and crops, and write `classifier.safetensors`.

    Args:
        config: The settings.
        backbone: Network to load the weights into or, if the config has none, to train as it is; see `pretrain`.
        data: Labeled data instead of files, as in `pretrain`.
        test_data: Its test split, as in `pretrain`.
        callbacks: Callbacks of Lightning, as in `pretrain`.
        loggers: Loggers of Lightning, as in `pretrain`.

    Raises:
        ConfigError: If settings are invalid or files are missing; raised before any expensive work starts.
        MediaError: If too many train files, or any test file, cannot be read.
    """
    from eztorch_sce.training.trainer import check_hooks

    objects = Objects(backbone=backbone, data=data, test_data=test_data)
    config = with_objects(config, schema.FinetuneConfig, objects)
    check_hooks(callbacks, loggers)
    config = check_run("finetune", config)
    return _finetune(config, BackboneSource.of(config, backbone), callbacks, loggers)


def _finetune(
    config: schema.FinetuneConfig,
    source: BackboneSource,
    callbacks: Sequence["Callback"],
    loggers: Sequence["Logger"],
) -> Report:
    from eztorch_sce.data.datamodule import TrainingData
    from eztorch_sce.training.callbacks import unreadable_paths
    from eztorch_sce.training.classify_module import ClassifyModule
    from eztorch_sce.training.determinism import determinism_of
    from eztorch_sce.training.trainer import fit

    splits = open_labeled(config.data, config.seed, source)
    summary = summarize(splits)
    config = fit_finetuning(config, splits.train)
    opened = open_training(config.data, splits, config.views, source, config.seed)
    sampling_of(config.test, opened.spec)  # raises before anything is written

    loaded = TrainingData(config.data, opened.train, opened.views, opened.spec, config.seed, config.trainer)
    check_savable(opened.backbone, source.config)
    run_dir = open_run("finetune", config, opened.train.records, labeled=True)
    classifier = Classifier(opened.backbone, len(opened.train.classes), config.dropout)
    if config.probe_first:
        start_from_probe(classifier, opened, config)
    module = ClassifyModule(
        classifier,
        loaded.augmentation,
        config.optimizer,
        config.schedule,
        config.data.samples_per_step,
        config.layer_decay,
        config.mixup,
    )
    trainer = fit(module, loaded, config, run_dir, callbacks, loggers)
    if trainer.is_global_zero:
        provenance = Provenance.of(splits, labeled=True, earlier=None if source.untrained else source.provenance)
        save_weights(
            run_dir / CLASSIFIER_FILE,
            opened.backbone,
            source.config,
            opened.spec,
            classifier,
            opened.train.classes,
            provenance,
        )

    device = trainer.strategy.root_device
    test_views = views_of(config, opened, opened.labeled_test, "test split", device)
    scores, bank = classifier_accuracy(classifier, test_views, device)
    metrics = scores.metrics | {
        "loss": float(trainer.callback_metrics.get("loss", float("nan"))),
        "unreadable": float(len(unreadable_paths(run_dir))),
    }
    protocol = test_views.protocol | records_card(opened, summary)
    protocol |= {"train": opened.train.source, "training": training_card(config)}
    chance = chance_of(metrics, opened)
    report = Report("finetune", metrics, protocol, run_dir, chance, determinism=determinism_of(trainer))
    return write_results(report, config, scores, None, bank)


@distributed.ends_together
@in_run_directory
@names_origins
def test(config: schema.ClassifierTestConfig, **objects: Unpack[Objects]) -> Report:
    """Test a fine-tuned classifier on clips and crops, with softmax averaged over those of each record.

    Args:
        config: The settings.
        objects: Python objects in the place of settings, see `opening.Objects`.

    Raises:
        ConfigError: If settings are invalid, files are missing, or the classes are not those of the classifier.
        MediaError: If a file cannot be read.
    """
    config = check_run("test", with_objects(config, schema.ClassifierTestConfig, objects))
    opened, summary = open_classifier(config, objects.get("backbone"))
    weights = opened.source.weights
    assert weights is not None
    assert weights.head is not None

    run_dir = open_run("test", config)
    classifier = Classifier(opened.backbone, len(weights.head["bias"]))
    classifier.linear.load_state_dict(weights.head)
    device = distributed.join_on(config.accelerator)
    views = views_of(config, opened, opened.labeled_test, "test split", device)
    scores, bank = classifier_accuracy(classifier, views, device)
    protocol = views.protocol | records_card(opened, summary)
    report = Report("test", scores.metrics, protocol, run_dir, chance_of(scores.metrics, opened))
    return write_results(report, config, scores, None, bank)


test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it from a file that imports it


@distributed.ends_together
@in_run_directory
@names_origins
def extract(config: ExtractConfig, **objects: Unpack[Objects]) -> Report:
    """Write the features of the train and test splits to `features_train.pt` and `features_test.pt`.

    Labeled data without a test split are divided as for an evaluation; unlabeled data have one split. A command that
    was interrupted goes on in its run directory. If files cannot be read, `failed.csv` names all of them. The arguments
    are those of `evaluate`.

    Raises:
        ConfigError: If settings are invalid or files are missing; raised before any expensive work starts.
        MediaError: If files cannot be read, unless `unreadable` is "omit"; raised when all others have been.
    """
    config = check_run("extract", with_objects(config, ExtractConfig, objects))
    device = distributed.join_on(config.accelerator)
    return finish(extract_to_run(config, objects.get("backbone"), device), config)


@distributed.ends_together
@in_run_directory
@names_origins
def evaluate(config: EvaluationConfig, **objects: Unpack[Objects]) -> Report:
    """Score the features of a frozen backbone by any evaluation.

    The run directory contains `report.json` and, if the evaluation returns them, `by_class.csv` (metrics per class),
    `predictions.csv`, `worst.csv` and `confusion.csv` (see `report.outcomes`), and `sample.pt` (see `report.sample`).
    The run whose weights are evaluated lists the evaluation in `evaluations.json`.

    Args:
        config: The settings of the evaluation.
        objects: Python objects in the place of settings, see `opening.Objects`.

    Raises:
        ConfigError: If settings are invalid, files are missing, or the evaluation needs more data.
        MediaError: If a file cannot be read.
    """
    config = with_objects(config, EvaluationConfig, objects)
    config = check_run(title_of(config), config)
    if isinstance(config, LinearConfig) and config.views:
        return linear_on_views(config, objects.get("backbone"))
    command = title_of(config)
    device = distributed.join_on(config.accelerator)
    train, test, run_dir = features_of_splits(config, command, device, objects.get("backbone"))
    scores = checked_scores(config, config.evaluate(train, test, device), train, test)
    scores, train, test = scores_as_listed(scores, train, test), as_listed(train), as_listed(test)
    protocol = test.protocol | {"train": train_card(train.protocol)} | evaluation_card(config)
    ways = config.ways if isinstance(config, FewShotConfig) else None
    chance = chance_levels(scores.metrics, train.labels, test.labels, len(test.classes), ways)
    return write_results(Report(command, scores.metrics, protocol, run_dir, chance), config, scores, train, test)


def knn(config: KnnConfig, **objects: Unpack[Objects]) -> Report:
    """Classify test records by the vote of the nearest train records; see `evaluate`."""
    return evaluate(of_kind(config, KnnConfig), **objects)


def linear(config: LinearConfig, **objects: Unpack[Objects]) -> Report:
    """Classify test records by linear classifiers trained on the train split; see `evaluate`."""
    return evaluate(of_kind(config, LinearConfig), **objects)


def retrieve(config: RetrieveConfig, **objects: Unpack[Objects]) -> Report:
    """Search the train split for records of each test record's class; see `evaluate`."""
    return evaluate(of_kind(config, RetrieveConfig), **objects)


def svm(config: SvmConfig, **objects: Unpack[Objects]) -> Report:
    """Rank test records by a linear support vector machine per class; see `evaluate`."""
    return evaluate(of_kind(config, SvmConfig), **objects)


def few_shot(config: FewShotConfig, **objects: Unpack[Objects]) -> Report:
    """Classify test records by the nearest centroid of a few train records, in many tasks; see `evaluate`."""
    return evaluate(of_kind(config, FewShotConfig), **objects)


@signals.watched()
@in_run_directory
@names_origins
def show_views(config: schema.ShowViewsConfig) -> Report:
    """Draw the views of some records and their random parameters, and write `views.png` or `views.webp`.

    Raises:
        ConfigError: If settings are invalid or files are missing; raised before any expensive work starts.
        MediaError: If none of the records can be read.
    """
    from eztorch_sce.data.collate import stack
    from eztorch_sce.data.datamodule import TrainingData
    from eztorch_sce.data.view_samples import record_views, write_views
    from eztorch_sce.report.contact_sheet import write_contact_sheet

    refuse_several("show-views")
    config = check_run("show-views", schema.validate(config))
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
    batch = stack(samples)
    if not batch.frames:
        raise MediaError(batch.failures[0].path, batch.failures[0].reason)
    on_device = Views(views, config.seed, config.data.canvas)
    shown = record_views(data.dataset, on_device, on_device(batch), batch.epoch)
    write_views(run_dir, shown, spec.clip_s if spec.frame_stride is None else None)
    file = write_contact_sheet(run_dir / "views", shown)
    counts = {"records": len(batch.record), "unreadable": len(batch.failures), "views": len(views)}
    metrics = {name: float(count) for name, count in counts.items()}
    protocol = {
        "data": manifest.source,
        "data_summary": summary,
        "file": file.name,
        "epoch": config.epoch,
        "input": asdict(spec),
    }
    return finish(Report("show-views", metrics, protocol, run_dir), config)


@signals.watched()
def bench(config: schema.PretrainConfig) -> "tuple[BenchResult, Rates]":
    """Measure the decoders on clips sampled as in pretraining, and store the fastest for `data.decoder=auto`.

    The speeds of checking, copying and reading files, and of the network, are stored beside it for `data plan`.

    Raises:
        ConfigError: If settings are invalid or files are missing.
    """
    from eztorch_sce.curation.bench import bench as bench_decoders

    config = schema.validate(config)
    # The decoder "auto" would read the result of this measurement. No file is left out, since nothing is learned.
    config.data = replace(config.data, decoder="pyav", pretrain_on="all")
    splits = config.data.open_for_pretraining(config.seed)
    summarize(splits, config.data.seen_by_pretraining(splits))
    manifest = splits.train
    config = fit_network(config, manifest)
    assert config.backbone is not None  # chosen if it was not set
    spec = input_spec(config.data, manifest, InputSpec(), config.views[0])
    return bench_decoders(config.data, manifest, config.views, spec, config.backbone, config.seed)
