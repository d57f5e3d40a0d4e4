"""The commands as functions: one path for the command line, the tools and Python, its stages visible in order."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from eztorch_sce import distributed
from eztorch_sce.augment.view import View, ViewConfig
from eztorch_sce.config import schema
from eztorch_sce.config.compose import settings_of
from eztorch_sce.config.parts import EvaluationViewsConfig
from eztorch_sce.curation.bench import BenchResult
from eztorch_sce.curation.bench import bench as bench_decoders
from eztorch_sce.data.collate import collate
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.datamodule import TrainingData
from eztorch_sce.data.loading import TimedLoader, evaluation_loader
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.published import published
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.evaluation.features import extract_features, mean_over_views
from eztorch_sce.evaluation.few_shot import few_shot_accuracy
from eztorch_sce.evaluation.knn import knn_accuracy
from eztorch_sce.evaluation.linear import LinearHeads, Probe, linear_metrics, linear_probe, train_heads
from eztorch_sce.evaluation.metrics import top_accuracies
from eztorch_sce.evaluation.retrieval import retrieval
from eztorch_sce.evaluation.svm import import_scikit_learn, svm_precision
from eztorch_sce.launch import local_rank
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.models.weights import Weights, load_weights, save_weights
from eztorch_sce.planning.plan import Plan, plan_pretraining
from eztorch_sce.report.contact_sheet import sheet_rows, write_contact_sheet
from eztorch_sce.report.run_directory import open_run, write_by_class, write_report
from eztorch_sce.training.augmentation import BatchAugmentation
from eztorch_sce.training.callbacks import num_unreadable
from eztorch_sce.training.checkpoint import SaveBackbone
from eztorch_sce.training.classify_module import ClassifyModule
from eztorch_sce.training.online import OnlineEvaluation
from eztorch_sce.training.optimization import effective_lr
from eztorch_sce.training.pretrain_module import PretrainModule
from eztorch_sce.training.probe_module import ProbeModule
from eztorch_sce.training.trainer import fit
from eztorch_sce.types import FeatureBank, InputSpec, Report


def pretrain(config: schema.PretrainConfig) -> Report:
    """Train a backbone without labels; the run directory gets `backbone.pt`, `last.ckpt`, curves and `report.json`.

    Raises:
        ConfigError: Before anything heavy starts: settings that cannot be, files that are not there.
        MediaError: When too many files cannot be read.
    """
    config = schema.validate(config)
    manifest = config.data.open().train
    spec = _spec_of(config.data, config.views[0], InputSpec(), manifest)
    pl.seed_everything(config.seed, verbose=False)
    backbone = config.backbone.build()
    _check_training(config.data, manifest, backbone, spec)
    online = None
    if config.online.every_n_epochs:
        labeled = config.online.open(config.data, config.seed)
        online = OnlineEvaluation(config.online, config.data, labeled, spec, config.seed)

    run_dir = open_run("pretrain", config)
    method = config.method.build(backbone, config.loss.build())
    views = BatchAugmentation(config.views, config.seed, config.data.canvas)
    module = PretrainModule(method, views, config.optimizer, config.schedule, config.data.batch_size)
    data = TrainingData(config.data, manifest, config.views, spec, config.seed, config.trainer.accumulate)
    keep: list[pl.Callback] = [] if online is None else [online]
    if config.run.save_every_n_epochs:
        keep.append(SaveBackbone(run_dir, config.run.save_every_n_epochs, config.backbone, spec))
    trainer = fit(module, data, config, run_dir, keep)

    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    metrics["unreadable"] = float(num_unreadable(run_dir))
    if trainer.is_global_zero:
        save_weights(run_dir / "backbone.pt", method.backbone, config.backbone, spec, None, manifest.classes)
    protocol = {
        "data": manifest.source,
        "records": len(manifest.records),
        "input": asdict(spec),
        "training": _training_card(config),
    }
    if online is not None:
        protocol["online"] = online.protocol()
    return _report("pretrain", config, metrics, protocol, run_dir)


def plan(config: schema.PlanConfig) -> Plan:
    """Find what a pretraining would take: parameters, FLOPs, memory, network, time. Nothing is trained or written.

    Raises:
        ConfigError: For settings that cannot be.
    """
    config = schema.validate(config)
    return plan_pretraining(config, config.num_records or published(config.data.layout, config.data.split).train)


def finetune(config: schema.FinetuneConfig) -> Report:
    """Train a classifier from weights or from scratch, and test it on clips x crops; writes `classifier.pt`."""
    config = schema.validate(config)
    weights = None if config.weights is None else load_weights(config.weights)
    train, test = config.data.open_with_test(config.seed)
    _check_labeled(train)
    base = InputSpec() if weights is None else weights.spec
    view = config.views[0].filled_in(base)
    spec = _spec_of(config.data, view, base, train)
    pl.seed_everything(config.seed, verbose=False)
    backbone = config.backbone.build() if weights is None else weights.build_backbone(config.untrained)
    _check_training(config.data, train, backbone, spec)

    run_dir = open_run("finetune", config)
    classifier = Classifier(backbone, len(train.classes), config.dropout)
    if config.probe_first:
        once = EvaluationViewsConfig(num_clips=1, num_crops=1)
        device = _device(config.trainer.accelerator)
        bank = _extract(
            backbone, spec, config.data, once, train, device, {}, "features for the classifier to start from"
        )
        heads = train_heads(bank, len(train.classes), Probe(seed=config.seed), device)
        classifier.linear.load_state_dict(heads.heads[0].state_dict())
        classifier.train()  # features are made in evaluation mode
    views = BatchAugmentation([view], config.seed, config.data.canvas)
    settings = (config.optimizer, config.schedule, config.data.batch_size, config.layer_decay, config.mixup)
    module = ClassifyModule(classifier, views, *settings)
    data = TrainingData(config.data, train, [view], spec, config.seed, config.trainer.accumulate)
    trainer = fit(module, data, config, run_dir, [])
    if trainer.is_global_zero:
        kind = config.backbone if weights is None else weights.backbone
        save_weights(run_dir / "classifier.pt", backbone, kind, spec, classifier, train.classes)

    device = trainer.strategy.root_device
    metrics, protocol = _test(classifier, spec, config.data, config.test, test, device)
    metrics["loss"] = float(trainer.callback_metrics.get("loss", float("nan")))
    metrics["unreadable"] = float(num_unreadable(run_dir))
    protocol |= {
        "train": train.source,
        "training": _training_card(config),
        "weights": _origin(config.weights, weights, config.untrained),
    }
    return _report("finetune", config, metrics, protocol, run_dir)


def test(config: schema.ClassifierTestConfig) -> Report:
    """Test a fine-tuned classifier on clips x crops, softmax averaged over the views of each record."""
    schema.validate(config)
    weights = load_weights(str(config.weights))
    if weights.head is None:
        raise ConfigError([f"weights={config.weights} holds a backbone without classifier; give a run of finetune"])
    _, manifest = config.data.open_with_test(config.seed)
    spec = _spec_of(config.data, None, weights.spec, manifest)
    if manifest.classes != weights.classes:
        raise ConfigError(
            [f"the classes of {manifest.source} are not those the classifier was trained on ({len(weights.classes)})"]
        )
    run_dir = open_run("test", config)
    classifier = Classifier(weights.build_backbone(), len(weights.classes))
    classifier.linear.load_state_dict(weights.head)
    metrics, protocol = _test(classifier, spec, config.data, config.test, manifest, _join(config.accelerator))
    return _report("test", config, metrics, protocol | {"weights": _origin(config.weights, weights, False)}, run_dir)


def extract(config: schema.ExtractConfig) -> Report:
    """Write the features of the train and test parts to `features_train.pt` and `features_test.pt`."""
    train, test, run_dir = _features(config, "extract", labeled=False)
    metrics = {"train_records": float(len(train.features)), "features": float(train.features.shape[1])}
    if test is not None:
        metrics["test_records"] = float(len(test.features))
    if distributed.rank() == 0:
        for part, bank in (("train", train), ("test", test)):
            if bank is not None:
                bank.save(run_dir / f"features_{part}.pt")
    return _report("extract", config, metrics, train.protocol, run_dir)


def knn(config: schema.KnnConfig) -> Report:
    """Classify the test part by the vote of its nearest neighbors in the train part."""
    train, test, run_dir = _labeled_features(config, "knn")
    metrics = knn_accuracy(train, test, config.k, config.temperature, _device(config.accelerator))
    protocol = test.protocol | {"train": train.protocol, "k": config.k, "temperature": config.temperature}
    return _report("knn", config, metrics, protocol, run_dir)


def linear(config: schema.LinearConfig) -> Report:
    """Classify the test part by linear classifiers on a frozen backbone, trained on the train part."""
    if config.views:
        return _linear_on_views(config)
    train, test, run_dir = _labeled_features(config, "linear")
    metrics = linear_probe(train, test, config.probe(), _device(config.accelerator))
    protocol = test.protocol | {"train": train.protocol, "training": _training_card(config)}
    return _report("linear", config, metrics, protocol, run_dir)


def _linear_on_views(config: schema.LinearConfig) -> Report:
    """Make the training features anew in each epoch, from random views; test on clips x crops, softmax averaged."""
    config = schema.validate(config)
    weights = load_weights(str(config.weights))
    train, test = config.data.open_with_test(config.seed)
    _check_labeled(train)
    view = config.views[0].filled_in(weights.spec)
    spec = _spec_of(config.data, view, weights.spec, train)
    pl.seed_everything(config.seed, verbose=False)
    backbone = weights.build_backbone(config.untrained)
    _check_training(config.data, train, backbone, spec)

    run_dir = open_run("linear", config)
    heads = LinearHeads(backbone.num_features, len(train.classes), config.probe().lrs)
    views = BatchAugmentation([view], config.seed, config.data.canvas)
    module = ProbeModule(backbone, heads, views, config.optimizer, config.schedule, config.data.batch_size)
    data = TrainingData(config.data, train, [view], spec, config.seed, config.trainer.accumulate)
    trainer = fit(module, data, config, run_dir, [])

    loader, protocol = _views_to_test(spec, config.data, config.test, test)
    device = trainer.strategy.root_device
    scores, records = mean_over_views(module, lambda logits: logits.softmax(dim=-1), spec, loader, device, "test part")
    labels = _labels_of(test, records)
    metrics = linear_metrics(heads.lrs, [top_accuracies(each, labels, "linear") for each in scores.unbind(dim=1)])
    protocol |= {
        "train": train.source,
        "training": _training_card(config),
        "weights": _origin(config.weights, weights, config.untrained),
    }
    return _report("linear", config, metrics, protocol, run_dir)


_SHAPES_TRAINING = (
    *("backbone", "method", "loss", "views", "optimizer", "lrs", "schedule", "standardize"),
    *("dropout", "probe_first", "layer_decay", "mixup"),
)


def _training_card(config: Any) -> dict[str, Any]:
    """Return the settings that shape what is learned, for the protocol card of a training."""
    card = {name: settings_of(getattr(config, name)) for name in _SHAPES_TRAINING if hasattr(config, name)}
    trainer = {name: getattr(config.trainer, name) for name in ("max_epochs", "precision", "accumulate")}
    lr = effective_lr(config.optimizer.lr, config.data.batch_size)
    data = {name: getattr(config.data, name) for name in ("batch_size", "near_power")}
    return {**card, **trainer, **data, "effective_lr": lr}


def retrieve(config: schema.RetrieveConfig) -> Report:
    """Find the records of the test part in the train part: R@1, 5, 10, 20, 50 and mAP, centered and not.

    `by_class.csv` in the run directory has the centered R@1 and AP of each class.
    """
    train, test, run_dir = _labeled_features(config, "retrieve")
    scores = retrieval(bank=train, queries=test, device=_device(config.accelerator))
    write_by_class(run_dir, scores.by_class)
    return _report("retrieve", config, scores.metrics, test.protocol | {"train": train.protocol}, run_dir)


def svm(config: schema.SvmConfig) -> Report:
    """Rank the test part by a linear SVM per class, trained on the train part; `by_class.csv` has each class's."""
    import_scikit_learn()  # what is missing is said before the features are made
    train, test, run_dir = _labeled_features(config, "svm")
    scores = svm_precision(train, test, config.costs, config.folds, config.seed)
    write_by_class(run_dir, scores.by_class)
    protocol = test.protocol | {"train": train.protocol, "costs": config.costs, "folds": config.folds}
    return _report("svm", config, scores.metrics, protocol, run_dir)


def few_shot(config: schema.FewShotConfig) -> Report:
    """Classify records of the test part by the nearest centroid of a few records of the train part, many times."""
    train, test, run_dir = _labeled_features(config, "few-shot")
    settings = {name: getattr(config, name) for name in ("ways", "shots", "queries", "episodes")}
    metrics = few_shot_accuracy(train, test, **settings, seed=config.seed)
    return _report("few-shot", config, metrics, test.protocol | {"train": train.protocol} | settings, run_dir)


def show_views(config: schema.ShowViewsConfig) -> Report:
    """Draw some records with all their views and what each drew, as a run would see them: `views.png`, or `.webp`.

    Raises:
        ConfigError: Before anything heavy starts: settings that cannot be, files that are not there.
        MediaError: If no file that was tried can be read.
    """
    schema.validate(config)
    manifest = config.data.open().train
    views = [view.filled_in(InputSpec()) for view in config.views]
    spec = _spec_of(config.data, views[0], InputSpec(), manifest)
    if spec.num_frames == 1 and (moving := [n for n, v in enumerate(views) if View(v).needs_frames]):
        raise ConfigError([f"views.{n} compares frames, and {manifest.source} gives single ones" for n in moving])

    run_dir = open_run("show-views", config)
    data = TrainingData(config.data, manifest, views, spec, config.seed)
    data.sampler.set_epoch(config.epoch)
    tried = [data.dataset[key] for key in list(data.sampler)[: config.num_samples]]
    batch = collate(tried)
    if not batch.frames:
        raise MediaError(batch.failures[0].path, batch.failures[0].reason)
    on_device = BatchAugmentation(views, config.seed, config.data.canvas)
    file = write_contact_sheet(run_dir / "views", sheet_rows(data.dataset, on_device, batch))
    counts = {"records": len(batch.record), "unreadable": len(batch.failures), "views": len(views)}
    protocol = {"data": manifest.source, "file": file.name, "epoch": config.epoch, "input": asdict(spec)}
    return _report("show-views", config, {name: float(count) for name, count in counts.items()}, protocol, run_dir)


def bench(config: schema.PretrainConfig) -> BenchResult:
    """Measure the decoders on the videos of a pretraining, as it samples them, for `data.decoder=auto`."""
    schema.validate(config)
    data = replace(config.data, decoder="pyav")  # what "auto" stands for is about to be measured
    manifest = data.open().train
    spec = _spec_of(data, config.views[0], InputSpec(), manifest)
    return bench_decoders(data, manifest, config.views, spec, config.seed)


def _features(
    config: schema.EvaluationConfig, command: str, labeled: bool
) -> tuple[FeatureBank, FeatureBank | None, Path]:
    """Return the features of the train and test parts, read from `config.features` or made from the data."""
    schema.validate(config)
    device = _join(config.accelerator)
    if config.features is not None:
        train, test = (_load_features(config.features, part, labeled) for part in ("train", "test"))
        return train, test, open_run(command, config)
    weights = load_weights(str(config.weights))
    manifests: tuple[Manifest, Manifest | None]
    manifests = config.data.open_with_test(config.seed) if labeled else config.data.open()
    spec = _spec_of(config.data, None, weights.spec, manifests[0])
    if labeled:
        _check_labeled(manifests[0])
    pl.seed_everything(config.seed, verbose=False)
    backbone = weights.build_backbone(config.untrained)
    _check_backbone_fits(backbone, manifests[0], spec)

    run_dir = open_run(command, config)
    origin = _origin(config.weights, weights, config.untrained)
    banks = [
        None if manifest is None else _extract(backbone, spec, config.data, config.test, manifest, device, origin, part)
        for part, manifest in zip(("train part", "test part"), manifests, strict=True)
    ]
    assert banks[0] is not None
    return banks[0], banks[1], run_dir


def _labeled_features(config: schema.EvaluationConfig, command: str) -> tuple[FeatureBank, FeatureBank, Path]:
    train, test, run_dir = _features(config, command, labeled=True)
    assert test is not None  # labeled data always have a test part
    return train, test, run_dir


def _load_features(features: str, part: str, labeled: bool) -> FeatureBank:
    file = Path(features) / f"features_{part}.pt"
    if not file.is_file():
        raise ConfigError([f"features={features}: {file} is not there; give the run directory of `extract`"])
    bank = FeatureBank.load(file)
    if labeled and int(bank.labels.min()) < 0:
        raise ConfigError([f"features={features}: {file} has records without labels; extract them from labeled data"])
    return bank


def _extract(
    backbone: Backbone,
    spec: InputSpec,
    data: DataConfig,
    test: EvaluationViewsConfig,
    manifest: Manifest,
    device: torch.device,
    origin: dict[str, Any],
    title: str,
) -> FeatureBank:
    loader, protocol = _views_to_test(spec, data, test, manifest)
    return extract_features(backbone, spec, loader, manifest, device, protocol | {"weights": origin}, title)


def _test(
    classifier: Classifier,
    spec: InputSpec,
    data: DataConfig,
    test: EvaluationViewsConfig,
    manifest: Manifest,
    device: torch.device,
) -> tuple[dict[str, float], dict[str, Any]]:
    loader, protocol = _views_to_test(spec, data, test, manifest)
    scores, records = mean_over_views(
        classifier, lambda logits: logits.softmax(dim=1), spec, loader, device, "test part"
    )
    return top_accuracies(scores, _labels_of(manifest, records), "test"), protocol


def _labels_of(manifest: Manifest, records: torch.Tensor) -> torch.Tensor:
    return torch.tensor([manifest.records[index].label for index in records.tolist()])


def _views_to_test(
    spec: InputSpec, data: DataConfig, test: EvaluationViewsConfig, manifest: Manifest
) -> tuple[TimedLoader, dict[str, Any]]:
    """Return the loader of the clips and crops, and the protocol that describes them."""
    short_side = test.short_side or spec.test_short_side
    loader = evaluation_loader(data, manifest, spec, test.num_clips, test.num_crops, short_side, test.clips)
    return loader, {
        "data": manifest.source,
        "records": len(manifest.records),
        "input": asdict(spec),
        "clips": test.num_clips if test.clips == "even" else test.clips,
        "crops": test.num_crops,
        "short_side": short_side,
        "decoder": data.decoder_name(),
    }


def _spec_of(data: DataConfig, view: ViewConfig | None, base: InputSpec, manifest: Manifest) -> InputSpec:
    """Return what the network sees: what the settings say, and where they are silent what `base` says."""
    if all(record.kind == "image" for record in manifest.records):
        data = replace(data, num_frames=1)  # an image is a clip with T = 1
    spec = replace(base)
    if view is not None:
        spec = replace(
            base, size=view.size or base.size, stats=view.stats or base.stats, input=view.input or base.input
        )
    spec = replace(spec, num_frames=data.num_frames or spec.num_frames, clip_s=data.clip_s or spec.clip_s)
    if data.frame_stride or data.clip_s:  # what is said here comes before what the weights were trained with
        spec = replace(spec, frame_stride=data.frame_stride)
    return spec


def _check_training(data: DataConfig, manifest: Manifest, backbone: Backbone, spec: InputSpec) -> None:
    if len(manifest.records) < data.batch_size:
        raise ConfigError(
            [
                f"data.batch_size={data.batch_size} is more than the {len(manifest.records)} records of "
                f"{manifest.source}: no full batch; make it {len(manifest.records)} or less"
            ]
        )
    _check_backbone_fits(backbone, manifest, spec)


def _check_backbone_fits(backbone: Backbone, manifest: Manifest, spec: InputSpec) -> None:
    moving = any(record.kind != "image" for record in manifest.records)
    if moving and spec.num_frames > 1 and not backbone.takes_clips:
        raise ConfigError(
            [
                f"the backbone takes single images, and {manifest.source} holds videos read as "
                f"{spec.num_frames} frames: choose a video backbone (backbone=r3d18) or data.num_frames=1"
            ]
        )
    if not moving and spec.input == "difference":
        raise ConfigError([f"input=difference needs frames to compare, and {manifest.source} holds images"])


def _check_labeled(manifest: Manifest) -> None:
    if not manifest.classes:
        raise ConfigError(
            [f"{manifest.source} has no labels: put the files in one sub-folder per class, or give a list with labels"]
        )


def _origin(path: str | None, weights: Weights | None, untrained: bool) -> dict[str, Any]:
    if weights is None:
        return {"file": None, "untrained": True}
    return {"file": path, "sha256": weights.sha256, "untrained": untrained}


def _device(accelerator: str) -> torch.device:
    """Return the device of this process."""
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda", local_rank()) if on_gpu else torch.device("cpu")


def _join(accelerator: str) -> torch.device:
    """Return the device of this process, after joining the processes that were launched with it."""
    device = _device(accelerator)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.join(device.type == "cuda")
    return device


def _report(command: str, config: Any, metrics: dict[str, float], protocol: dict[str, Any], run_dir: Path) -> Report:
    return write_report(Report(command, metrics, protocol | {"seed": config.seed}, run_dir))
